"""MMEngine hooks: checks before a run, diagnostics during it."""

from mmloss_plugins.hooks.diagnostics import LossDiagnosticsHook
from mmloss_plugins.hooks.embedding_picture import EmbeddingPictureHook
from mmloss_plugins.hooks.heatmap_collapse import HeatmapCollapseHook
from mmloss_plugins.hooks.heatmap_visualization import HeatmapVisualizationHook
from mmloss_plugins.hooks.non_finite_guard import NonFiniteGuardHook
from mmloss_plugins.hooks.require_data import RequireDataHook
from mmloss_plugins.hooks.sharded_weights import ShardedWeightsHook
from mmloss_plugins.hooks.train_classes import TrainClassesHook

__all__ = [
    'EmbeddingPictureHook',
    'HeatmapCollapseHook',
    'HeatmapVisualizationHook',
    'LossDiagnosticsHook',
    'NonFiniteGuardHook',
    'RequireDataHook',
    'ShardedWeightsHook',
    'TrainClassesHook',
]
