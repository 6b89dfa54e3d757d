"""Losses of recognition from their papers: float64, one sample and one class at a time."""

from __future__ import annotations

import math


def cosine(x, w):
    """Return the cosine between two vectors, lists of numbers."""
    dot = math.fsum(a * b for a, b in zip(x, w))
    return dot / math.sqrt(math.fsum(a * a for a in x) * math.fsum(b * b for b in w))


def arcface_table(features, weights, target, scale, margin):
    """Return the logits of ArcFace with its authors' rule, by the arc cosine."""
    table = []
    for x, label in zip(features, target):
        row = [cosine(x, w) for w in weights]
        if label >= 0:
            theta = math.acos(max(-1.0, min(1.0, row[label])))
            beyond = theta + margin > math.pi
            fallen = row[label] - margin * math.sin(margin)
            row[label] = fallen if beyond else math.cos(theta + margin)
        table.append([scale * value for value in row])
    return table


def cross_entropy(row, label):
    """Return -log softmax(row)[label]."""
    highest = max(row)
    return highest + math.log(math.fsum(math.exp(z - highest) for z in row)) - row[label]


def smoothed_cross_entropy(row, label, epsilon, over_all=False, factors=None):
    """Return -sum_j v_j q_j log p_j."""
    classes = len(row)
    factors = factors or [1.0] * classes
    total = 0.0
    for j in range(classes):
        share = epsilon / classes if over_all else epsilon / (classes - 1)
        q = (1 - epsilon) * (j == label) + (share if over_all or j != label else 0)
        total += factors[j] * q * cross_entropy(row, j)
    return total


def squared_distance(x, c):
    return math.fsum((a - b) ** 2 for a, b in zip(x, c))
