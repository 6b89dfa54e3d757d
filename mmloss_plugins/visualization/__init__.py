"""Pictures of a run: predictions over labels, SimCC distributions, loss and metric curves.

``python -m mmloss_plugins.visualization CONFIG CHECKPOINT --out DIR`` writes all three. They need
matplotlib (``pip install mmloss-plugins[claims]``); the first two need MMPose as well, or for
detections and their heatmaps MMDetection.
``python -m mmloss_plugins.visualization dsnt WORK_DIR ... --out FILE`` compares the heatmaps that
DSNT heads have learned; ``detections``, ``centernet`` and ``extremenet`` in place of ``dsnt`` draw
one picture of detectors, ``embeddings`` one of embeddings of two dimensions.
"""

from mmloss_plugins.visualization.curves import draw_curves, read_scalars
from mmloss_plugins.visualization.detection import (
    draw_centernet,
    draw_detections,
    draw_extremenet,
)
from mmloss_plugins.visualization.dsnt import draw_dsnt, measure_spread
from mmloss_plugins.visualization.embeddings import draw_embeddings
from mmloss_plugins.visualization.pose import draw_predictions
from mmloss_plugins.visualization.simcc import draw_simcc

__all__ = [
    'draw_centernet',
    'draw_curves',
    'draw_detections',
    'draw_dsnt',
    'draw_embeddings',
    'draw_extremenet',
    'draw_predictions',
    'draw_simcc',
    'measure_spread',
    'read_scalars',
]
