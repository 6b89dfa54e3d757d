"""Classes and embeddings of samples in the forms that heads and data sets give them."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from mmloss_plugins.errors import message

STEPS = {
    'gt_label': 'Give each sample a gt_label with the class',
    'pred_label': 'Build the head with with_scores=True',
}


def class_of(what: str, sample: Any, key: str) -> int:
    """Return the class at ``key``: a number, a tensor of one, or a mapping with it at 'label'.

    Args:
        what: name of the metric, for the error text.
        sample: mapping.
        key: 'gt_label' or 'pred_label'.

    Raises:
        ValueError: not exactly one class.
    """
    label = sample.get(key)
    label = label.get('label') if hasattr(label, 'get') else label
    if isinstance(label, Tensor) and label.numel() == 1:
        return int(label.item())
    if isinstance(label, (int, np.integer)):
        return int(label)
    raise ValueError(message(what, key, 'hold one class', repr(label), STEPS[key]))


def feature_of(what: str, sample: Any) -> Tensor:
    """Return ``pred_feature``, (D,), without its gradient.

    Args:
        what: name of the metric, for the error text.
        sample: mapping.

    Raises:
        ValueError: no tensor of one dimension.
    """
    feature = sample.get('pred_feature')
    if isinstance(feature, Tensor) and feature.dim() == 1:
        return feature.detach()
    got = tuple(feature.shape) if isinstance(feature, Tensor) else feature
    step = 'Evaluate EmbeddingClassifier, one image per sample'
    raise ValueError(message(what, 'pred_feature', 'have the shape (D,)', got, step))
