"""Whether a classifier is as sure as it is right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mmloss_plugins.errors import message
from mmloss_plugins.metrics._labels import class_of
from mmloss_plugins.registry import METRICS

WHAT = 'CalibrationError'
# Highest probability, whether its class is right, -log of the probability of the own class.
Certainty = tuple[float, bool, float]


@METRICS.register_module()
class CalibrationError(BaseMetric):
    r"""Expected calibration error and negative log-likelihood of the softmax of ``scores``.

    - ``calibration/ece``: samples are put into M bins of equal width by their confidence, the
      highest probability p; the gap between accuracy and mean confidence of a bin counts by its
      share of the samples (Guo et al., equation 3),

      .. math::
          ECE = \sum_{m=1}^{M} \frac{|B_m|}{n} \, |acc(B_m) - conf(B_m)|, \qquad
          B_m = \{ i : (m - 1) / M < p_i \le m / M \}

      0 where each bin is as often right as it says, at most 1. An estimate from few samples is too
      high, the more so the more bins.
    - ``calibration/confidence``: mean of p; above the accuracy a classifier is overconfident.
    - ``calibration/nll``: mean of -log of the probability of the own class, in nats; log(C) for a
      guess among C classes. Unlike the first it cannot be low for a classifier that knows nothing.

    Predictions are data samples or dicts with logits as ``scores``, (C,), and the class as
    ``label`` of ``gt_label``, as heads built with ``with_scores=True`` give them: those of a head
    with a margin are scaled cosines without the margin. All are NaN if a score of a sample that
    counts is NaN or plus infinity, or if no sample counts; minus infinity is a probability of 0.

    Args:
        num_bins (int): M. Defaults to 15
        ignore_index (int): Samples of this class do not count. Defaults to -1
        collect_device (str): Of MMEngine's BaseMetric
        prefix (str, optional): Takes the place of 'calibration'

    Raises:
        ValueError: ``num_bins`` is no positive integer; in ``process`` a sample without scores or
            label, or with a label that has no score.

    Reference:
        Guo et al., On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599.

    Example:
        >>> metric = CalibrationError()
        >>> scores = torch.tensor([0.6, 0.4]).log()
        >>> metric.process(None, [dict(scores=scores, gt_label=label) for label in (0, 0, 0, 1)])
        >>> {name: round(value, 4) for name, value in metric.evaluate(size=4).items()}
        {'calibration/ece': 0.15, 'calibration/confidence': 0.6, 'calibration/nll': 0.6122}
    """

    default_prefix = 'calibration'

    def __init__(
        self,
        num_bins: int = 15,
        ignore_index: int = -1,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if type(num_bins) is not int or num_bins < 1:
            step = 'The paper has 15'
            raise ValueError(
                message(WHAT, 'num_bins', 'be a positive integer', repr(num_bins), step)
            )
        self.num_bins = num_bins
        self.ignore_index = ignore_index

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep three numbers of each sample, None of one that does not count."""
        for sample in data_samples:
            label = class_of(WHAT, sample, 'gt_label')
            scores = _scores_of(sample)
            # One result per sample: MMEngine cuts what several ranks collect at their number.
            counts = label != self.ignore_index
            self.results.append(certainty_of(scores, label) if counts else None)

    def compute_metrics(self, results: list[Certainty | None]) -> dict[str, float]:
        """Return the three values."""
        counted = torch.tensor([each for each in results if each is not None], dtype=torch.float64)
        if len(counted) == 0 or counted.isnan().any():
            return dict(ece=math.nan, confidence=math.nan, nll=math.nan)
        confidence, hits, nll = counted.unbind(1)
        return dict(
            ece=expected_calibration_error(confidence, hits, self.num_bins),
            confidence=float(confidence.mean()),
            nll=float(nll.mean()),
        )


def certainty_of(scores: Tensor, label: int) -> Certainty:
    """Return what is kept of a sample.

    Args:
        scores: logits, (C,), any floating-point type.
        label: 0...C-1.

    Raises:
        ValueError: a label that has no score.
    """
    if not 0 <= label < len(scores):
        rule = f'be a class from 0 to {len(scores) - 1}, as there are scores, or ignore_index'
        step = 'Check num_classes of the head and the labels of the data set'
        raise ValueError(message(WHAT, 'gt_label', rule, label, step))
    log_probs = scores.detach().to('cpu', torch.float64).log_softmax(0)
    best = int(log_probs.argmax())
    return float(log_probs[best].exp()), best == label, -float(log_probs[label])


def expected_calibration_error(confidence: Tensor, hits: Tensor, num_bins: int) -> float:
    """Return the mean over samples of the gap between accuracy and confidence of their bin.

    Args:
        confidence: within (0, 1], (N,).
        hits: 1 where the prediction is right, else 0, (N,).
        num_bins: M, bins of equal width.
    """
    upper = torch.arange(1, num_bins + 1, dtype=confidence.dtype) / num_bins
    # Rounding: a probability of 1 + 2e-16 would be in a bin of its own beyond the last.
    bins = torch.bucketize(confidence.clamp(max=1), upper)
    # |B| |acc - conf| is the sum over the bin of hit - confidence.
    gaps = confidence.new_zeros(num_bins).index_add_(0, bins, hits - confidence)
    return float(gaps.abs().sum() / len(confidence))


def _scores_of(sample: Any) -> Tensor:
    scores = sample.get('scores')
    if isinstance(scores, Tensor) and scores.dim() == 1 and scores.is_floating_point():
        return scores
    got = repr(scores)
    if isinstance(scores, Tensor):
        got = f'{tuple(scores.shape)} of {scores.dtype}'
    step = 'Build the head with with_scores=True, and give one image per sample'
    raise ValueError(message(WHAT, 'scores', 'be logits of the shape (C,)', got, step))
