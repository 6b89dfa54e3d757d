"""Labels in the forms that data sets hand them over, and predictions in the same forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.structures import BaseDataElement, LabelData
from torch import Tensor

from mmloss_plugins.errors import message

STEP = 'Pass labels (B,), a dict with gt_label, or data samples with gt_label'


def last_features(feats: Any) -> Any:
    """Return the last feature of a sequence, or the tensor itself."""
    return feats[-1] if isinstance(feats, (list, tuple)) and feats else feats


def labels_of(what: str, targets: Any, device: torch.device) -> Tensor:
    """Return the classes of a batch.

    Args:
        what: name of the class, for the error text.
        targets: classes (B,); a mapping with them at 'gt_label'; or a sequence of integers or of
            data samples, whose ``gt_label`` is a tensor or has one as its ``label``, of one class
            per image of the sample.
        device: of the result.

    Returns:
        Shape (number of images,).

    Raises:
        ValueError: no labels.
    """
    if isinstance(targets, Mapping):
        targets = targets.get('gt_label')
    if isinstance(targets, Tensor):
        return targets.to(device)
    if not isinstance(targets, Sequence) or isinstance(targets, str):
        rule = 'be the labels of the batch'
        raise ValueError(message(what, 'data_samples', rule, repr(targets), STEP))
    labels = [_label(what, sample) for sample in targets]
    found = torch.cat(labels) if labels else torch.zeros(0, dtype=torch.int64)
    return found.to(device)


def with_predictions(
    what: str, targets: Any, embeddings: Tensor, scores: Tensor | None
) -> list[Any]:
    """Return data samples, or dicts where there are none, with what was predicted.

    Args:
        what: name of the class, for the error text.
        targets: as in :func:`labels_of`; samples may have no label.
        embeddings: (B, D), set as ``pred_feature``, (D,), or (N, D) for a sample of N images.
        scores: (B, C), set as ``scores``, and the best class as ``label`` of ``pred_label``.

    Raises:
        ValueError: another number of samples than of embeddings.
    """
    samples = targets
    if not _are_elements(targets):
        labels = labels_of(what, targets, embeddings.device)
        samples = [dict(gt_label=dict(label=label)) for label in labels.unsqueeze(1)]
    counts = [_count(sample) for sample in samples]
    if sum(counts) != len(embeddings):
        rule = f'describe {len(embeddings)} images'
        step = 'Give as many data samples, or labels, as images'
        raise ValueError(message(what, 'data_samples', rule, sum(counts), step))
    parts = scores.split(counts) if scores is not None else [None] * len(counts)
    for sample, found, score in zip(samples, embeddings.split(counts), parts):
        _set(sample, found, score)
    return list(samples)


def _are_elements(targets: Any) -> bool:
    if not isinstance(targets, Sequence) or isinstance(targets, str):
        return False
    return len(targets) > 0 and all(isinstance(each, BaseDataElement) for each in targets)


def _count(sample: Any) -> int:
    """Return the number of images of a sample."""
    if isinstance(sample, BaseDataElement) and 'gt_label' in sample:
        return len(_label('', sample))
    return 1


def _set(sample: Any, embedding: Tensor, score: Tensor | None) -> None:
    single = len(embedding) == 1
    found: dict[str, Any] = dict(pred_feature=embedding[0] if single else embedding)
    if score is not None:
        found['scores'] = score[0] if single else score
        found['pred_label'] = LabelData(label=score.argmax(1))
    if not isinstance(sample, BaseDataElement):
        sample.update(found)
        if score is not None:
            sample['pred_label'] = dict(label=score.argmax(1))
        return
    for name, value in found.items():
        setattr(sample, name, value)


def _label(what: str, sample: Any) -> Tensor:
    """Return the classes of one sample, (N,)."""
    label = getattr(sample, 'gt_label', sample)
    label = getattr(label, 'label', label)
    if isinstance(label, int):
        label = torch.tensor(label)
    if isinstance(label, Tensor):
        return label.reshape(-1)
    rule = 'have a gt_label with the class'
    raise ValueError(message(what, 'each data sample', rule, type(sample).__name__, STEP))
