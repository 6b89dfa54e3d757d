"""What is read from a detector: which detections are right, where its heatmaps lie."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmloss_plugins.visualization._detection_panels import count, cut, place_label, short
from mmloss_plugins.visualization._detection_run import (
    DetectionRun,
    Detections,
    Matches,
    image_edges,
    overlap,
)
from mmloss_plugins.visualization.detection import parse_runs
from tests.test_visualization.detectors import (
    CENTERNET,
    EXTREMENET,
    FCOS,
    MMDET,
    make_run,
    with_targets,
)


@pytest.fixture(scope='module')
def runs(digits, tmp_path_factory):
    """Open runs of random weights by name, on the 8 val images of the small set."""
    folder = tmp_path_factory.mktemp('runs')
    configs = dict(centernet=CENTERNET, mmdet=MMDET, extremenet=EXTREMENET, fcos=FCOS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MMLOSS_DATA', str(digits.parent))
        yield {name: DetectionRun(make_run(path, folder / name)) for name, path in configs.items()}


def sample(truth, truth_labels, boxes, labels, scores, ignored=(), ignored_labels=()):
    def as_boxes(rows):
        return np.array(rows, dtype=np.float64).reshape(-1, 4)

    return Detections(
        'image',
        np.zeros((100, 100, 3), np.uint8),
        as_boxes(truth),
        np.array(truth_labels, int),
        as_boxes(ignored),
        np.array(ignored_labels, int),
        as_boxes(boxes),
        np.array(labels, int),
        np.array(scores, np.float64),
    )


def test_overlap_by_hand():
    # 10 x 10 and 10 x 20 with 5 x 10 in common: 50 / (100 + 200 - 50); 50 of the first 100.
    boxes = np.array([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    others = np.array([[5.0, 0, 15, 20]])
    np.testing.assert_allclose(overlap(boxes, others), [[0.2], [0]])
    np.testing.assert_allclose(overlap(boxes, others, of_first=True), [[0.5], [0]])
    # Without an area nothing overlaps, and nothing is divided by 0.
    point = np.zeros((1, 4))
    np.testing.assert_allclose(overlap(point, point), [[0]])


def test_each_object_is_found_once():
    # Two objects of classes 1 and 2. The better detection of class 1 takes the first one, the
    # other on the same place is wrong, as is the one of class 2 there; the second is not found.
    found = sample(
        [[0, 0, 10, 10], [40, 40, 50, 50]],
        [1, 2],
        [[0, 0, 10, 9], [0, 0, 10, 10], [0, 0, 10, 10]],
        [1, 1, 2],
        [0.9, 0.8, 0.7],
    ).match()
    assert found.right.tolist() == [True, False, False]
    assert found.wrong.tolist() == [False, True, True]
    assert found.found.tolist() == [True, False]
    assert count(found) == '1 of 2 found, 2 wrong'


def test_a_detection_in_a_crowd_is_neither_right_nor_wrong():
    crowd = dict(ignored=[[0, 0, 50, 50]], ignored_labels=[3])
    # Inside the crowd of its class; of another class; with 4 of 10 columns inside.
    boxes, labels = [[10, 10, 20, 20], [10, 10, 20, 20], [46, 0, 56, 10]], [3, 1, 3]
    found = sample([], [], boxes, labels, [0.9, 0.8, 0.7], **crowd).match()
    assert found.right.tolist() == [False] * 3
    assert found.wrong.tolist() == [False, True, True]
    assert count(found) == '0 of 0 found, 2 wrong'


def coco_matches(samples):
    """Return right, wrong and found per image, counted by pycocotools."""
    annotations, results = [], []
    for number, each in enumerate(samples, 1):
        objects = [(each.truth, each.truth_labels, 0), (each.ignored, each.ignored_labels, 1)]
        for boxes, labels, crowd in objects:
            for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels.tolist()):
                entry = dict(image_id=number, category_id=label, bbox=[x1, y1, x2 - x1, y2 - y1])
                entry.update(id=len(annotations) + 1, iscrowd=crowd)
                annotations.append(dict(entry, area=(x2 - x1) * (y2 - y1)))
        for (x1, y1, x2, y2), label, score in zip(each.boxes.tolist(), each.labels, each.scores):
            box = [x1, y1, x2 - x1, y2 - y1]
            entry = dict(image_id=number, category_id=int(label), bbox=box, score=float(score))
            results.append(entry)
    with redirect_stdout(StringIO()):
        truth = COCO()
        truth.dataset = dict(
            images=[dict(id=number) for number in range(1, len(samples) + 1)],
            annotations=annotations,
            categories=[dict(id=label) for label in range(3)],
            info={},
        )
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(results), 'bbox')
        judge.params.iouThrs = np.array([0.5])
        judge.evaluate()
    totals = np.zeros((len(samples), 3), int)
    for entry in judge.evalImgs:
        if entry is None or entry['aRng'] != judge.params.areaRng[0]:
            continue
        matched, ignored = entry['dtMatches'][0] > 0, entry['dtIgnore'][0] > 0
        found = (entry['gtMatches'][0] > 0) & ~entry['gtIgnore'].astype(bool)
        row = (matched & ~ignored).sum(), (~matched & ~ignored).sum(), found.sum()
        totals[entry['image_id'] - 1] += row
    return totals


def test_counts_are_those_of_pycocotools():
    rng = np.random.default_rng(4)

    def boxes(total):
        corner, size = rng.uniform(0, 60, (total, 2)), rng.uniform(20, 40, (total, 2))
        return np.concatenate((corner, corner + size), 1)

    samples = []
    for _ in range(40):
        truth, ignored = boxes(6), boxes(2)
        # Three detections near each object, of its class or another, and some anywhere.
        near = np.repeat(truth, 3, 0) + rng.normal(0, 3, (18, 4))
        labels, scores = rng.integers(0, 3, (2, 6)), rng.uniform(size=24)
        near_labels = np.where(rng.uniform(size=18) < 0.7, np.repeat(labels[0], 3), 1)
        found = np.concatenate((near, boxes(6)))
        found_labels = np.concatenate((near_labels, labels[1]))
        crowds = rng.integers(0, 3, 2)
        samples.append(sample(truth, labels[0], found, found_labels, scores, ignored, crowds))
    expected = coco_matches(samples)
    matches = [each.match() for each in samples]
    got = [[each.right.sum(), each.wrong.sum(), each.found.sum()] for each in matches]
    np.testing.assert_array_equal(got, expected)
    assert expected.sum(0).min() > 50
    assert sum((~each.right & ~each.wrong).sum() for each in matches) > 20


def test_where_the_input_lies_in_the_image():
    assert image_edges({}, (20, 30)) == (0, 0, 30, 20)
    # An image of 40 x 60 (H x W) is resized to 10 x 30 and padded to 16 x 32 at right and below.
    assert image_edges(dict(scale_factor=(0.5, 0.25)), (16, 32)) == (0, 0, 64, 64)
    # The same on a canvas of 16 x 32, from its row 2 and its column 1 on.
    meta = dict(scale_factor=(0.5, 0.25), border=np.array([2, 12, 1, 31]))
    assert image_edges(meta, (16, 32)) == (-2, -8, 62, 56)


def test_a_label_goes_where_it_covers_nothing():
    box, image = (20, 20, 40, 60), (100, 100)
    assert place_label(box, (10, 6), image, []) == (20, 14, 30, 20)
    # Above at the left is taken, above at the right is free.
    assert place_label(box, (10, 6), image, [(20, 14, 29, 20)]) == (30, 14, 40, 20)
    # All of the line above is taken: below.
    assert place_label(box, (10, 6), image, [(0, 14, 100, 20)]) == (20, 60, 30, 66)
    # Moved into the image at its upper and right border.
    assert place_label((95, 2, 100, 9), (10, 6), image, []) == (90, 0, 100, 6)


def test_words_above_and_beside_images():
    assert [short(score) for score in (0.934, 0.05, 0.999, 1.0)] == ['.93', '.05', '1.0', '1.0']
    assert cut('eight..8', 8) == 'eight..8'
    assert cut('nine....9', 8) == 'nine...…'
    nothing = np.zeros(0, bool)
    assert count(Matches(nothing, nothing, np.array([True, True]))) == '2 of 2 found'


def test_runs_of_a_command_line():
    assert parse_runs(['a', 'c.py', 'd.pth', 'b']) == ['a', ('c.py', 'd.pth'), 'b']
    with pytest.raises(
        ValueError, match=r'^visualization: c.py must be followed by its checkpoint'
    ):
        parse_runs(['a', 'c.py'])


def test_objects_are_those_of_the_annotations(runs, digits):
    content = json.loads((digits / 'annotations' / 'digits_val.json').read_text())
    run = runs['centernet']
    assert run.spread(3) in ([0, 3, 7], [0, 4, 7])
    counts = []
    for index, image in enumerate(content['images']):
        found = run.predict(index, 0.99)
        expected = [each for each in content['annotations'] if each['image_id'] == image['id']]
        boxes = np.array([each['bbox'] for each in expected], float)
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(found.truth, boxes)
        assert found.truth_labels.tolist() == [each['category_id'] - 1 for each in expected]
        assert found.name == image['file_name']
        assert found.image.shape == (128, 128, 3)
        counts.append(len(expected))
    # The first image whose number of objects is nearest to the median.
    distance = np.abs(np.array(counts) - np.median(counts))
    assert run.typical() == distance.tolist().index(distance.min())


def test_detections_are_those_of_the_test(runs):
    run = runs['fcos']
    (expected,) = run.model.test_step(run._batch(2))
    scores = expected.pred_instances.scores
    threshold = float(scores.median())
    found = run.predict(2, threshold)
    kept = scores > threshold
    assert 0 < len(found.boxes) == kept.sum() < len(scores)
    np.testing.assert_allclose(found.boxes, expected.pred_instances.bboxes[kept], atol=1e-5)
    assert (np.diff(found.scores) <= 0).all()
    assert found.extreme_points is None


def test_maps_are_probabilities_of_the_largest_class(runs):
    for name in ('centernet', 'mmdet'):
        run = runs[name]
        data = run.model.data_preprocessor(run._batch(1), False)
        with torch.no_grad():
            outputs = run.model.bbox_head(run.model.extract_feat(data['inputs']))[0][-1]
        # Ours are logits.
        expected = outputs['heatmap'].sigmoid() if name == 'centernet' else outputs
        found = run.peak_maps(1)
        np.testing.assert_allclose(found.maps['center'], expected[0].max(0).values, rtol=1e-6)
        assert list(found.maps) == ['center']
        assert found.edges == (0, 0, 128, 128)
    assert set(runs['extremenet'].peak_maps(1).maps) == {'top', 'left', 'bottom', 'right', 'center'}
    assert runs['fcos'].peak_maps(1) is None


def test_maps_lie_over_the_image(runs, digits):
    """The targets as maps: peaks at the annotated points, and groups that are the objects."""
    run = with_targets(runs['extremenet'])
    content = json.loads((digits / 'annotations' / 'digits_val.json').read_text())
    total = found = close = 0
    for index, image in enumerate(content['images']):
        maps, result = run.peak_maps(index), run.predict(index, 0.3)
        objects = [each for each in content['annotations'] if each['image_id'] == image['id']]
        points = np.array([each['extreme_points'] for each in objects])
        left, top, right, bottom = maps.edges
        for side, name in enumerate(('top', 'left', 'bottom', 'right')):
            heatmap = maps.maps[name]
            size = np.array(heatmap.shape[::-1])
            cells = (points[:, side] - (left, top)) / (right - left, bottom - top) * size
            # Annotated points are pixels, so that they may lie in the cell beside the peak.
            for x, y in cells.astype(int):
                near = heatmap[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                np.testing.assert_allclose(near.max(), 0.9, atol=1e-5)
        matches = result.match(0.8)
        found, total = found + matches.found.sum(), total + len(objects)
        for each in result.extreme_points[matches.right]:
            close += np.abs(points - each).max((1, 2)).min() <= 2
    assert found >= 0.85 * total
    # An object that has several extreme points on one side may be annotated at another one.
    assert close >= 0.85 * found
