"""Child registries with the scope ``mmloss_plugins``.

MMEngine imports this module when a config says ``type='mmloss_plugins.X'``, from any host and with
or without ``custom_imports``; ``locations`` then imports the classes on first use.
"""

from __future__ import annotations

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

try:
    from mmpose.registry import KEYPOINT_CODECS as MMPOSE_CODECS
except ModuleNotFoundError as error:
    # An install without MMPose must load; a broken MMPose must still say so.
    if error.name is None or error.name.split('.')[0] != 'mmpose':
        raise
    MMPOSE_CODECS = None

try:
    import mmdet
except ModuleNotFoundError as error:
    if error.name is None or error.name.split('.')[0] != 'mmdet':
        raise
    mmdet = None
HAS_MMDET = mmdet is not None

SCOPE = 'mmloss_plugins'

MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope=SCOPE,
    locations=[
        'mmloss_plugins.losses',
        'mmloss_plugins.necks',
        'mmloss_plugins.heads',
        'mmloss_plugins.models',
    ],
)
# Modules, not the package: that one is imported without PyTorch by the generator of the figures.
DATASETS = Registry(
    'dataset',
    parent=MMENGINE_DATASETS,
    scope=SCOPE,
    locations=[
        'mmloss_plugins.datasets.pixels',
        'mmloss_plugins.datasets.labelled_images',
        'mmloss_plugins.datasets.mnist',
        *(['mmloss_plugins.datasets.identities'] if HAS_MMDET else []),
    ],
)
TRANSFORMS = Registry(
    'transform',
    parent=MMENGINE_TRANSFORMS,
    scope=SCOPE,
    locations=[
        'mmloss_plugins.datasets.transforms',
        'mmloss_plugins.datasets.extreme_points',
        'mmloss_plugins.datasets.pad_border',
    ],
)
METRICS = Registry(
    'metric', parent=MMENGINE_METRICS, scope=SCOPE, locations=['mmloss_plugins.metrics']
)
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope=SCOPE, locations=['mmloss_plugins.hooks'])
KEYPOINT_CODECS = Registry(
    'keypoint codec', parent=MMPOSE_CODECS, scope=SCOPE, locations=['mmloss_plugins.codecs']
)
