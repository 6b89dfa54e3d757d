"""How well the pictures of a query are found in a gallery of other cameras."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor
from torch.nn.functional import normalize

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.metrics._labels import class_of, feature_of
from mmloss_plugins.registry import METRICS

WHAT = 'SearchMetric'
SIMILARITIES = ('cosine', 'euclidean')
KEYS = ('camera_id', 'is_query')
# Queries at a time.
BLOCK = 256


@METRICS.register_module()
class SearchMetric(BaseMetric):
    """mAP and CMC of Market-1501's protocol: each query is searched for in the gallery.

    Of the gallery, a query does not see the pictures of its own identity by its own camera, nor
    junk, which has ``ignore_index`` for a label. Distractors are an identity that no query has.
    The rest is sorted by similarity; of equally similar pictures those of other identities come
    first, so that embeddings that collapsed score as badly as can be.

    - ``search/mAP``: mean over the queries of their average precision, the mean over the hits of
      the share of hits among all pictures up to that one.
    - ``search/rank-K``: share of queries with a hit among the first K.

    Queries without a hit in the gallery do not count. All are NaN if an embedding is not finite, or
    if no query counts.

    Predictions are data samples or dicts with ``pred_feature``, (D,), the identity as ``label`` of
    ``gt_label``, and ``camera_id`` and ``is_query``, which :class:`Market1501` with
    ``split='test'`` gives; MMDetection's pipeline keeps them with
    ``dict(type='PackReIDInputs', meta_keys=('camera_id', 'is_query'))``.

    Args:
        ranks (Sequence[int]): The numbers K. Defaults to (1, 5, 10)
        similarity (str): 'cosine', or 'euclidean' for the negative distance. Defaults to 'cosine'
        ignore_index (int): Label of junk. Defaults to -1
        collect_device (str): Of MMEngine's BaseMetric
        prefix (str, optional): Takes the place of 'search'

    Raises:
        TypeError: ``ranks`` is no sequence.
        ValueError: a number out of range; in ``process`` a sample without feature, label, camera
            or flag; in ``evaluate`` no query or no gallery.

    Differs from:
        MMDetection's ``ReIDMetrics``, where each picture is searched for among all others whatever
        their camera.

    Reference:
        Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015.

    Example:
        >>> metric = SearchMetric(ranks=(1, 2))
        >>> for x, label, camera, query in ((0, 7, 1, 1), (1, 7, 1, 0), (2, 9, 2, 0), (3, 7, 2, 0)):
        ...     feature = torch.tensor([1.0, float(x)])
        ...     sample = dict(camera_id=camera, is_query=bool(query), pred_feature=feature)
        ...     metric.process(None, [dict(sample, gt_label=dict(label=label))])
        >>> # The nearest is by the same camera, then comes another identity, then the hit.
        >>> metric.evaluate(size=4)
        {'search/mAP': 0.5, 'search/rank-1': 0.0, 'search/rank-2': 1.0}
    """

    default_prefix = 'search'

    def __init__(
        self,
        ranks: Sequence[int] = (1, 5, 10),
        similarity: str = 'cosine',
        ignore_index: int = -1,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        check_choice(WHAT, 'similarity', similarity, SIMILARITIES)
        _check_ranks(ranks)
        if type(ignore_index) is not int:
            step = 'Market1501 has -1 for junk'
            raise TypeError(
                message(WHAT, 'ignore_index', 'be an integer', repr(ignore_index), step)
            )
        self.ranks = tuple(ranks)
        self.similarity = similarity
        self.ignore_index = ignore_index

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Keep embedding, identity, camera and flag of each sample."""
        for sample in data_samples:
            feature, label = feature_of(WHAT, sample), class_of(WHAT, sample, 'gt_label')
            camera, is_query = (_number_of(sample, key) for key in KEYS)
            feature = feature.to('cpu', torch.float32).numpy()
            self.results.append((feature, label, camera, bool(is_query)))

    def compute_metrics(self, results: list[tuple[np.ndarray, int, int, bool]]) -> dict[str, float]:
        """Return all values of the set."""
        features = torch.from_numpy(np.stack([each[0] for each in results])).double()
        labels, cameras = (np.array([each[i] for each in results]) for i in (1, 2))
        is_query = np.array([each[3] for each in results])
        _check_split(is_query)
        values = dict.fromkeys(['mAP', *(f'rank-{k}' for k in self.ranks)], math.nan)
        if not features.isfinite().all():
            return values
        query, gallery = (np.flatnonzero(rows) for rows in (is_query, ~is_query))
        found = []
        for row, similarity in self._rows(features[query], features[gallery]):
            one = query[row]
            alike = labels[gallery] == labels[one]
            seen = labels[gallery] != self.ignore_index
            seen &= ~(alike & (cameras[gallery] == cameras[one]))
            if (alike & seen).any():
                found.append(search(similarity[seen], alike[seen]))
        if not found:
            return values
        values['mAP'] = float(np.mean([precision for precision, _ in found]))
        first = np.array([first for _, first in found])
        for k in self.ranks:
            values[f'rank-{k}'] = float((first <= k).mean())
        return values

    def _rows(self, query: Tensor, gallery: Tensor) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each query and its similarities to the gallery."""
        if self.similarity == 'cosine':
            query, gallery = normalize(query, dim=1), normalize(gallery, dim=1)
        for start in range(0, len(query), BLOCK):
            block = query[start : start + BLOCK]
            if self.similarity == 'cosine':
                # Equal pictures must have equal similarities whatever the order of the sum.
                values = (block @ gallery.T).round(decimals=12)
            else:
                values = -torch.cdist(block, gallery, compute_mode='donot_use_mm_for_euclid_dist')
            yield from enumerate(values.numpy(), start)


def search(similarity: np.ndarray, alike: np.ndarray) -> tuple[float, int]:
    """Return average precision and the place of the first hit, from 1, of one query.

    Args:
        similarity: (N,) to each picture.
        alike: boolean, (N,), at least one of them: whether it shows the same identity.
    """
    # The last key is the first to sort by; of equals, those of other identities come first.
    order = np.lexsort((alike, -similarity))
    places = np.flatnonzero(alike[order]) + 1
    precision = np.arange(1, len(places) + 1) / places
    return float(precision.mean()), int(places[0])


def _number_of(sample: Any, key: str) -> int:
    value = sample.get(key)
    if isinstance(value, (bool, int, np.bool_, np.integer)):
        return int(value)
    step = f"Keep it with dict(type='PackReIDInputs', meta_keys={KEYS}), as split='test' gives it"
    raise ValueError(message(WHAT, key, 'be a number or a flag of the sample', repr(value), step))


def _check_ranks(ranks: Any) -> None:
    step = f'See the docstring of {WHAT}'
    if not isinstance(ranks, Sequence) or isinstance(ranks, str):
        raise TypeError(message(WHAT, 'ranks', 'be a sequence', repr(ranks), step))
    if not all(type(k) is int and k > 0 for k in ranks):
        raise ValueError(message(WHAT, 'ranks', 'hold positive integers', ranks, step))


def _check_split(is_query: np.ndarray) -> None:
    if is_query.any() and not is_query.all():
        return
    got = f'{is_query.sum()} of {len(is_query)} samples with is_query'
    step = "Take Market1501 with split='test', which has both"
    raise ValueError(message(WHAT, 'data', 'hold queries and a gallery', got, step))
