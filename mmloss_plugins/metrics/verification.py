"""How well embeddings tell whether two samples are of one class."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.metrics._labels import class_of, feature_of
from mmloss_plugins.registry import METRICS

WHAT = 'VerificationMetric'
SIMILARITIES = ('cosine', 'euclidean')
# Rows of the matrix of similarities at a time.
BLOCK = 256


@METRICS.register_module()
class VerificationMetric(BaseMetric):
    """Recall@k of a search, and the rates of a decision by threshold, over all pairs of samples.

    - ``verification/recall@K``: share of samples with one of their class among the K nearest
      others. Of equally near samples those of other classes come first, so that embeddings that
      collapsed score 0. Samples that are alone in their class do not count.
    - ``verification/accuracy``: (true positive rate + true negative rate) / 2 at the best
      threshold, which is the accuracy of LFW's protocol for as many pairs of one class as of two;
      chosen on the same pairs. 0.5 is chance. ``verification/threshold`` is that similarity.
    - ``verification/TAR@FAR=X``: share of pairs of one class that are accepted at a threshold
      which accepts a share of at most X of the pairs of two classes; without interpolation.

    Predictions are data samples or dicts with ``pred_feature``, (D,), and the class as ``label``
    of ``gt_label``, as MMDetection's ``ReIDMetrics`` takes them. All are NaN if an embedding is
    not finite, or if there is no pair of one class; the last three also if there is none of two.

    Args:
        recall_at (Sequence[int]): The numbers K. Defaults to (1,)
        far (Sequence[float]): False accept rates X, between 0 and 1. Defaults to (0.001,)
        similarity (str): 'cosine', or 'euclidean' for the negative distance. Defaults to 'cosine'
        max_pairs (int): Keep the similarities of at most this many pairs of one class and as many
            of two, at 16 bytes each: every n-th of the samples in an order that is shuffled with
            a fixed seed. Recall@k is always of all. Defaults to 10 million
        collect_device (str): Of MMEngine's BaseMetric
        prefix (str, optional): Takes the place of 'verification'

    Raises:
        ImportError: scikit-learn is missing.
        TypeError: ``recall_at`` or ``far`` is no sequence.
        ValueError: a number out of range; in ``process`` a sample without feature or label.

    Example:
        >>> import torch
        >>> metric = VerificationMetric(far=(0.1,))
        >>> for angle, label in ((0.0, 0), (0.1, 0), (1.0, 1), (1.1, 1)):
        ...     feature = torch.tensor([math.cos(angle), math.sin(angle)])
        ...     metric.process(None, [dict(pred_feature=feature, gt_label=dict(label=label))])
        >>> values = metric.evaluate(size=4)
        >>> values['verification/recall@1'], values['verification/TAR@FAR=0.1']
        (1.0, 1.0)
    """

    default_prefix = 'verification'

    def __init__(
        self,
        recall_at: Sequence[int] = (1,),
        far: Sequence[float] = (0.001,),
        similarity: str = 'cosine',
        max_pairs: int = 10_000_000,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        check_choice(WHAT, 'similarity', similarity, SIMILARITIES)
        _check_each('recall_at', recall_at, _is_count, 'hold positive integers')
        _check_each('far', far, _is_rate, 'hold numbers between 0 and 1')
        _check_each('max_pairs', (max_pairs,), _is_count, 'hold a positive integer')
        if find_spec('sklearn') is None:
            step = "Run pip install 'mmloss-plugins[claims]'"
            raise ImportError(message(WHAT, 'scikit-learn', 'be installed', 'none', step))
        self.recall_at = tuple(recall_at)
        self.far = tuple(far)
        self.similarity = similarity
        self.max_pairs = max_pairs

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep embedding and class of each sample."""
        for sample in data_samples:
            feature, label = feature_of(WHAT, sample), class_of(WHAT, sample, 'gt_label')
            self.results.append((feature.to('cpu', torch.float64).numpy(), label))

    def compute_metrics(self, results: list[tuple[np.ndarray, int]]) -> dict[str, float]:
        """Return all values of the set."""
        features = torch.from_numpy(np.stack([feature for feature, _ in results]))
        labels = torch.tensor([label for _, label in results])
        if not features.isfinite().all():
            return dict.fromkeys(self._names(), math.nan)
        # The pairs that are kept must not depend on how the set is sorted.
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        features, labels = features[order], labels[order]
        if self.similarity == 'cosine':
            features = torch.nn.functional.normalize(features, dim=1)
        pairs = collect_pairs(features, labels, self.similarity, self.max_pairs)
        values = dict.fromkeys(self._names(), math.nan)
        for k in self.recall_at:
            if len(pairs.nearer):
                values[f'recall@{k}'] = float((pairs.nearer < k).double().mean())
        if len(pairs.same) and len(pairs.other):
            values.update(self._rates(pairs))
        return values

    def _rates(self, pairs: Pairs) -> dict[str, float]:
        from sklearn.metrics import roc_curve

        truth = np.repeat([1, 0], [len(pairs.same), len(pairs.other)])
        scores = torch.cat((pairs.same, pairs.other)).numpy()
        fpr, tpr, thresholds = roc_curve(truth, scores, drop_intermediate=False)
        accuracy = (tpr + 1 - fpr) / 2
        best = int(accuracy.argmax())
        values = {'accuracy': float(accuracy[best]), 'threshold': float(thresholds[best])}
        for far in self.far:
            values[_tar(far)] = float(tpr[fpr <= far].max())
        return values

    def _names(self) -> list[str]:
        recalls = [f'recall@{k}' for k in self.recall_at]
        return [*recalls, 'accuracy', 'threshold', *(_tar(far) for far in self.far)]


