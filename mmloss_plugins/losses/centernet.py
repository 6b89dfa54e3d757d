"""Losses of CenterNet and ExtremeNet: values at object cells, and the sums that detectors train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Union

import torch
from torch import Tensor, nn

from mmloss_plugins import functional as F
from mmloss_plugins.errors import check_choice, message, refuse_unknown
from mmloss_plugins.functional.gathered_l1 import PENALTIES, check_gathered
from mmloss_plugins.functional.reduction import AvgFactor
from mmloss_plugins.losses.base import BaseLoss, average_over_ranks, count_valid
from mmloss_plugins.registry import MODELS

OBJECTS = 'objects'
PARTS = ('cell_index', 'values', 'mask', 'labels')
EXTREMES = ('top', 'left', 'bottom', 'right')
FOCAL = {'type': 'mmloss_plugins.GaussianFocalLoss'}
REG_L1 = {'type': 'mmloss_plugins.RegL1Loss'}
ObjectTarget = Union[Mapping[str, Any], Sequence[Any]]
Maps = Mapping[str, Any]


@MODELS.register_module()
class RegL1Loss(BaseLoss):
    """L1 of a map at the cells of the objects; see :func:`functional.gathered_l1`.

    For the offsets and sizes of CenterNet and the offsets of ExtremeNet. The default is the
    authors' ``RegL1Loss``: the sum over the coordinates (x, y) of the objects divided by the
    number of these coordinates, here averaged over ranks. Unreduced shape (B, N, 2). The other
    forms of the authors' code:

    - ``RegLoss``, printed in many write-ups as the loss: ``penalty='smooth_l1'``,
      ``mean_over='objects'``;
    - ``NormRegL1Loss``: ``penalty='normalized'``;
    - ``RegWeightedL1Loss``, a size per class: ``class_specific=True``.

    MMDetection's ``L1Loss`` on dense maps with ``avg_factor=2 * n`` gives the default's value
    where no two of the n objects share a cell.

    The target is ``dict(cell_index=..., values=..., mask=..., labels=...)`` or a tuple in this
    order; the last two may be None or left out. cell_index (B, N), row * W + column; values
    (B, N, 2); mask (B, N), False for padding; labels (B, N), read where ``class_specific``.
    :func:`functional.center_targets` makes them all.

    Args:
        penalty: 'l1', 'smooth_l1' or 'normalized', see :func:`functional.gathered_l1`.
        class_specific: ``pred`` has the channels 2c and 2c + 1 for class c, which the target's
            labels choose from.
        mean_over: 'valid' (default): the number of coordinates that count; 'objects': the number
            of objects with one, half of it; both averaged over ranks, at least 1 in total over
            them. 'all': B * N * 2, padding included.
        base_options: ``reduction``, ``loss_weight``, ``use_target_weight``, ``loss_name``,
            ``compile``; see :class:`BaseLoss`.
    """

    MEAN_OVER = ('all', 'valid', OBJECTS)

    def __init__(
        self,
        penalty: str = 'l1',
        class_specific: bool = False,
        *,
        mean_over: str = 'valid',
        **base_options: Any,
    ) -> None:
        super().__init__(mean_over=mean_over, **base_options)
        check_choice(self.loss_name, 'penalty', penalty, PENALTIES)
        self.penalty = penalty
        self.class_specific = class_specific

    def elementwise(self, pred: Tensor, target: ObjectTarget) -> Tensor:
        """Return the distance of each coordinate of each object.

        Args:
            pred: (B, 2, H, W), or (B, 2C, H, W) for ``class_specific``.
            target: see above.

        Returns:
            Shape (B, N, 2), float32.
        """
        cell_index, values, _, labels = self._split(target)
        return self.run(F.gathered_l1, pred, values, cell_index, labels, penalty=self.penalty)

    def check_inputs(self, pred: Any, target: Any) -> None:
        cell_index, values, mask, labels = self._split(target)
        check_gathered(self.loss_name, pred, values, cell_index, labels)
        if mask is not None and mask.shape != values.shape[:2]:
            rule = f'have the shape (B, N) = {tuple(values.shape[:2])} of the values'
            step = 'Pass one for each object, padding included'
            raise ValueError(message(self.loss_name, 'target mask', rule, tuple(mask.shape), step))

    def element_mask(self, mask: Tensor | None, pred: Any, target: ObjectTarget) -> Tensor | None:
        _, values, objects, _ = self._split(target)
        if objects is None:
            return mask
        valid: Tensor = objects.bool().unsqueeze(-1)
        if mask is None:
            return valid
        return valid & F.expand_weight(mask, values.shape, self.loss_name, 'mask').bool()

    def default_avg_factor(
        self, weight: Tensor | None, mask: Tensor | None, pred: Any, target: ObjectTarget
    ) -> AvgFactor | None:
        shape = self._split(target)[1].shape
        if self.mean_over == 'all':
            return None
        if self.mean_over == 'valid':
            return count_valid(pred, shape, weight, mask, self.loss_name)
        valid = torch.ones(shape, dtype=torch.bool, device=pred.device)
        if weight is not None:
            valid = valid & (F.expand_weight(weight, shape, self.loss_name) != 0)
        if mask is not None:
            valid = valid & F.expand_weight(mask, shape, self.loss_name, 'mask').bool()
        return average_over_ranks(valid.any(-1).sum())

    def extra_repr(self) -> str:
        return f'{super().extra_repr()}, penalty={self.penalty!r}, mean_over={self.mean_over!r}'

    def _split(self, target: Any) -> tuple[Any, Any, Any, Any]:
        """Return cell_index, values, mask and labels; the last is None if no one asks for it."""
        step = 'Pass dict(cell_index=..., values=..., mask=...)'
        if not isinstance(target, (Mapping, list, tuple)):
            rule = 'be a dict or a tuple of ' + ', '.join(PARTS)
            got = type(target).__name__
            raise TypeError(message(self.loss_name, 'target', rule, got, step))
        given = target if isinstance(target, Mapping) else dict(zip(PARTS, target))
        wanted = ('cell_index', 'values', *(('labels',) if self.class_specific else ()))
        missing = [name for name in wanted if given.get(name) is None]
        if missing:
            rule = 'hold ' + ', '.join(wanted)
            got = 'none of ' + ', '.join(missing)
            raise ValueError(message(self.loss_name, 'target', rule, got, step))
        labels = given['labels'] if self.class_specific else None
        return given['cell_index'], given['values'], given.get('mask'), labels


class StackedLoss(nn.Module):
    """Sum of weighted terms on the maps of a detector, averaged over its stacks: not registered.

    A subclass implements :meth:`stack_terms`.
    """

    # As a term of MultiLoss: it reads the whole prediction and the whole target.
    READS = None

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, pred: Maps | Sequence[Maps], target: Any) -> Tensor:
        """Return the sum of :meth:`terms`, a scalar."""
        values = list(self.terms(pred, target).values())
        return sum(values[1:], values[0])

    def terms(self, pred: Maps | Sequence[Maps], target: Any) -> dict[str, Tensor]:
        """Return each term by name, weighted and averaged over stacks; they sum to the loss.

        All names contain "loss". Give these to MMEngine or the sum, not both.

        Args:
            pred: maps of the head, or a list of them, one per stack of an hourglass.
            target: one for all stacks.

        Raises:
            ValueError: no stack, or a map that a term reads is missing.
        """
        stacks = [pred] if isinstance(pred, Mapping) else list(pred)
        if not stacks:
            rule, step = 'hold the maps of at least one stack', 'Pass the output of the head'
            raise ValueError(message(type(self).__name__, 'pred', rule, 'none', step))
        found = [self.stack_terms(maps, target) for maps in stacks]
        factor = self.loss_weight / len(stacks)
        return {
            name: factor * torch.stack([terms[name] for terms in found]).sum() for name in found[0]
        }

    def stack_terms(self, maps: Maps, target: Any) -> dict[str, Tensor]:
        """Return each term of one stack by name, weighted."""
        raise TypeError(
            message(
                type(self).__name__,
                'stack_terms',
                'be implemented by the subclass',
                'none',
                'Return the terms by name',
            )
        )

    def _heatmap_term(self, loss: nn.Module, maps: Any, target: Any) -> Tensor:
        logits = self._read(maps, 'heatmap', 'pred')
        labels = self._read(target, 'heatmap', 'target')
        value: Tensor = loss(logits, labels, _fields(target).get('weight'))
        return value

    def _object_term(self, loss: nn.Module, maps: Any, target: Any, name: str) -> Tensor:
        objects = {
            'cell_index': self._read(target, 'cell_index', 'target'),
            'values': self._read(target, name, 'target'),
            'mask': _fields(target).get('mask'),
            'labels': _fields(target).get('labels'),
        }
        value: Tensor = loss(self._read(maps, name, 'pred'), objects)
        return value

    def _read(self, given: Any, name: str, argument: str) -> Any:
        fields = _fields(given)
        if name in fields:
            return fields[name]
        got = ', '.join(map(repr, fields)) or type(given).__name__
        step = 'Its docstring lists what the head has to pass'
        rule = f'hold {name!r}'
        raise ValueError(message(type(self).__name__, argument, rule, got, step))


@MODELS.register_module()
class CtdetLoss(StackedLoss):
    """CenterNet's loss: focal on the heatmap, L1 on offsets and on sizes at the objects' cells.

    .. math:: L = L_{heatmap} + L_{offset} + 0.1 \\, L_{size}

    averaged over the stacks of an hourglass. Equation 4 of Zhou et al., Objects as Points
    (https://arxiv.org/abs/1904.07850); the sizes are in cells, as in the authors' code.

    ``pred`` is ``dict(heatmap=..., offset=..., size_wh=...)``: logits (B, C, H, W), (B, 2, H, W)
    and (B, 2, H, W), or a list of such dicts, one per stack. ``target`` is what
    :func:`functional.center_targets` returns, or a dict with its fields; its ``weight``, if any,
    silences the heatmap's background in ignore regions. :meth:`terms` gives ``loss_heatmap``,
    ``loss_offset`` and ``loss_size``.

    Args:
        heatmap_loss: config of the loss on logits of the heatmap; None: GaussianFocalLoss.
        offset_loss: config of the loss on offsets; None: :class:`RegL1Loss`.
        size_loss: config of the loss on sizes; None: :class:`RegL1Loss`.
        heatmap_weight: factor of the heatmap's term.
        offset_weight: factor of the offsets' term; at 0 the head needs no offsets.
        size_weight: factor of the sizes' term.
        loss_weight: factor on the sum.

    Raises:
        TypeError: an unknown argument.
        ValueError: a negative factor; in ``forward`` a missing map.
    """

    def __init__(
        self,
        heatmap_loss: Mapping[str, Any] | None = None,
        offset_loss: Mapping[str, Any] | None = None,
        size_loss: Mapping[str, Any] | None = None,
        *,
        heatmap_weight: float = 1.0,
        offset_weight: float = 1.0,
        size_weight: float = 0.1,
        loss_weight: float = 1.0,
        **unknown: Any,
    ) -> None:
        super().__init__(loss_weight)
        factors = dict(
            heatmap_weight=heatmap_weight, offset_weight=offset_weight, size_weight=size_weight
        )
        losses = ['heatmap_loss', 'offset_loss', 'size_loss']
        refuse_unknown('CtdetLoss', unknown, [*losses, *factors, 'loss_weight'])
        _check_factors('CtdetLoss', factors)
        self.heatmap_weight = heatmap_weight
        self.offset_weight = offset_weight
        self.size_weight = size_weight
        self.heatmap_loss = MODELS.build(dict(heatmap_loss or FOCAL))
        self.offset_loss = MODELS.build(dict(offset_loss or REG_L1))
        self.size_loss = MODELS.build(dict(size_loss or REG_L1))

    def stack_terms(self, maps: Maps, target: Any) -> dict[str, Tensor]:
        terms = {}
        if self.heatmap_weight:
            term = self._heatmap_term(self.heatmap_loss, maps, target)
            terms['loss_heatmap'] = self.heatmap_weight * term
        if self.offset_weight:
            term = self._object_term(self.offset_loss, maps, target, 'offset')
            terms['loss_offset'] = self.offset_weight * term
        if self.size_weight:
            term = self._object_term(self.size_loss, maps, target, 'size_wh')
            terms['loss_size'] = self.size_weight * term
        return terms


@MODELS.register_module()
class ExdetLoss(StackedLoss):
    """ExtremeNet's loss: focal on five heatmaps, L1 on the offsets of the four extreme points.

    The sum over top, left, bottom, right and center of the heatmaps' terms, and of the offsets'
    over the first four, averaged over the stacks of an hourglass: CenterNet's ``ExdetLoss``.
    ExtremeNet's own ``CTLoss`` (Zhou et al., https://arxiv.org/abs/1901.08043) has
    ``offset_loss=dict(type='mmloss_plugins.RegL1Loss', penalty='smooth_l1',
    mean_over='objects')``.

    ``pred`` maps each of these names to ``dict(heatmap=..., offset=...)``, logits (B, C, H, W)
    and (B, 2, H, W), the center without ``offset``; or it is a list of such dicts, one per stack.
    Extreme maps may have one channel for all classes. ``target`` maps each name to
    ``dict(heatmap=..., cell_index=..., offset=..., mask=...)`` and, for ignore regions,
    ``weight``, shaped as in :class:`functional.CenterTargets`. :meth:`terms` gives
    ``loss_heatmap_top`` and so on, nine terms.

    Args:
        heatmap_loss: config of the loss on logits of the heatmaps; None: GaussianFocalLoss.
        offset_loss: config of the loss on offsets; None: :class:`RegL1Loss`.
        heatmap_weight: factor of the heatmaps' terms.
        offset_weight: factor of the offsets' terms; at 0 the head needs no offsets.
        loss_weight: factor on the sum.

    Raises:
        TypeError: an unknown argument.
        ValueError: a negative factor; in ``forward`` a missing map.
    """

    def __init__(
        self,
        heatmap_loss: Mapping[str, Any] | None = None,
        offset_loss: Mapping[str, Any] | None = None,
        *,
        heatmap_weight: float = 1.0,
        offset_weight: float = 1.0,
        loss_weight: float = 1.0,
        **unknown: Any,
    ) -> None:
        super().__init__(loss_weight)
        factors = dict(heatmap_weight=heatmap_weight, offset_weight=offset_weight)
        known = ['heatmap_loss', 'offset_loss', *factors, 'loss_weight']
        refuse_unknown('ExdetLoss', unknown, known)
        _check_factors('ExdetLoss', factors)
        self.heatmap_weight = heatmap_weight
        self.offset_weight = offset_weight
        self.heatmap_loss = MODELS.build(dict(heatmap_loss or FOCAL))
        self.offset_loss = MODELS.build(dict(offset_loss or REG_L1))

    def stack_terms(self, maps: Maps, target: Any) -> dict[str, Tensor]:
        terms = {}
        for point in (*EXTREMES, 'center'):
            own_maps = self._read(maps, point, 'pred')
            own_target = self._read(target, point, 'target')
            if self.heatmap_weight:
                term = self._heatmap_term(self.heatmap_loss, own_maps, own_target)
                terms[f'loss_heatmap_{point}'] = self.heatmap_weight * term
            if self.offset_weight and point in EXTREMES:
                term = self._object_term(self.offset_loss, own_maps, own_target, 'offset')
                terms[f'loss_offset_{point}'] = self.offset_weight * term
        return terms


def _fields(given: Any) -> Mapping[str, Any]:
    """Return a mapping or a named tuple as a mapping; nothing else has fields."""
    if hasattr(given, '_asdict'):
        fields: Mapping[str, Any] = given._asdict()
        return fields
    return given if isinstance(given, Mapping) else {}


def _check_factors(what: str, factors: Mapping[str, float]) -> None:
    for argument, value in factors.items():
        if not value >= 0:
            step = 'The authors have 1, and 0.1 for sizes'
            raise ValueError(message(what, argument, 'be >= 0', value, step))
    if not any(factors.values()):
        rule, step = 'be above 0 for one term', 'Leave them at their defaults'
        raise ValueError(message(what, 'factors', rule, dict(factors), step))
