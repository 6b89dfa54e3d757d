_base_ = './fcos_r50-caffe_fpn_gn-head_focal_8xb2-1x_coco.py'

# FCOSHead's own initialisation has bias_prob=0.01 here.
model = dict(
    bbox_head=dict(
        init_cfg=dict(
            type='Normal',
            layer='Conv2d',
            std=0.01,
            override=dict(type='Normal', name='conv_cls', std=0.01, bias_prob=0.5),
        )
    )
)
