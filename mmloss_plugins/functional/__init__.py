"""The equations, in torch alone: no registry, no loss weight, no host."""

from mmloss_plugins.functional.balanced_bce import balanced_bce_loss, hard_negative_share
from mmloss_plugins.functional.boxes import ciou_loss, diou_loss, giou_loss, iou_loss
from mmloss_plugins.functional.debug import value_checks, value_checks_enabled
from mmloss_plugins.functional.dice import dice_loss
from mmloss_plugins.functional.focal import gaussian_focal, sigmoid_focal
from mmloss_plugins.functional.heatmap import (
    heatmap_mse,
    heatmaps_to_classes,
    pixel_softmax_ce,
    spatial_softmax_ce,
)
from mmloss_plugins.functional.offset_heatmap import (
    disk_logistic,
    disk_offset_huber,
    hough_vote,
    split_offset_maps,
    vote_peaks,
)
from mmloss_plugins.functional.reduction import expand_weight, reduce_loss
from mmloss_plugins.functional.regression import l1_loss, mse_loss, smooth_l1_loss
from mmloss_plugins.functional.simcc import kl_discret
from mmloss_plugins.functional.wing import adaptive_wing_loss, wing_loss

__all__ = [
    'adaptive_wing_loss',
    'balanced_bce_loss',
    'ciou_loss',
    'dice_loss',
    'diou_loss',
    'disk_logistic',
    'disk_offset_huber',
    'expand_weight',
    'gaussian_focal',
    'giou_loss',
    'hard_negative_share',
    'heatmap_mse',
    'heatmaps_to_classes',
    'hough_vote',
    'iou_loss',
    'kl_discret',
    'l1_loss',
    'mse_loss',
    'pixel_softmax_ce',
    'reduce_loss',
    'sigmoid_focal',
    'smooth_l1_loss',
    'spatial_softmax_ce',
    'split_offset_maps',
    'value_checks',
    'value_checks_enabled',
    'vote_peaks',
    'wing_loss',
]
