"""Some of many classes for one step: those of the batch and random others (Partial FC)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmloss_plugins.errors import message
from mmloss_plugins.functional._margin_checks import check_labels

# Of an ignored sample among the sampled classes, where an ignore_index of 255 may be a position.
IGNORED = -1


class SampledClasses(NamedTuple):
    """Classes of one step, and the place of each sample's own among them.

    Attributes:
        classes: (N,), sorted classes within 0...C-1, each once.
        position: (B,), of each sample's class in ``classes``, within 0...N-1: the target of a loss
            over these classes. -1 for an ignored sample, whatever ``ignore_index`` was.
    """

    classes: Tensor
    position: Tensor


def sample_classes(
    target: Tensor,
    num_classes: int,
    *,
    sample_rate: float = 0.1,
    ignore_index: int = -1,
    generator: torch.Generator | None = None,
) -> SampledClasses:
    r"""Draw the classes that one step compares with: all of the batch and random others.

    .. math::
        N = \max(1, \mathrm{round}(r C), \min(B, C))

    The others are drawn evenly and without replacement. The cross-entropy over ``weights[classes]``
    costs N / C of that over all classes and is lower than it, for lack of the classes left out.
    The gradient of ``weights[classes]`` is a tensor of the size of all weights; that of
    ``torch.nn.functional.embedding(classes, weights, sparse=True)`` holds the drawn rows alone,
    for optimizers that take it (SGD without weight decay, SparseAdam, Adagrad) on one device.

    N depends on the shape of the batch alone: it has room for the classes of every batch, and a
    batch of fewer gets more others.

    Args:
        target: y, shape (B,), classes 0...C-1 or ``ignore_index``.
        num_classes: C.
        sample_rate: r, share of the classes, above 0; 1 draws all.
        ignore_index: samples of this class need no class.
        generator: of random numbers, on the device of ``target``. None: the default one there.

    Returns:
        classes (N,) and position (B,), both int64; see :class:`SampledClasses`. ``ignore_index``
        is -1 from here on.

    Raises:
        TypeError: ``target`` holds no integers.
        ValueError: wrong shapes, no class, or a rate out of range. With :func:`value_checks` also
            a class that does not exist.

    Differs from:
        insightface's PartialFC, which draws no others at all where the batch has more classes
        than the share, and reads their number back to the host.

    Reference:
        An et al., Partial FC, https://arxiv.org/abs/2010.05222, section 3.3, and
        https://arxiv.org/abs/2203.15565.

    Example:
        >>> import torch
        >>> classes, position = sample_classes(torch.tensor([40, 7, -1, 40]), 50, sample_rate=0.08)
        >>> len(classes), classes[position[:2]]  # the classes of the batch and two others
        (4, tensor([40,  7]))
        >>> position[2], position[0] == position[3]
        (tensor(-1), tensor(True))
    """
    what = 'sample_classes'
    if type(num_classes) is not int or num_classes < 1:
        step = 'Take the rows of the class weights'
        raise ValueError(message(what, 'num_classes', 'be a positive integer', num_classes, step))
    check_sample_rate(what, sample_rate)
    shape = tuple(target.shape[:1]) or (1,) if isinstance(target, Tensor) else ()
    check_labels(what, target, shape, num_classes, ignore_index)
    ignored = target == ignore_index
    # One place more than classes: what is ignored draws none.
    places = torch.where(ignored, num_classes, target.long())
    priority = torch.rand(
        num_classes + 1, dtype=torch.float32, device=target.device, generator=generator
    )
    # Above every random number, which is below 1.
    priority = priority.index_fill(0, places, 2.0)[:num_classes]
    size = max(round(sample_rate * num_classes), min(len(target), num_classes), 1)
    classes = priority.topk(size, sorted=False).indices.sort().values
    found = torch.searchsorted(classes, places)
    return SampledClasses(classes, torch.where(ignored, IGNORED, found))


def check_sample_rate(what: str, sample_rate: Any) -> None:
    """Refuse a share of the classes that is none.

    Raises:
        ValueError: no number within (0, 1].
    """
    if type(sample_rate) in (int, float) and 0 < sample_rate <= 1:
        return
    step = 'Take 0.1 for a tenth of the classes, 1 for all'
    raise ValueError(message(what, 'sample_rate', 'be within (0, 1]', repr(sample_rate), step))