class Pairs(NamedTuple):
    """Similarities of pairs, and where the first hit of each search stands.

    Attributes:
        same: of pairs of one class, (P,).
        other: of pairs of two classes, (Q,).
        nearer: for each sample that is not alone in its class, the number of samples of other
            classes that are at least as near as the nearest of its own.
    """

    same: Tensor
    other: Tensor
    nearer: Tensor


def collect_pairs(features: Tensor, labels: Tensor, similarity: str, max_pairs: int) -> Pairs:
    """Return what the metric is computed from, a block of rows at a time.

    Args:
        features: (N, D), of length 1 for 'cosine'.
        labels: (N,).
        similarity: 'cosine' or 'euclidean'.
        max_pairs: of each kind.
    """
    _, counts = labels.unique(return_counts=True)
    total_same = int((counts * (counts - 1) // 2).sum())
    total_other = len(labels) * (len(labels) - 1) // 2 - total_same
    steps = [max(1, math.ceil(total / max_pairs)) for total in (total_same, total_other)]
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    seen = [0, 0]
    nearer = []
    for start, values in _rows(features, similarity):
        rows = torch.arange(start, start + len(values))
        alike = labels[rows].unsqueeze(1) == labels
        alone = rows.unsqueeze(1) == torch.arange(len(labels))
        nearer.append(_nearer(values, alike, alone))
        later = torch.arange(len(labels)) > rows.unsqueeze(1)
        for kind, mask in enumerate((alike & later, ~alike & later)):
            picked = values[mask]
            # Every n-th of all blocks together.
            found[kind].append(picked[-seen[kind] % steps[kind] :: steps[kind]])
            seen[kind] += len(picked)
    same, other = (torch.cat(parts) for parts in found)
    return Pairs(same, other, torch.cat(nearer))


def _rows(features: Tensor, similarity: str) -> Iterator[tuple[int, Tensor]]:
    """Yield the first row of each block and its similarities to all samples."""
    for start in range(0, len(features), BLOCK):
        block = features[start : start + BLOCK]
        if similarity == 'cosine':
            # Equal samples must have equal similarities whatever the order of the sum.
            yield start, (block @ features.T).round(decimals=12)
        else:
            yield start, -torch.cdist(block, features, compute_mode='donot_use_mm_for_euclid_dist')


def _nearer(values: Tensor, alike: Tensor, alone: Tensor) -> Tensor:
    partner = alike & ~alone
    best = values.masked_fill(~partner, -torch.inf).amax(1, keepdim=True)
    nearer = ((values >= best) & ~alike).sum(1)
    return nearer[partner.any(1)]


def _tar(far: float) -> str:
    return f'TAR@FAR={far:g}'


def _check_each(argument: str, values: Any, check: Any, rule: str) -> None:
    step = f'See the docstring of {WHAT}'
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(message(WHAT, argument, 'be a sequence', repr(values), step))
    if not all(check(value) for value in values):
        raise ValueError(message(WHAT, argument, rule, values, step))


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_rate(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1
