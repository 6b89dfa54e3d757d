"""The paper's heatmap baseline on MPII: Gaussians of sigma 1 px, MSE over all pixels, argmax.

The Gaussian has its peak of 1 at the rounded cell and 7x7 cells, the loss knows no visibility and
the maximum moves by a quarter of a cell, as in the authors' code. Their cell i lies at the middle
of its pixels; that of MMPose's codec, taken here, at its first pixel, so that the last half cell on
the right and at the bottom is out of reach. With perfect maps 33.5 % of uniform points are decoded
to within 0.05 of the side at 7x7 where theirs gives 38.0 %, 95.2 % against 100 % at 14x14, and the
same from 28x28 on. The configs set the codec, which depends on the side of the map.

Mirrored, that grid lies one cell less one pixel beside itself, so the flip test shifts by a cell.
"""

_base_ = './dsnt_mpii_224x224.py'

model = dict(
    head=dict(
        _delete_=True,
        type='mmloss_plugins.HeatmapHead',
        in_channels=512,
        out_channels=16,
        deconv_out_channels=None,
        final_layer=dict(kernel_size=1, bias=False),
        loss=dict(type='mmloss_plugins.HeatmapMSELoss', scale='mmpose', use_target_weight=False),
    ),
    test_cfg=dict(flip_mode='heatmap', shift_heatmap=True),
)
