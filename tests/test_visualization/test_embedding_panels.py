"""What a panel of embeddings shows and where, and how panels and texts share a sheet."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.patches import Circle

from mmloss_plugins.visualization import _figure
from mmloss_plugins.visualization._embedding_panels import (
    COLOURS,
    MAX_NAMED,
    RING,
    Embeddings,
    class_colours,
    describe,
    draw_panel,
    draw_sheet,
    means_of,
    spread_out,
)


def embeddings_of(features, labels, **options):
    classes = int(max(labels)) + 1
    values = dict(
        features=np.asarray(features, dtype=np.float64),
        labels=np.asarray(labels),
        classes=tuple('abcdefghij'[:classes]),
        weights=np.tile([[[0.0, 2.0]]], (classes, 1, 1)),
        centers=None,
        on_circle=False,
        accuracy=0.875,
        angle=12.34,
        distance=0.256,
    )
    return Embeddings(**{**values, **options})


def panel_of(embeddings):
    ax = _figure.new_figure(3, 3, layout=None).add_axes((0, 0, 1, 1))
    draw_panel(ax, embeddings)
    return ax


def lines_of(ax, number):
    """Segments (S, 2, 2) of the line collection ``number``: rays of each class, then ticks."""
    found = [each for each in ax.collections if isinstance(each, LineCollection)]
    return np.stack(found[number].get_segments())


class TestPanel:
    POINTS = ((3.0, 4.0), (1.0, 0.0), (1.0, 2.0), (0.0, -2.0))

    def test_points_means_and_ticks(self):
        ax = panel_of(embeddings_of(self.POINTS, [0, 1, 1, 2]))
        points, means = (each for each in ax.collections if not isinstance(each, LineCollection))
        np.testing.assert_array_equal(points.get_offsets(), self.POINTS)
        np.testing.assert_array_equal(means.get_offsets(), [(3, 4), (1, 1), (0, -2)])
        colours = [to_hex(colour) for colour in points.get_facecolor()]
        assert colours == [COLOURS[0], COLOURS[1], COLOURS[1], COLOURS[2]]
        # The longest embedding is 5 long.
        (circle,) = (each for each in ax.patches if isinstance(each, Circle))
        assert circle.radius == pytest.approx(5 * RING)
        starts = lines_of(ax, -1)[:, 0] / (5 * RING)
        diagonal = 1 / math.sqrt(5)
        expected = [(0.6, 0.8), (1, 0), (diagonal, 2 * diagonal), (0, -1)]
        np.testing.assert_allclose(starts, expected, atol=1e-12)
        assert ax.get_xlim() == ax.get_ylim()
        assert ax.get_aspect() == 1
        assert ax.get_xlim()[1] > 5 * RING

    def test_a_ray_for_each_sub_center(self):
        weights = np.array([[(3, 4), (-2, 0)], [(0, 0.1), (0, 0)]], dtype=np.float64)
        ax = panel_of(embeddings_of([(1, 0), (0, 1)], [0, 1], weights=weights))
        first, second = lines_of(ax, 0), lines_of(ax, 1)
        np.testing.assert_allclose(first[:, 1] / RING, [(0.6, 0.8), (-1, 0)], atol=1e-12)
        # A weight of length zero points nowhere.
        np.testing.assert_allclose(second[:, 1] / RING, [(0, 1), (0, 0)], atol=1e-12)
        np.testing.assert_array_equal(first[:, 0], np.zeros((2, 2)))

    def test_the_circle_is_dark_where_directions_alone_count(self):
        edges = [
            to_hex(panel_of(embeddings_of([(1, 0)], [0], on_circle=each)).patches[0].get_ec())
            for each in (True, False)
        ]
        assert edges[0] == _figure.INK
        assert edges[1] > '#a0'

    def test_names_lie_where_the_class_points_to(self):
        ax = panel_of(embeddings_of([(0, 2), (-1, -1), (-3, -3)], [0, 1, 1]))
        assert [text.get_text() for text in ax.texts] == ['a', 'b']
        for text, direction in zip(ax.texts, ([0, 1], [-1, -1])):
            place = np.array(text.get_position())
            assert np.linalg.norm(place) > 1.13 * math.sqrt(18)
            cosine = place @ direction / np.linalg.norm(place) / np.linalg.norm(direction)
            assert cosine > 0.99

    def test_classes_without_an_image_have_a_ray_alone(self):
        centers = np.arange(6.0).reshape(3, 2)
        found = embeddings_of([(0, 2), (-1, -1)], [0, 2], centers=centers)
        ax = panel_of(found)
        assert [text.get_text() for text in ax.texts] == ['a', 'c']
        assert sum(isinstance(each, LineCollection) for each in ax.collections) == 4
        for line in ax.lines:
            np.testing.assert_array_equal(np.stack(line.get_data(), 1), centers[[0, 2]])

    def test_names_of_many_classes_are_left_out(self):
        for number, expected in ((MAX_NAMED, MAX_NAMED), (MAX_NAMED + 1, 0)):
            labels = np.arange(number)
            points = np.stack([np.cos(labels), np.sin(labels)], 1)
            classes = tuple(f'class {label}' for label in labels)
            found = replace(
                embeddings_of(points[:2], [0, 1]),
                features=points,
                labels=labels,
                classes=classes,
                weights=points[:, None],
            )
            assert len(panel_of(found).texts) == expected

    @pytest.mark.parametrize('value', [math.nan, math.inf])
    def test_embeddings_that_are_not_finite_are_named(self, value):
        ax = panel_of(embeddings_of([(1, 0), (value, 0)], [0, 1], angle=math.nan))
        assert [text.get_text() for text in ax.texts] == ['not finite']

    def test_embeddings_at_the_origin(self):
        ax = panel_of(embeddings_of([(0, 0), (0, 0)], [0, 1]))
        assert ax.get_xlim()[1] > RING
        assert np.isfinite([text.get_position() for text in ax.texts]).all()

    def test_measures(self):
        text = describe(embeddings_of([(1, 0)], [0]))
        assert text.split('   ') == ['accuracy 87.5 %', 'angle 12.3°', 'distance 0.26']


class TestSheet:
    @pytest.mark.parametrize(
        ('number', 'columns', 'rows'),
        [(1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 2, 2), (6, 3, 2), (7, 4, 2), (9, 4, 3)],
    )
    def test_panels_fill_rows(self, number, columns, rows):
        found = [embeddings_of([(1, 0)], [0])] * number
        figure = draw_sheet(found, [f'run {place}' for place in range(number)])
        boxes = [ax.get_position() for ax in figure.axes]
        assert len({round(box.x0, 6) for box in boxes}) == columns
        assert len({round(box.y0, 6) for box in boxes}) == rows
        assert figure.get_figwidth() * _figure.DPI <= 1100
        width, height = figure.get_size_inches()
        for box in boxes:
            assert box.width * width == pytest.approx(box.height * height)
        texts = [text.get_text() for text in figure.texts]
        assert [text for text in texts if text.startswith('run ')] == [
            f'run {place}' for place in range(number)
        ]

    @pytest.mark.parametrize('number', [1, 2, 3, 7])
    def test_no_text_leaves_the_sheet_or_lies_on_another(self, number):
        long = 'modified-softmax_mini_lenet_digits-2d'
        found = [embeddings_of([(1, 0), (0, 1)], [0, 1], on_circle=True)] * number
        with _figure.style():
            figure = draw_sheet(found, [long] * number)
            renderer = FigureCanvasAgg(figure).get_renderer()
            boxes = [text.get_window_extent(renderer) for text in figure.texts]
            boxes.append(figure.legends[0].get_window_extent(renderer))
        for place, box in enumerate(boxes):
            assert 0 <= box.x0 < box.x1 <= figure.bbox.width
            assert 0 <= box.y0 < box.y1 <= figure.bbox.height
            assert not any(box.overlaps(other) for other in boxes[:place])

    def test_the_legend_has_what_is_drawn(self):
        plain = embeddings_of([(1, 0)], [0])
        for found, expected in (
            ([plain], False),
            ([plain, replace(plain, centers=np.ones((1, 2)))], True),
        ):
            (legend,) = draw_sheet(found, ['x'] * len(found)).legends
            names = [text.get_text() for text in legend.get_texts()]
            assert ('centre of CenterLoss' in names) == expected


class TestHelpers:
    def test_spread_out(self):
        # Neighbours give way by half each; the circle closes at 360 degrees.
        np.testing.assert_allclose(
            spread_out(np.array([10.0, 100, 12]), 12), [5, 100, 17], atol=0.1
        )
        np.testing.assert_allclose(spread_out(np.array([-178.0, 178]), 12), [-174, 174], atol=0.1)
        far = np.array([170.0, -90, 0, 90])
        np.testing.assert_array_equal(spread_out(far, 12), far)
        np.testing.assert_array_equal(spread_out(np.array([7.0]), 12), [7])

    def test_spread_out_of_as_many_as_there_is_room_for(self):
        found = spread_out(np.linspace(0, 1, MAX_NAMED), 12)
        assert np.diff(found, append=found[0] + 360).min() > 11.9

    def test_colours_differ(self):
        for number in (1, 10, 11, 200):
            colours = class_colours(number)
            assert len(set(colours)) == len(colours) == number
            assert all(len(colour) == 7 for colour in colours)

    def test_means_of_the_classes_that_are_there(self):
        points = np.array([(1.0, 2.0), (5.0, 5.0), (3.0, -2.0)])
        present, means = means_of(points, np.array([4, 1, 4]))
        assert present.tolist() == [1, 4]
        np.testing.assert_array_equal(means, [(5, 5), (2, 0)])
