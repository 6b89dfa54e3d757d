"""How tightly the embeddings of each class lie, beside how far apart the classes are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor
from torch.nn.functional import normalize

from mmloss_plugins.metrics._labels import class_of, feature_of
from mmloss_plugins.registry import METRICS

WHAT = 'EmbeddingSpread'


@METRICS.register_module()
class EmbeddingSpread(BaseMetric):
    """Angles and distances within classes.

    - ``spread/angle``: median over all samples of the angle in degrees between an embedding and
      the mean direction of its class, from 0 to 180.
    - ``spread/distance``: mean distance of the embeddings to the mean of their class, over the mean
      distance between the mean of a class and that of the nearest other class. Below about 0.5
      classes do not touch; 0 is a point per class.

    Predictions are data samples or dicts with ``pred_feature``, (D,), and the class as ``label``
    of ``gt_label``, as MMDetection's ``ReIDMetrics`` takes them; distances of heads that hand
    embeddings over with length 1 are those on the sphere. NaN if an embedding is not finite or no
    sample counts, and without a second class for the distances.

    Args:
        ignore_index (int): Samples of this class do not count. Defaults to -1
        collect_device (str): Of MMEngine's BaseMetric
        prefix (str, optional): Takes the place of 'spread'

    Raises:
        ValueError: in ``process`` a sample without feature or label.

    Example:
        >>> metric = EmbeddingSpread()
        >>> for x, y, label in ((1.0, 1.0, 0), (1.0, -1.0, 0), (-3.0, 0.0, 1), (-3.0, 0.0, 1)):
        ...     sample = dict(pred_feature=torch.tensor([x, y]), gt_label=dict(label=label))
        ...     metric.process(None, [sample])
        >>> {name: round(value, 4) for name, value in metric.evaluate(size=4).items()}
        {'spread/angle': 22.5, 'spread/distance': 0.125}
    """

    default_prefix = 'spread'

    def __init__(
        self, ignore_index: int = -1, collect_device: str = 'cpu', prefix: str | None = None
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ignore_index = ignore_index

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep embedding and class of each sample."""
        for sample in data_samples:
            feature, label = feature_of(WHAT, sample), class_of(WHAT, sample, 'gt_label')
            self.results.append((feature.to('cpu', torch.float64), label))

    def compute_metrics(self, results: list[tuple[Tensor, int]]) -> dict[str, float]:
        """Return both values."""
        counted = [each for each in results if each[1] != self.ignore_index]
        if not all(feature.isfinite().all() for feature, _ in counted) or not counted:
            return dict(angle=math.nan, distance=math.nan)
        features = torch.stack([feature for feature, _ in counted])
        labels = torch.tensor([label for _, label in counted])
        classes, index = labels.unique(return_inverse=True)
        angle = median_angle(features, index, len(classes))
        return dict(angle=angle, distance=relative_distance(features, index, len(classes)))


def median_angle(features: Tensor, index: Tensor, classes: int) -> float:
    """Return the median angle to the mean direction of the own class in degrees.

    Args:
        features: (N, D).
        index: (N,), within 0...classes-1.
        classes: number of classes, each with a sample.
    """
    directions = normalize(features, dim=1)
    means = normalize(class_means(directions, index, classes), dim=1)
    cosines = (directions * means[index]).sum(1).clamp(-1, 1)
    return float(cosines.acos().rad2deg().quantile(0.5))


def relative_distance(features: Tensor, index: Tensor, classes: int) -> float:
    """Return the mean distance to the class mean over that of a mean to the nearest other one."""
    if classes < 2:
        return math.nan
    means = class_means(features, index, classes)
    within = (features - means[index]).norm(dim=1).mean()
    between = torch.cdist(means, means).fill_diagonal_(math.inf).amin(1).mean()
    return float(within / between)


def class_means(features: Tensor, index: Tensor, classes: int) -> Tensor:
    """Return the mean of each class, (classes, D)."""
    sums = features.new_zeros(classes, features.shape[1]).index_add_(0, index, features)
    return sums / index.bincount(minlength=classes).unsqueeze(1)
