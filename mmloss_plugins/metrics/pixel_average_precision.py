"""How well probabilities rank and separate the foreground pixels of a whole set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from mmloss_plugins.errors import message
from mmloss_plugins.registry import METRICS


@METRICS.register_module()
class PixelAveragePrecision(BaseMetric):
    """Average precision over all pixels, F1 at a threshold, and the largest probability.

    - ``pixel/AP``: :func:`average_precision` of all pixels of all images together;
    - ``pixel/F1``: of ``prob > threshold``; 0 if no pixel is that probable;
    - ``pixel/max_prob``: a network that calls everything background shows here.

    AP and F1 are NaN if no pixel of the set is foreground. Five bytes per pixel are kept.

    Args:
        threshold (float): of the F1 score, between 0 and 1.
        collect_device (str): of MMEngine's BaseMetric.
        prefix (str, optional): takes the place of 'pixel'.

    Raises:
        ValueError: ``threshold`` is not between 0 and 1.
    """

    default_prefix = 'pixel'

    def __init__(
        self, threshold: float = 0.5, collect_device: str = 'cpu', prefix: str | None = None
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if not 0 < threshold < 1:
            what = type(self).__name__
            raise ValueError(
                message(what, 'threshold', 'be between 0 and 1', threshold, 'Take for instance 0.5')
            )
        self.threshold = threshold

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep ``prob`` and ``target`` (tensors of one shape) of each sample."""
        for sample in data_samples:
            prob = sample['prob'].detach().float().flatten().cpu().numpy()
            self.results.append((prob, (sample['target'] > 0.5).flatten().cpu().numpy()))

    def compute_metrics(self, results: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
        """Return AP, F1 and max_prob of all samples."""
        prob = np.concatenate([prob for prob, _ in results])
        target = np.concatenate([target for _, target in results])
        return {
            'AP': average_precision(prob, target),
            'F1': f1_score(prob > self.threshold, target),
            'max_prob': float(prob.max()),
        }


def average_precision(score: np.ndarray, target: np.ndarray) -> float:
    """Return the area under the precision-recall curve as a sum of steps.

    The mean over the positives of the precision at their score. Elements of one score enter
    together, so that their order does not matter; ``sklearn.metrics.average_precision_score`` has
    the same definition.

    Args:
        score: any order of confidence, shape (N,).
        target: boolean, shape (N,).

    Returns:
        float: from 0 to 1; NaN without a positive.

    Example:
        >>> round(average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True])), 4)
        0.8333
    """
    order = np.argsort(score)[::-1]
    score, target = score[order], target[order]
    if not target.any():
        return float('nan')
    last_of_score = np.append(score[1:] != score[:-1], True)
    hits = np.cumsum(target)[last_of_score]
    precision = hits / (np.flatnonzero(last_of_score) + 1)
    return float(np.sum(np.diff(hits, prepend=0) * precision) / hits[-1])


def f1_score(found: np.ndarray, target: np.ndarray) -> float:
    """Return the harmonic mean of precision and recall of boolean (N,); NaN without a positive."""
    if not target.any():
        return float('nan')
    return float(2 * np.sum(found & target) / (found.sum() + target.sum()))
