"""What the constructors of the DSNT heads make of their arguments, MMPose's included."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, MutableMapping
from typing import Any

from mmpose.codecs import IntegralRegressionLabel, RegressionLabel
from torch import Tensor

from mmloss_plugins.errors import check_choice, message
from mmloss_plugins.functional.dsnt_layer import NORMALIZATIONS
from mmloss_plugins.losses import MultiLoss

CONVENTIONS = ('centered', 'mmpose')


def loss_config(what: str, loss: Any, default: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a MultiLoss for ``loss``, one loss being its term 'coord'.

    Raises:
        TypeError: ``loss`` is no config.
        ValueError: it is MMPose's MultipleLossWrapper.
    """
    if loss is None:
        return multi_loss(default)
    if not isinstance(loss, Mapping) or 'type' not in loss:
        rule, step = 'be the config of a loss, or None', 'Leave it out for the default'
        raise TypeError(message(what, 'loss', rule, repr(loss), step))
    kind = loss['type']
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    if name.split('.')[-1] == 'MultipleLossWrapper':
        rule = 'be None, one loss on the coordinates, or a MultiLoss of named terms'
        step = (
            'Write loss=None for the default, or '
            "loss=dict(_delete_=True, type='mmloss_plugins.MultiLoss', "
            "terms=dict(coord=dict(type='mmloss_plugins.EuclideanLoss'), "
            "js=dict(type='mmloss_plugins.HeatmapJSLoss')))"
        )
        raise ValueError(message(what, 'loss', rule, repr(kind), step))
    if kind == 'mmloss_plugins.MultiLoss' or kind is MultiLoss:
        return dict(loss)
    return multi_loss(dict(coord=dict(loss)))


def multi_loss(terms: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a MultiLoss."""
    return dict(type='mmloss_plugins.MultiLoss', terms=dict(terms))


def find_keypoints(what: str, out_channels: int | None, num_joints: int | None) -> int:
    """Return the number of keypoints from either of its names.

    Raises:
        ValueError: neither is given, or both and they differ.
    """
    given = [number for number in (out_channels, num_joints) if number is not None]
    if given and given[0] == given[-1]:
        return given[0]
    rule, step = 'be the number of keypoints', 'Give out_channels alone'
    got = f'{out_channels}, and num_joints={num_joints}'
    raise ValueError(message(what, 'out_channels', rule, got, step))


def check_options(what: str, in_channels: Any, num_stages: Any, lambda_t: int) -> None:
    """Refuse values that no head can have.

    Raises:
        ValueError: names the first of them and what to write.
    """
    checks = {
        'in_channels': (
            isinstance(in_channels, int),
            'be one number',
            in_channels,
            'The head reads the last feature map: fuse others in a neck',
        ),
        'num_stages': (
            isinstance(num_stages, int) and num_stages >= 1,
            'be a positive whole number',
            num_stages,
            'It counts the feature maps that get a loss',
        ),
        'lambda_t': (
            lambda_t == -1,
            'be -1',
            lambda_t,
            "Write loss=dict(type='mmloss_plugins.MultiLoss', terms=..., weights=dict("
            f"js=dict(type='step', values=[1.0, 0.0], milestones=[{lambda_t}])))",
        ),
    }
    _refuse_first(what, checks)


def check_normalization(
    what: str, normalization: str, beta: float, threshold: float, debias: bool
) -> None:
    """Refuse an unknown normalisation, and options that it would not read.

    Raises:
        ValueError: names the first of them and what to write.
    """
    check_choice(what, 'normalization', normalization, NORMALIZATIONS)
    check_positive(what, 'beta', beta)
    softmax = normalization in ('softmax', 'thresholded_softmax')
    thresholded = normalization == 'thresholded_softmax'
    step = f'{normalization!r} does not read it'
    checks = {
        'beta': (softmax or beta == 1, 'be 1 without a softmax', beta, step),
        'threshold': (
            thresholded or threshold == -0.5,
            "be left out without normalization='thresholded_softmax'",
            threshold,
            step,
        ),
        'debias': (
            not debias or normalization == 'softmax',
            "be False without normalization='softmax'",
            debias,
            'It takes out the bias of a softmax',
        ),
    }
    _refuse_first(what, checks)


def _refuse_first(what: str, checks: Mapping[str, tuple[bool, str, Any, str]]) -> None:
    for argument, (fine, rule, got, step) in checks.items():
        if not fine:
            raise ValueError(message(what, argument, rule, got, step))


def check_positive(what: str, argument: str, value: float) -> None:
    """Refuse what is not a positive, finite number.

    Raises:
        ValueError: see there.
    """
    if not 0 < value < math.inf:
        step = 'The default suits most heads'
        raise ValueError(message(what, argument, 'be positive and finite', value, step))


def check_size(what: str, argument: str, size: Any) -> tuple[int, int]:
    """Return ``size`` as (w, h).

    Raises:
        ValueError: it is not two positive whole numbers.
    """
    pair = tuple(size) if isinstance(size, (list, tuple)) else ()
    if len(pair) == 2 and all(isinstance(length, int) and length > 0 for length in pair):
        return pair
    rule, step = 'be two positive whole numbers, (w, h)', 'It is the size of the maps'
    raise ValueError(message(what, argument, rule, repr(size), step))


def find_convention(what: str, decoder: Any) -> str:
    """Return which coordinates a codec encodes and decodes, one of ``CONVENTIONS``.

    Raises:
        ValueError: it is none of the codecs whose coordinates are known.
    """
    if decoder is None:
        return 'centered'
    if isinstance(decoder, (IntegralRegressionLabel, RegressionLabel)):
        return 'mmpose'
    convention = getattr(decoder, 'coordinates', None)
    if convention is None:
        rule = "be DSNTLabel, or MMPose's IntegralRegressionLabel or RegressionLabel"
        step = "Write decoder=dict(type='mmloss_plugins.DSNTLabel', input_size=(w, h))"
        raise ValueError(message(what, 'decoder', rule, type(decoder).__name__, step))
    check_choice(what, 'coordinates of the decoder', convention, CONVENTIONS)
    return str(convention)


def input_size_of(decoder: Any) -> tuple[int, int]:
    """Return (w, h) of the input of the network that a codec was built for."""
    codec = getattr(decoder, 'keypoint_codec', decoder)
    return tuple(codec.input_size)


def adopt_mmpose_keys(state_dict: MutableMapping[str, Tensor], prefix: str) -> None:
    """Rename the weights of MMPose's DSNTHead and IntegralRegressionHead to those of ours.

    ``simplebaseline_head.X`` becomes ``X``; ``linspace_x`` and ``linspace_y`` are dropped.
    """
    for key in [key for key in state_dict if key.startswith(prefix)]:
        name = key[len(prefix) :]
        if name in ('linspace_x', 'linspace_y'):
            del state_dict[key]
        elif name.startswith('simplebaseline_head.'):
            state_dict[prefix + name.partition('.')[2]] = state_dict.pop(key)


def arguments_of(*heads: type) -> list[str]:
    """Return the names of the arguments of the constructors of ``heads``."""
    names: dict[str, None] = {}
    for head in heads:
        for name, parameter in inspect.signature(head.__init__).parameters.items():
            if name != 'self' and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                names[name] = None
    return list(names)
