"""From distributions over the bins of the two axes to positions in bins.

The functions work on `relative` distributions: shape (..., W), divided by their maximum, so that
the peak is 1. They need no normaliser and keep what a softmax would round away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Enough for bisection alone to reach TOLERANCE from any bracket; Newton needs 1 to 6.
MAX_STEPS = 60
# In bins. Newton's error is squared in the last step, so the result is far closer than this.
TOLERANCE = 1e-4


def relative_from_logits(logits: np.ndarray, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """Return ``exp(beta * (logits - max))`` and the rows that hold NaN, +inf or only -inf.

    Such broken rows, shape (...), come back flat: it is the caller who marks them.
    """
    logits = logits.astype(np.result_type(logits, np.float32))
    top = logits.max(axis=-1, keepdims=True)
    broken = ~np.isfinite(top)
    if broken.any():
        logits, top = np.where(broken, 0, logits), np.where(broken, 0, top)
    # A difference too large for the type is -inf and its exponential 0, as it should be.
    with np.errstate(over='ignore'):
        logits -= top
        logits *= beta
    return np.exp(logits, out=logits), broken[..., 0]


def relative_from_probabilities(probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divide non-negative ``probs`` by their maximum; rows of zeros stay zero.

    Returns:
        tuple: the relative distribution and the rows that hold NaN or inf, which come back flat.
    """
    probs = probs.astype(np.result_type(probs, np.float32))
    top = probs.max(axis=-1, keepdims=True)
    broken = ~np.isfinite(top)
    if broken.any():
        probs, top = np.where(broken, 1, probs), np.where(broken, 1, top)
    return probs / np.where(top > 0, top, 1), broken[..., 0]


class Peaks(NamedTuple):
    """The largest bin of every row on both axes, and the bins around it.

    ``bins`` and ``mass``, the part of the row's sum inside the window, have shape (..., 2);
    ``window`` and ``inside``, which places of the window count, (..., 2, 2 * radius + 1) with the
    larger radius of the two axes.
    """

    bins: np.ndarray
    mass: np.ndarray
    window: np.ndarray
    inside: np.ndarray


def find_peaks(relatives: Sequence[np.ndarray], radii: Sequence[int]) -> Peaks:
    """Cut the bins ``peak - radius`` to ``peak + radius`` out of every row, 0 beyond the bins."""
    offsets = np.arange(-max(radii), max(radii) + 1)
    parts = [_peak_of_axis(relative, offsets, radius) for relative, radius in zip(relatives, radii)]
    bins, mass, window, inside = zip(*parts)
    return Peaks(np.stack(bins, -1), np.stack(mass, -1), np.stack(window, -2), np.stack(inside, -2))


