"""The equations, in torch alone: no registry, no loss weight, no host."""

from mmloss_plugins.functional.balanced_bce import balanced_bce_loss, hard_negative_share
from mmloss_plugins.functional.boxes import ciou_loss, diou_loss, giou_loss, iou_loss
from mmloss_plugins.functional.center_decoding import (
    Detections,
    average_mirrored,
    decode_centers,
    local_maxima,
    top_peaks,
)
from mmloss_plugins.functional.center_loss import center_loss, class_sums, move_centers
from mmloss_plugins.functional.center_targets import (
    CenterTargets,
    center_targets,
    pad_objects,
    pad_rows,
)
from mmloss_plugins.functional.class_sampling import SampledClasses, sample_classes
from mmloss_plugins.functional.classifier_start import adacos_scale, circle_directions
from mmloss_plugins.functional.debug import value_checks, value_checks_enabled
from mmloss_plugins.functional.dice import dice_loss
from mmloss_plugins.functional.dsnt_layer import (
    dsnt,
    euclidean_loss,
    heatmap_covariance,
    heatmap_variance,
    normalize_heatmap,
)
from mmloss_plugins.functional.extreme_decoding import (
    edge_aggregate,
    extreme_decode,
    suppress_ghosts,
)
from mmloss_plugins.functional.extreme_points import (
    ExtremeTargets,
    extreme_targets,
    octagon_masks,
    octagons,
)
from mmloss_plugins.functional.focal import gaussian_focal, sigmoid_focal
from mmloss_plugins.functional.gathered_l1 import gather_cells, gathered_l1
from mmloss_plugins.functional.gaussian_peaks import draw_peaks, gaussian_radius, max_radius
from mmloss_plugins.functional.heatmap import (
    heatmap_mse,
    heatmaps_to_classes,
    pixel_softmax_ce,
    spatial_softmax_ce,
)
from mmloss_plugins.functional.heatmap_regularizers import (
    heatmap_js,
    heatmap_kl,
    heatmap_mse_reg,
    heatmap_variance_loss,
)
from mmloss_plugins.functional.label_smoothing import label_smoothing_ce
from mmloss_plugins.functional.margin_cross_entropy import margin_cross_entropy
from mmloss_plugins.functional.margins import (
    arcface_logits,
    combined_margin_logits,
    cosface_logits,
    cosine_logits,
    modified_softmax_logits,
    normface_logits,
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
from mmloss_plugins.functional.sharded_margin_cross_entropy import sharded_margin_cross_entropy
from mmloss_plugins.functional.simcc import kl_discret
from mmloss_plugins.functional.wing import adaptive_wing_loss, wing_loss

__all__ = [
    'CenterTargets',
    'Detections',
    'ExtremeTargets',
    'SampledClasses',
    'adacos_scale',
    'adaptive_wing_loss',
    'arcface_logits',
    'average_mirrored',
    'balanced_bce_loss',
    'center_loss',
    'center_targets',
    'ciou_loss',
    'circle_directions',
    'class_sums',
    'combined_margin_logits',
    'cosface_logits',
    'cosine_logits',
    'decode_centers',
    'dice_loss',
    'diou_loss',
    'disk_logistic',
    'disk_offset_huber',
    'draw_peaks',
    'dsnt',
    'edge_aggregate',
    'euclidean_loss',
    'expand_weight',
    'extreme_decode',
    'extreme_targets',
    'gather_cells',
    'gathered_l1',
    'gaussian_focal',
    'gaussian_radius',
    'giou_loss',
    'hard_negative_share',
    'heatmap_covariance',
    'heatmap_js',
    'heatmap_kl',
    'heatmap_mse',
    'heatmap_mse_reg',
    'heatmap_variance',
    'heatmap_variance_loss',
    'heatmaps_to_classes',
    'hough_vote',
    'iou_loss',
    'kl_discret',
    'l1_loss',
    'label_smoothing_ce',
    'local_maxima',
    'margin_cross_entropy',
    'max_radius',
    'modified_softmax_logits',
    'move_centers',
    'mse_loss',
    'normalize_heatmap',
    'normface_logits',
    'octagon_masks',
    'octagons',
    'pad_objects',
    'pad_rows',
    'pixel_softmax_ce',
    'reduce_loss',
    'sample_classes',
    'sharded_margin_cross_entropy',
    'sigmoid_focal',
    'smooth_l1_loss',
    'spatial_softmax_ce',
    'split_offset_maps',
    'suppress_ghosts',
    'top_peaks',
    'value_checks',
    'value_checks_enabled',
    'vote_peaks',
    'wing_loss',
]
