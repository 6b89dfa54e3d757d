"""ExtremeNet's decode in loops, for the tests."""

from __future__ import annotations

import itertools

import torch
from torch.testing import assert_close

SCORE, CLASS = 4, 13


def generator(seed):
    return torch.Generator().manual_seed(seed)


def walk(line, weight):
    """Aggregate one line of floats, walking down from every cell."""
    result = []
    for i, height in enumerate(line):
        mass = 0.0
        for step in (-1, 1):
            at = i
            while 0 <= at + step < len(line) and line[at + step] <= line[at]:
                at += step
                mass += line[at]
        result.append(height + weight * mass)
    return result


def peaks_by_loops(probs, along_x, top_k, weight):
    """Return [(score, class, y, x)] of one image: aggregate, keep 3 x 3 maxima, sort."""
    found = []
    for label, plane in enumerate(probs):
        lines = plane if along_x else plane.T
        lines = torch.tensor([walk(line.tolist(), weight) for line in lines], dtype=plane.dtype)
        plane = lines if along_x else lines.T
        for y, x in itertools.product(*map(range, plane.shape)):
            window = plane[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
            if plane[y, x] == window.max():
                found.append((plane[y, x].item(), label, y, x))
    found.sort(key=lambda peak: -peak[0])
    return [(min(1.0, peak[0]), *peak[1:]) for peak in found[:top_k]]


def decode_by_loops(extremes, center, offsets, top_k, num_dets, thr=0.1, weight=0.1):
    """Return the rows of each image: every product of four peaks is put to every test."""
    agnostic = extremes.shape[2] < center.shape[1]
    images = []
    for image, middle in enumerate(center.double()):
        lists = [
            peaks_by_loops(maps[image].double(), side % 2 == 0, top_k, weight)
            for side, maps in enumerate(extremes)
        ]
        rows = []
        for group in itertools.product(*lists):
            scores, labels, ys, xs = zip(*group)
            in_order = ys[0] == min(ys) and xs[1] == min(xs) and ys[2] == max(ys)
            if not (in_order and xs[3] == max(xs) and len(set(labels)) == 1):
                continue
            column = middle[:, (ys[0] + ys[2]) // 2, (xs[1] + xs[3]) // 2]
            label = int(column.argmax()) if agnostic else labels[0]
            if min(scores) < thr or column[label] < thr:
                continue
            points = []
            for side in range(4):
                move = (0.5, 0.5)
                if offsets is not None:
                    move = offsets[side, image, :, ys[side], xs[side]].tolist()
                points.append((xs[side] + move[0], ys[side] + move[1]))
            box = points[1][0], points[0][1], points[3][0], points[2][1]
            score = (sum(scores) + 2 * column[label].item()) / 6
            rows.append([*box, score, *itertools.chain(*points), label])
        rows.sort(key=lambda row: -row[SCORE])
        images.append(torch.tensor(rows[:num_dets], dtype=torch.float64).reshape(-1, 14))
    return images


def detections(rows):
    """Rows with a positive score."""
    return rows[rows[:, SCORE] > 0].double()


def assert_same_detections(found, expected, num_dets):
    """Boxes and points to 1e-3, scores to 1e-5, classes, whatever the order of equal scores."""
    assert len(found) == len(expected)
    for ours, theirs in zip(map(detections, found), map(detections, expected)):
        assert len(ours) == len(theirs)
        assert_close(ours[:, SCORE], theirs[:, SCORE], atol=1e-5, rtol=0)
        # Where more pass than there is room for, equal scores at the end are anyone's choice.
        least = ours[-1, SCORE] + 2e-5 if len(ours) == num_dets else 0
        scale = torch.ones(14, dtype=torch.float64)
        scale[SCORE] = 100
        for these, those in ((ours, theirs), (theirs, ours)):
            these = these[these[:, SCORE] > least]
            distance = ((these[:, None] - those[None]).abs() * scale).amax(-1)
            assert not len(these) or distance.amin(1).max() < 1e-3
