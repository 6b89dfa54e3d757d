"""Several losses where a stock head expects one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mmloss_plugins.errors import check_choice, message, refuse_unknown
from mmloss_plugins.losses.schedules import Schedulable, build_schedule, value_at
from mmloss_plugins.registry import MODELS


@MODELS.register_module()
class MultiLoss(nn.Module):
    """Sum of any number of losses on the same (pred, target), each with a weight or a schedule.

    Every argument of ``forward`` goes on to every term as the head passed it, so that terms may be
    losses of this package or of a host. The result is the sum alone, so that nothing is counted
    twice; :class:`LossDiagnosticsHook` logs each term as ``train/term_NAME`` and its current
    weight as ``train/weight_NAME``, without the word "loss" that a NAME may contain.

    A schedule takes the place of a number in ``weights``:

    - ``dict(type='linear', start=0.0, stop=1.0, begin=0, end=10)``: from ``start`` at epoch
      ``begin`` to ``stop`` at epoch ``end``, constant outside;
    - ``dict(type='step', values=[1.0, 0.5, 0.0], milestones=[10, 20])``: the next value from each
      milestone on.

    Both count epochs, or iterations with ``by_epoch=False``, as MMEngine's runner does; without a
    runner both are at 0. A run that is configured in iterations stays at epoch 0. A term at weight
    0 is not evaluated.

    Where the prediction is a mapping, such as ``dict(coords=..., heatmaps=...)`` of
    :class:`DSNTHead`, each term gets the entry that its class names in ``READS``: 'coords' where
    it names none, as the losses of the hosts; the whole mapping for ``READS = None``. The same
    goes for every other argument that is a mapping, such as the target; what is none (weights, a
    target that all terms share) goes to every term.

    Args:
        terms: config (or module) of each loss by name; types with the prefix ``mmloss_plugins.``
            are ours, others those of the config's default scope.
        weights: factor or schedule by name of a term, on top of the term's own ``loss_weight``;
            1 where none is given.
        loss_weight: factor on the sum.
        use_sigmoid: read by MMDetection's heads to choose the number of channels; no effect here.

    Raises:
        TypeError: an unknown argument, here or in a term or schedule, or a wrong type.
        ValueError: no term, a name that cannot be logged, a weight for no term, or a schedule
            with wrong values; in ``forward`` a mapping without the entry that a term reads.

    Example:
        >>> import torch
        >>> loss = MultiLoss(
        ...     terms=dict(
        ...         l1=dict(type='mmloss_plugins.L1Loss'),
        ...         mse=dict(type='mmloss_plugins.MSELoss', loss_weight=0.5),
        ...     ),
        ...     weights=dict(mse=dict(type='linear', start=1.0, stop=0.0, begin=0, end=10)),
        ... )
        >>> loss(torch.tensor([[2.0]]), torch.tensor([[0.0]]))  # 2 + 0.5 * 4
        tensor(4.)
    """

    # As a term of another one: which entry is read is up to the terms of this one.
    READS = None

    def __init__(
        self,
        terms: Mapping[str, Any],
        weights: Mapping[str, Schedulable] | None = None,
        *,
        loss_weight: float = 1.0,
        use_sigmoid: bool = False,
        **unknown: Any,
    ) -> None:
        super().__init__()
        known = ['terms', 'weights', 'loss_weight', 'use_sigmoid']
        refuse_unknown('MultiLoss', unknown, known)
        weights = {} if weights is None else weights
        self.log_names = _log_names(terms)
        for name in weights:
            check_choice('MultiLoss', 'weights', name, terms)
        self.terms = nn.ModuleDict({name: _build_term(name, term) for name, term in terms.items()})
        self.weights = {
            name: build_schedule('MultiLoss', name, weights.get(name, 1.0), f'weight of {name}')
            for name in terms
        }
        self.loss_weight = loss_weight
        self.use_sigmoid = use_sigmoid

    def forward(self, pred: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Return the weighted sum of the terms.

        Args:
            pred: prediction, as the terms take it.
            args: target, weight, ... as the head passes them.
            kwargs: the same by keyword; what is None is left out.

        Returns:
            A scalar; with ``reduction_override='none'`` or ``reduction='none'`` in every term the
            sum of the unreduced losses.

        Raises:
            TypeError: a term returns no tensor.
            ValueError: the terms return tensors of different shapes.
        """
        values = list(self.evaluate(pred, *args, **kwargs).values())
        if not values:
            return _attached_zero(pred)
        return sum(values[1:], values[0])

    def evaluate(self, pred: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return each term as it enters the sum, by name; those at weight 0 are left out."""
        # A host's loss may not know what a head leaves at None, such as avg_factor.
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        values: dict[str, Tensor] = {}
        for name, weight in self.current_weights().items():
            if weight == 0:
                continue
            value = self._evaluate_term(name, pred, args, kwargs)
            _check_value(name, value, values)
            values[name] = value * (weight * self.loss_weight)
        return values

    def _evaluate_term(self, name: str, pred: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        term = self.terms[name]
        key = getattr(term, 'READS', 'coords')
        if key is None or not isinstance(pred, Mapping):
            return term(pred, *args, **kwargs)
        read = [_entry(name, key, given) for given in (pred, *args)]
        return term(*read, **{word: _entry(name, key, given) for word, given in kwargs.items()})

    def current_weights(self) -> dict[str, float]:
        """Return the factor of each term at the runner's current epoch and iteration."""
        return {name: value_at(weight) for name, weight in self.weights.items()}

    def scheduled_weights(self) -> dict[str, Tensor]:
        """Return ``weight_NAME`` of the terms that have a schedule, 0-d tensors, for a head's log.

        For heads that call :meth:`evaluate`, whose terms :class:`LossDiagnosticsHook` cannot see.
        """
        return {
            f'weight_{self.log_names[name]}': torch.tensor(weight)
            for name, weight in self.current_weights().items()
            if not isinstance(self.weights[name], float)
        }

    @torch.no_grad()
    def diagnostics(self, pred: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return ``term_NAME``, each term's share of the sum, and ``weight_NAME``, 0-d tensors."""
        values = self.evaluate(pred, *args, **kwargs)
        like = tree_leaves(pred)[0]
        found = {}
        for name, weight in self.current_weights().items():
            value = values.get(name, like.new_zeros(()))
            found[f'term_{self.log_names[name]}'] = value.mean() if value.dim() else value
            found[f'weight_{self.log_names[name]}'] = torch.tensor(weight)
        return found

    def extra_repr(self) -> str:
        return f'weights={self.weights}, loss_weight={self.loss_weight}'


def _build_term(name: str, term: Any) -> nn.Module:
    if isinstance(term, nn.Module):
        return term
    if not isinstance(term, Mapping) or 'type' not in term:
        rule, step = 'be the config of a loss', "Pass dict(type='mmloss_plugins.L1Loss', ...)"
        raise TypeError(message('MultiLoss', f'term {name}', rule, repr(term), step))
    loss: nn.Module = MODELS.build(dict(term))
    return loss


def _entry(name: str, key: str, given: Any) -> Any:
    """Return what the term ``name`` reads of an argument of several parts."""
    if not isinstance(given, Mapping):
        return given
    if key not in given:
        rule = f'find its {key!r} in what the head passes'
        step = 'Remove the term, or take a head that passes it, such as DSNTHead'
        got = 'a mapping of ' + (', '.join(repr(other) for other in given) or 'nothing')
        raise ValueError(message('MultiLoss', f'term {name}', rule, got, step))
    return given[key]


def _log_names(terms: Any) -> dict[str, str]:
    """Return the names of the terms without the word that makes MMEngine count a value."""
    if not isinstance(terms, Mapping) or not terms:
        rule, step = (
            'be a dict of at least one loss by name',
            'Pass terms=dict(name=dict(type=...))',
        )
        raise TypeError(message('MultiLoss', 'terms', rule, repr(terms), step))
    names: dict[str, str] = {}
    for name in terms:
        if not isinstance(name, str) or not name.isidentifier() or hasattr(nn.ModuleDict, name):
            rule, step = 'be a word that nn.ModuleDict has no method for', 'Call the term otherwise'
            raise ValueError(message('MultiLoss', 'name of a term', rule, repr(name), step))
        short = re.sub('_*loss_*', '_', name, flags=re.IGNORECASE).strip('_') or 'only'
        if short in names.values():
            rule = "differ from the others without the word 'loss', which is not logged"
            raise ValueError(message('MultiLoss', 'name of a term', rule, repr(name), 'Rename it'))
        names[name] = short
    return names


def _check_value(name: str, value: Any, others: Mapping[str, Tensor]) -> None:
    if not isinstance(value, Tensor):
        rule, step = 'return a tensor', 'Use it outside of MultiLoss'
        raise TypeError(message('MultiLoss', f'term {name}', rule, type(value).__name__, step))
    for other, first in others.items():
        if value.shape != first.shape:
            rule = f'have the shape {tuple(first.shape)} of {other}'
            step = 'Give all terms the same reduction'
            raise ValueError(message('MultiLoss', f'term {name}', rule, tuple(value.shape), step))


def _attached_zero(pred: Any) -> Tensor:
    """Return 0 with a gradient of zeros for every prediction, even at inf or NaN."""
    leaves = [leaf for leaf in tree_leaves(pred) if isinstance(leaf, Tensor)]
    nothing = [leaf.reshape(-1)[:0].sum(dtype=torch.float32) for leaf in leaves]
    return sum(nothing[1:], nothing[0])
