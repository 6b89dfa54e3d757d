"""What a classifier on the hypersphere starts with: its scale, and its weights in the plane."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmloss_plugins.errors import message


def adacos_scale(num_classes: int) -> float:
    r"""Return the scale that AdaCos finds fit for a number of classes.

    .. math::
        s = \sqrt{2} \, \log(C - 1)

    With it the probability of the own class changes fastest about an angle of 45 degrees, where
    the other classes, at right angles, sum to C - 1.

    Args:
        num_classes: C, at least 3: there is no positive scale below.

    Returns:
        s: 3.1 for 10 classes, 16.3 for a hundred thousand.

    Raises:
        ValueError: fewer than 3 classes.

    Reference:
        Zhang et al., AdaCos, CVPR 2019, https://arxiv.org/abs/1905.00292, section 3.2.

    Example:
        >>> round(adacos_scale(10), 4)  # 1.4142 * 2.1972
        3.1073
    """
    if type(num_classes) is int and num_classes >= 3:
        return math.sqrt(2) * math.log(num_classes - 1)
    rule, step = 'be an integer of at least 3', 'Give the scale as a number'
    raise ValueError(message('adacos_scale', 'num_classes', rule, repr(num_classes), step))


def circle_directions(num_classes: int) -> Tensor:
    r"""Return one direction of the plane per class, at equal angles.

    .. math::
        w_j = (\cos(2 \pi j / C), \sin(2 \pi j / C))

    Random weights of ten classes leave some of them a few degrees apart, which features of two
    dimensions cannot mend: no weight gets past another.

    Args:
        num_classes: C, at least 1.

    Returns:
        Shape (C, 2), float32, unit vectors.

    Raises:
        ValueError: ``num_classes`` is no positive integer.

    Example:
        >>> import torch
        >>> circle_directions(4).round().int()
        tensor([[ 1,  0],
                [ 0,  1],
                [-1,  0],
                [ 0, -1]], dtype=torch.int32)
    """
    if type(num_classes) is not int or num_classes < 1:
        rule, step = 'be a positive integer', 'Take that of the data set'
        raise ValueError(message('circle_directions', 'num_classes', rule, repr(num_classes), step))
    angles = torch.arange(num_classes, dtype=torch.float64) * (2 * math.pi / num_classes)
    return torch.stack((angles.cos(), angles.sin()), dim=1).float()
