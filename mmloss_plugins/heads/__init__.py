"""Heads that wire backbones, codecs and losses together; each needs its own host alone."""

from mmloss_plugins.heads.arcface import ArcFaceHead, NormFaceHead
from mmloss_plugins.heads.softmax import ModifiedSoftmaxHead, SoftmaxHead
from mmloss_plugins.registry import HAS_MMDET, MMPOSE_CODECS

__all__ = ['ArcFaceHead', 'ModifiedSoftmaxHead', 'NormFaceHead', 'SoftmaxHead']

if MMPOSE_CODECS is not None:
    from mmloss_plugins.heads.dsnt import DSNTHead
    from mmloss_plugins.heads.fc_heatmap import FCHeatmapHead
    from mmloss_plugins.heads.heatmap import HeatmapHead
    from mmloss_plugins.heads.offset_heatmap import OffsetHeatmapHead

    __all__ += ['DSNTHead', 'FCHeatmapHead', 'HeatmapHead', 'OffsetHeatmapHead']

if HAS_MMDET:
    from mmloss_plugins.heads.centernet import CenterNetHead
    from mmloss_plugins.heads.extremenet import ExtremeNetHead
    from mmloss_plugins.heads.fcos import FCOSHead

    __all__ += ['CenterNetHead', 'ExtremeNetHead', 'FCOSHead']
