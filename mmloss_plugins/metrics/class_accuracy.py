"""Share of samples whose class is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric

from mmloss_plugins.metrics._labels import class_of
from mmloss_plugins.registry import METRICS


@METRICS.register_module()
class ClassAccuracy(BaseMetric):
    """``class/accuracy``: share of samples whose ``pred_label`` is their ``gt_label``.

    For heads built with ``with_scores=True``, tested on the classes that they were trained on.

    Args:
        ignore_index (int): Samples of this class do not count. Defaults to -1
        collect_device (str): Of MMEngine's BaseMetric
        prefix (str, optional): Takes the place of 'class'

    Raises:
        ValueError: in ``process`` a sample without either label.

    Example:
        >>> metric = ClassAccuracy()
        >>> metric.process(None, [dict(gt_label=c, pred_label=1) for c in (1, 1, 2, -1)])
        >>> metric.evaluate(size=4)
        {'class/accuracy': 0.6666666666666666}
    """

    default_prefix = 'class'

    def __init__(
        self, ignore_index: int = -1, collect_device: str = 'cpu', prefix: str | None = None
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ignore_index = ignore_index

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep both classes of each sample."""
        for sample in data_samples:
            labels = (class_of('ClassAccuracy', sample, key) for key in ('gt_label', 'pred_label'))
            self.results.append(tuple(labels))

    def compute_metrics(self, results: list[tuple[int, int]]) -> dict[str, float]:
        """Return the accuracy; NaN if no sample counts."""
        hits = [label == found for label, found in results if label != self.ignore_index]
        return {'accuracy': sum(hits) / len(hits) if hits else float('nan')}
