"""Checks of the options of the heads of CenterNet and ExtremeNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmcv.ops import batched_nms

from mmloss_plugins.errors import message, refuse_unknown

OF_DETECTOR = ('flip_test', 'scales', 'size_divisor')


def check_counts(what: str, counts: Mapping[str, Any], step: str) -> None:
    """Refuse counts, by name of the argument, that are no integers above 0."""
    for argument, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(message(what, argument, 'be an integer >= 1', repr(value), step))


def checked_test_cfg(
    what: str, test_cfg: Mapping[str, Any], known: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all options of the test, with the defaults of ``known``."""
    of_detector = [name for name in OF_DETECTOR if name in test_cfg]
    if of_detector:
        rule, step = 'be one of the head', "Set type='mmloss_plugins.HeatmapDetector' of the model"
        raise TypeError(message(what, 'argument', rule, repr(of_detector[0]), step))
    refuse_unknown(what, {name: test_cfg[name] for name in test_cfg if name not in known}, known)
    options = {**known, **test_cfg}
    counts = {name: options[name] for name in ('topk', 'max_per_img')}
    check_counts(what, counts, 'The authors take 100 for CenterNet, 40 for ExtremeNet')
    if not 0 <= options['score_thr'] < 1:
        step = 'A score is a probability'
        raise ValueError(message(what, 'score_thr', 'be in [0, 1)', options['score_thr'], step))
    if options['nms'] is not None:
        _check_nms(what, options['nms'])
    return options


def _check_nms(what: str, nms: Any) -> None:
    box, one = torch.ones(1, 4), torch.ones(1)
    # Its errors belong to the start, not to the first test after hours of training.
    try:
        batched_nms(box, one, one.long(), dict(nms))
    except (AssertionError, KeyError, NameError, TypeError, ValueError) as error:
        rule = f'be None or what mmcv.ops.batched_nms takes ({error})'
        step = "Set nms=dict(type='soft_nms', iou_threshold=0.5, method='gaussian')"
        raise ValueError(message(what, 'nms', rule, nms, step)) from error
