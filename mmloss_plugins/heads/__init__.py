"""Heads that wire backbones, codecs and losses together; each needs its own host alone."""

from mmloss_plugins.registry import MMPOSE_CODECS

__all__ = []

if MMPOSE_CODECS is not None:
    from mmloss_plugins.heads.dsnt import DSNTHead
    from mmloss_plugins.heads.fc_heatmap import FCHeatmapHead
    from mmloss_plugins.heads.heatmap import HeatmapHead
    from mmloss_plugins.heads.offset_heatmap import OffsetHeatmapHead

    __all__ += ['DSNTHead', 'FCHeatmapHead', 'HeatmapHead', 'OffsetHeatmapHead']
