"""The two label shapes of SimCC over the bins of one axis, for sub-bin positions."""

from __future__ import annotations

import numpy as np


def gaussian_labels(mu: np.ndarray, num_bins: int, sigma: float, normalize: bool) -> np.ndarray:
    r"""Sample a Gaussian at every bin.

    .. math::
        t_i = \exp(-(i - \mu)^2 / (2 \sigma^2)), \qquad
        t_i \leftarrow t_i / \textstyle\sum_j t_j \text{ if normalize}

    Args:
        mu (np.ndarray): Finite positions in bins, shape (N, K); may lie outside the bins.
        num_bins (int): Number of bins W.
        sigma (float): Standard deviation in bins, at least 0.1.
        normalize (bool): Divide by the sum over the W bins. False keeps the value 1 at ``mu``.

    Returns:
        np.ndarray: Labels in shape (N, K, W), float32.
    """
    # The exponent relative to the nearest bin is 0 there: the sum is at least 1 however far mu
    # lies outside, and steps * (steps + 2 * shift) has no cancellation in float32.
    nearest = np.clip(np.rint(mu), 0, num_bins - 1)
    shift = (nearest - mu).astype(np.float32)[..., None]
    steps = np.arange(num_bins, dtype=np.float32) - nearest.astype(np.float32)[..., None]
    scale = np.float32(-0.5 / sigma**2)
    labels = steps + 2 * shift
    labels *= steps
    labels *= scale
    np.exp(labels, out=labels)
    if normalize:
        labels /= labels.sum(axis=-1, keepdims=True)
        return labels
    labels *= np.exp(scale * shift**2)
    return labels


def two_hot_labels(mu: np.ndarray, num_bins: int, smooth: float) -> np.ndarray:
    r"""Split one unit of mass over the two bins next to ``mu``, then smooth it.

    .. math::
        h_{\lfloor\mu\rfloor} = 1 - (\mu - \lfloor\mu\rfloor), \quad
        h_{\lfloor\mu\rfloor + 1} = \mu - \lfloor\mu\rfloor, \qquad
        t = (1 - \epsilon) h + \tfrac{\epsilon}{W - 1} (1 - h)

    Args:
        mu (np.ndarray): Positions in bins in [0, W), shape (N, K). Beyond the centre of the last
            bin, in (W - 1, W), all mass is on the last bin.
        num_bins (int): Number of bins W, at least 2.
        smooth (float): The smoothing :math:`\epsilon` in [0, 1].

    Returns:
        np.ndarray: Labels in shape (N, K, W) that sum to 1, float32.
    """
    mu = np.minimum(mu, num_bins - 1)
    left = np.minimum(mu.astype(np.int64), num_bins - 2)
    right_mass = mu - left
    floor = smooth / (num_bins - 1)
    height = 1.0 - smooth - floor
    labels = np.full((*mu.shape, num_bins), floor, dtype=np.float32)
    flat = labels.reshape(-1)
    index = left.reshape(-1) + np.arange(mu.size) * num_bins
    flat[index] += (height * (1.0 - right_mass)).reshape(-1)
    flat[index + 1] += (height * right_mass).reshape(-1)
    return labels
