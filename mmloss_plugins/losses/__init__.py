"""Registered losses: configuration and reduction around ``mmloss_plugins.functional``."""

from mmloss_plugins.losses.balanced_bce import BalancedBCELoss
from mmloss_plugins.losses.base import BaseLoss
from mmloss_plugins.losses.boxes import CIoULoss, DIoULoss, GIoULoss, IoULoss
from mmloss_plugins.losses.center import CenterLoss
from mmloss_plugins.losses.centernet import CtdetLoss, ExdetLoss, RegL1Loss
from mmloss_plugins.losses.dice import DiceLoss
from mmloss_plugins.losses.dsnt import (
    EuclideanLoss,
    HeatmapJSLoss,
    HeatmapKLLoss,
    HeatmapMSERegLoss,
    HeatmapVarianceLoss,
)
from mmloss_plugins.losses.focal import GaussianFocalLoss, SigmoidFocalLoss
from mmloss_plugins.losses.heatmap import HeatmapMSELoss, PixelSoftmaxCELoss, SpatialSoftmaxCELoss
from mmloss_plugins.losses.label_smoothing import LabelSmoothLoss
from mmloss_plugins.losses.multi import MultiLoss
from mmloss_plugins.losses.offset_heatmap import OffsetHeatmapLoss
from mmloss_plugins.losses.regression import L1Loss, MSELoss, SmoothL1Loss
from mmloss_plugins.losses.simcc import KLDiscretLoss
from mmloss_plugins.losses.wing import AdaptiveWingLoss, WingLoss

__all__ = [
    'AdaptiveWingLoss',
    'BalancedBCELoss',
    'BaseLoss',
    'CIoULoss',
    'CenterLoss',
    'CtdetLoss',
    'DIoULoss',
    'DiceLoss',
    'EuclideanLoss',
    'ExdetLoss',
    'GIoULoss',
    'GaussianFocalLoss',
    'HeatmapJSLoss',
    'HeatmapKLLoss',
    'HeatmapMSELoss',
    'HeatmapMSERegLoss',
    'HeatmapVarianceLoss',
    'IoULoss',
    'KLDiscretLoss',
    'L1Loss',
    'LabelSmoothLoss',
    'MSELoss',
    'MultiLoss',
    'OffsetHeatmapLoss',
    'PixelSoftmaxCELoss',
    'RegL1Loss',
    'SigmoidFocalLoss',
    'SmoothL1Loss',
    'SpatialSoftmaxCELoss',
    'WingLoss',
]
