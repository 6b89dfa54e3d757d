"""How well probabilities rank and separate the foreground pixels of a whole set."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from mmloss_plugins.errors import message
from mmloss_plugins.registry import METRICS


@METRICS.register_module()
class PixelAveragePrecision(BaseMetric):
    """Average precision over all pixels, F1 at a threshold, and the largest probability.

    - ``pixel/AP``: scikit-learn's ``average_precision_score`` of all pixels of all images together;
    - ``pixel/F1``: its ``f1_score`` of ``prob > threshold``; 0 if no pixel is that probable;
    - ``pixel/max_prob``: a network that calls everything background shows here.

    AP and F1 are NaN if no pixel of the set is foreground. Five bytes per pixel are kept.

    Args:
        threshold (float): of the F1 score, between 0 and 1.
        collect_device (str): of MMEngine's BaseMetric.
        prefix (str, optional): takes the place of 'pixel'.

    Raises:
        ImportError: scikit-learn is missing.
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
        require_scikit_learn()

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep ``prob`` and ``target`` (tensors of one shape) of each sample."""
        for sample in data_samples:
            prob = sample['prob'].detach().float().flatten().cpu().numpy()
            self.results.append((prob, (sample['target'] > 0.5).flatten().cpu().numpy()))

    def compute_metrics(self, results: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
        """Return AP, F1 and max_prob of all samples."""
        from sklearn.metrics import average_precision_score, f1_score

        prob = np.concatenate([prob for prob, _ in results])
        target = np.concatenate([target for _, target in results])
        values = {'max_prob': float(prob.max())}
        if not target.any():
            return {'AP': float('nan'), 'F1': float('nan'), **values}
        return {
            'AP': float(average_precision_score(target, prob)),
            'F1': float(f1_score(target, prob > self.threshold, zero_division=0)),
            **values,
        }


def require_scikit_learn() -> None:
    """Refuse to start a run whose first validation would find scikit-learn missing.

    Raises:
        ImportError: it is missing.
    """
    if find_spec('sklearn') is None:
        rule = 'be installed for the metric of the imbalance minis'
        step = "Run pip install 'mmloss-plugins[claims]'"
        raise ImportError(message('PixelAveragePrecision', 'scikit-learn', rule, 'none', step))