def _peak_of_axis(
    relative: np.ndarray, offsets: np.ndarray, radius: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    peak = relative.argmax(axis=-1)
    index = peak[..., None] + offsets
    inside = (index >= 0) & (index < relative.shape[-1]) & (np.abs(offsets) <= radius)
    values = np.take_along_axis(relative, np.where(inside, index, 0), axis=-1)
    window = np.where(inside, values, 0).astype(np.float64)
    total = relative.sum(axis=-1)
    mass = window.sum(axis=-1) / np.where(total > 0, total, 1)
    return peak, np.minimum(mass, 1.0), window, inside


def gaussian_positions(peaks: Peaks, num_bins: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    r"""Centre of the Gaussian whose mean over the window is the predicted mean.

    The mean of a Gaussian sampled over a cut window grows monotonically with its centre
    :math:`\mu`, at the rate :math:`\mathrm{var} / \sigma^2`, and equality of the two means is the
    maximum-likelihood :math:`\mu`. Plain expectation is pulled inwards wherever the window is cut;
    this is not.

    Towards a border the window shrinks with the distance of the peak and so stays symmetric: a
    prediction narrower or wider than sigma is not drawn to one side. It keeps one sigma at least;
    where that has to be cut, the width matters, and the position stays within one bin of the peak.

    Args:
        peaks (Peaks): Windows of both axes.
        num_bins (np.ndarray): Bins of the two axes, shape (2,).
        sigmas (np.ndarray): Standard deviations of the Gaussians in bins, shape (2,).

    Returns:
        np.ndarray: Positions in bins, shape (..., 2), inside the window and inside
        [-1, num_bins]; the peak itself for an all-zero window.
    """
    values, inside, reach = _symmetric_window(peaks, num_bins, np.ceil(sigmas))
    radius = peaks.window.shape[-1] // 2
    offsets = np.arange(-radius, radius + 1, dtype=np.float64)
    total = values.sum(axis=-1)
    empty = total <= 0
    target = (values @ offsets) / np.where(empty, 1.0, total)
    low = np.maximum(-reach, -1.0 - peaks.bins)
    high = np.minimum(reach, 1.0 * num_bins - peaks.bins)
    variances = sigmas**2
    # What a Gaussian weighs at centre 0; another centre c multiplies it by exp(c * offset / var).
    exponents = np.where(inside, -0.5 * offsets**2 / variances[:, None], -np.inf)

    ends = gaussian_moments(np.stack([low, high]), offsets, exponents, variances)[0]
    below, above = ends[0] >= target, ends[1] <= target
    low, high = np.where(above & ~below, high, low), np.where(below, low, high)
    centre = np.clip(target, low, high)
    for _ in range(MAX_STEPS):
        mean, variance = gaussian_moments(centre, offsets, exponents, variances)
        error = mean - target
        high = np.where(error > 0, centre, high)
        low = np.where(error <= 0, centre, low)
        newton = centre - error * variances / np.maximum(variance, 1e-300)
        # Far from the root the variance vanishes and Newton leaves the bracket: halve it instead.
        safe = (newton >= low) & (newton <= high)
        previous, centre = centre, np.where(safe, newton, 0.5 * (low + high))
        if (np.abs(centre - previous) < TOLERANCE).all():
            break
    return peaks.bins + np.where(empty, 0.0, centre)


def _symmetric_window(
    peaks: Peaks, num_bins: np.ndarray, shortest: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the window values to use, where they count, and how far the position may move."""
    radius = peaks.window.shape[-1] // 2
    border = np.minimum(peaks.bins, num_bins - 1 - peaks.bins)
    reach = np.clip(border, shortest, radius)
    inside = peaks.inside & (np.abs(np.arange(-radius, radius + 1)) <= reach[..., None])
    return np.where(inside, peaks.window, 0.0), inside, np.where(border < shortest, 1.0, reach)


def gaussian_moments(
    centre: np.ndarray, offsets: np.ndarray, exponents: np.ndarray, variances: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance over the window of Gaussians at ``centre``, shape (..., 2), in bins."""
    weights = exponents + (centre / variances)[..., None] * offsets
    weights -= weights.max(axis=-1, keepdims=True)
    np.exp(weights, out=weights)
    # One product for the three sums: mass, first and second moment.
    sums = weights @ np.stack([np.ones_like(offsets), offsets, offsets**2], axis=-1)
    mean = sums[..., 1] / sums[..., 0]
    return mean, np.maximum(sums[..., 2] / sums[..., 0] - mean**2, 0.0)


def three_bin_position(relative: np.ndarray, peak: np.ndarray) -> np.ndarray:
    """Expectation over the peak and its two neighbours above their smallest value, in bins.

    Next to a border the three bins are shifted inside. Exact for a smoothed two-hot label.
    """
    first = np.clip(peak - 1, 0, relative.shape[-1] - 3)
    index = first[..., None] + np.arange(3)
    values = np.take_along_axis(relative, index, axis=-1).astype(np.float64)
    values -= values.min(axis=-1, keepdims=True)
    total = values.sum(axis=-1)
    flat = total <= 0
    position = (values * index).sum(axis=-1) / np.where(flat, 1.0, total)
    return np.where(flat, peak, position)
