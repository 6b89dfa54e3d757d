"""Learned heatmaps: where mean, ellipse and label lie, what is measured, what the command says."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData
from mmpose.structures import PoseDataSample

from mmloss_plugins import functional as F
from mmloss_plugins.visualization import draw_dsnt, measure_spread
from mmloss_plugins.visualization.__main__ import main
from mmloss_plugins.visualization._dsnt_panels import LearnedMaps, Spread, _describe
from mmloss_plugins.visualization.dsnt import count_peaks, open_run, predict_heatmaps
from mmloss_plugins.visualization.heatmap_panels import (
    choose_keypoints,
    ellipse,
    evenly,
    heatmaps_of,
    make_panels,
    measure_in_px,
    render,
)
from tests.test_visualization.conftest import CONFIGS, HEATMAP, small
from tests.test_visualization.pictures import check_picture

DSNT = CONFIGS.parent / 'dsnt' / 'dsnt-js_mini_tiny-res_figures-56x56-7.py'
NAMES = {0: 'nose', 1: 'left_eye', 2: 'right_eye'}


def train(config, work_dir, iterations):
    config = small(config, work_dir)
    config.train_cfg.update(max_iters=iterations, val_interval=100)
    config.default_hooks.checkpoint.interval = iterations
    Runner.from_cfg(config).train()


@pytest.fixture(scope='module')
def learned(data, tmp_path_factory):
    """Work folders of one short run and of a copy with another seed."""
    work_dir = tmp_path_factory.mktemp('dsnt') / 'first'
    train(DSNT, work_dir, 6)
    other = work_dir.with_name('second')
    shutil.copytree(work_dir, other)
    (path,) = other.glob('*.py')
    config = Config.fromfile(path)
    config.randomness.seed = 4
    config.dump(path)
    return SimpleNamespace(first=work_dir, second=other)


@pytest.fixture(scope='module')
def run(learned):
    return open_run(learned.first)


def one_cell(row, column, size=(4, 6)):
    heatmap = torch.zeros(1, *size)
    heatmap[0, row, column] = 1
    return heatmap


def gaussian(mean_px, covariance, size):
    """A map (1, h, w) of a Gaussian at ``mean_px`` (x, y) on cells 0, 1, ..."""
    y, x = np.mgrid[: size[0], : size[1]]
    offsets = np.stack([x, y], -1) - np.array(mean_px)
    exponent = np.einsum('hwi,ij,hwj->hw', offsets, np.linalg.inv(covariance), offsets)
    heatmap = np.exp(-exponent / 2)
    return torch.from_numpy(heatmap / heatmap.sum())[None]


def test_positions_are_scaled_by_outer_edges():
    # 6 x 4 cells over 60 x 20 px: a cell is 10 x 5 px. Cell 0 covers px 0 to 9, centre 4.5; the
    # row 3 covers px 15 to 19, centre 17.
    means, covariances, spreads = measure_in_px(one_cell(3, 0), (60, 20))
    np.testing.assert_allclose(means, [[4.5, 17]])
    np.testing.assert_allclose(covariances, np.zeros((1, 2, 2)), atol=1e-12)
    np.testing.assert_allclose(spreads, [0], atol=1e-6)
    # The same size: the cell is the pixel.
    np.testing.assert_allclose(measure_in_px(one_cell(3, 0), (6, 4))[0], [[0, 3]], atol=1e-12)


def test_covariance_is_scaled_by_the_size_of_a_cell():
    expected = np.array([[2.0, 0.8], [0.8, 1.0]])
    heatmap = gaussian((15, 12), expected, (25, 31))
    means, covariances, spreads = measure_in_px(heatmap, (62, 75))
    # A cell is 2 x 3 px: variances 2 * 4 and 1 * 9, covariance 0.8 * 6.
    np.testing.assert_allclose(covariances[0], [[8, 4.8], [4.8, 9]], rtol=1e-4)
    np.testing.assert_allclose(means[0], [15.5 * 2 - 0.5, 12.5 * 3 - 0.5], rtol=1e-6)
    # sqrt((2 + 1) / 2), in cells.
    np.testing.assert_allclose(spreads, [np.sqrt(1.5)], rtol=1e-4)


def test_points_of_an_ellipse_have_the_distance_of_mahalanobis():
    mean, covariance = np.array([3.0, -2.0]), np.array([[4.0, 1.5], [1.5, 1.0]])
    for sigmas in (1, 2.5):
        offsets = ellipse(mean, covariance, sigmas) - mean
        squared = np.einsum('ni,ij,nj->n', offsets, np.linalg.inv(covariance), offsets)
        np.testing.assert_allclose(squared, sigmas**2, rtol=1e-9)
    # Half axes 2 and 1 along the axes, and the curve is closed.
    points = ellipse(np.zeros(2), np.diag([4.0, 1.0]), 1)
    np.testing.assert_allclose(np.abs(points).max(0), [2, 1], rtol=1e-3)
    np.testing.assert_allclose(points[0], points[-1], atol=1e-12)


@pytest.mark.parametrize('smallest', [0.0, -1e-18])
def test_ellipse_of_a_degenerate_map(smallest):
    """All mass in one column: a vertical line; in one cell: a point."""
    points = ellipse(np.ones(2), np.diag([smallest, 9.0]), 2)
    np.testing.assert_allclose(points[:, 0], 1, atol=1e-8)
    np.testing.assert_allclose([points[:, 1].min(), points[:, 1].max()], [-5, 7], rtol=1e-3)
    np.testing.assert_allclose(ellipse(np.ones(2), np.zeros((2, 2)), 2), np.ones((97, 2)))


def test_peaks_are_local_maxima_above_half_of_the_peak():
    one = torch.tensor([[0.0, 1, 0, 0, 0], [1, 9, 1, 0, 0], [0, 1, 0, 0, 3]])
    two = one.clone()
    two[2, 4] = 5
    beside = one.clone()
    beside[2, 2] = 8  # a neighbour across the corner is no peak of its own
    exactly_half = one.clone()
    exactly_half[2, 4] = 4.5
    maps = torch.stack([one, two, beside, exactly_half])
    assert count_peaks(maps).tolist() == [1, 2, 1, 1]


def test_evenly():
    assert evenly(4, 17) == [0, 5, 11, 16]
    assert evenly(1, 17) == [0]
    assert evenly(3, 2) == [0, 1]
    assert evenly(2, 0) == []


def test_keypoints_are_chosen_by_name_or_index():
    assert choose_keypoints(['right_eye', 0], 3, NAMES) == [2, 0]
    assert choose_keypoints(2, 3) == [0, 2]
    with pytest.raises(ValueError, match=r"got 'left_eje'\. Did you mean 'left_eye'"):
        choose_keypoints(['left_eje'], 3, NAMES)
    with pytest.raises(ValueError, match='keypoints must be from 0 to 2, got 3'):
        choose_keypoints([3], 3, NAMES)


def sample_of(heatmaps, size=(12, 8), dtype=np.float32):
    """Return a sample whose box is twice as large as the input and starts at (100, 50)."""
    width, height = size
    meta = dict(
        input_size=size,
        input_center=np.array([100.0 + width, 50.0 + height]),
        input_scale=np.array([2.0 * width, 2.0 * height]),
    )
    sample = PoseDataSample(metainfo=meta)
    sample.pred_fields = PixelData(heatmaps=heatmaps)
    sample.gt_instances = InstanceData(
        keypoints=np.array([[[100, 50], [110, 54], [120, 60]]], dtype),
        keypoints_visible=np.array([[1, 0.5, 0]], dtype),
    )
    return sample


def test_panels():
    heatmaps = torch.cat([one_cell(0, 0), one_cell(1, 2), one_cell(3, 5)])
    image = torch.arange(3 * 8 * 12).view(3, 8, 12) % 256
    panels = make_panels(sample_of(heatmaps), image.to(torch.uint8), [2, 0, 1], NAMES)
    assert [panel.title for panel in panels] == [
        'right eye  0.00 px',
        'nose  0.00 px',
        'left eye  0.00 px',
    ]
    for panel in panels:
        # BGR to RGB.
        np.testing.assert_array_equal(panel.image[..., 0], image[2])
        np.testing.assert_array_equal(panel.image[..., 2], image[0])
    # Cells of 2 x 2 px, centres 0.5, 2.5, ...
    np.testing.assert_allclose([p.mean for p in panels], [[10.5, 6.5], [0.5, 0.5], [4.5, 2.5]])
    # The box starts at (100, 50), 2 px of the image are 1 px of the input. Not visible: no label.
    np.testing.assert_allclose(
        [panel.label for panel in panels], [[np.nan, np.nan], [0, 0], [5, 2]]
    )


def test_visibility_with_weights_per_axis():
    sample = sample_of(torch.cat([one_cell(0, 0)] * 3))
    visible = np.stack([np.array([[1, 0.5, 0]]), np.ones((1, 3))], -1)
    sample.gt_instances.set_field(visible, 'keypoints_visible')
    labels = [p.label for p in make_panels(sample, torch.zeros(3, 8, 12), [0, 1, 2])]
    assert np.isfinite(labels).all(1).tolist() == [True, True, False]


def test_half_precision_heatmaps():
    heatmaps = torch.randn(3, 64, 64).flatten(1).softmax(-1).view(3, 64, 64)
    for dtype in (torch.float16, torch.bfloat16):
        found = heatmaps_of(sample_of(heatmaps.to(dtype)))
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.sum((1, 2)), torch.ones(3), atol=1e-2, rtol=0)


@pytest.mark.parametrize('shape', [(20, 30), (30, 20)])
def test_render_inputs_of_any_shape(shape):
    """A wide and a high input keep their proportions, with no blank panel."""
    covariance = np.array([[1.0, 0.3], [0.3, 0.5]])
    heatmaps = torch.cat([gaussian((2, 2), covariance, (5, 7)), one_cell(4, 6, (5, 7))])
    sample = PoseDataSample()
    sample.pred_fields = PixelData(heatmaps=heatmaps)
    picture = render(make_panels(sample, torch.full((3, *shape), 99.0), [0, 1]))
    assert picture.dtype == np.uint8
    height, width = picture.shape[:2]
    # Two panels of 240 px height, 24 px above them, 7 px between them.
    assert height == 264
    assert abs(width - (2 * 240 * shape[1] / shape[0] + 7.2)) <= 2
    for half in np.array_split(picture[24:], 2, axis=1):
        assert half.std() > 10


def test_the_means_are_the_predictions(run):
    """Mapped back to the image they are what ``mim test`` evaluates."""
    for result, image in predict_heatmaps(run, range(4)):
        panels = make_panels(result, image, range(17), run.meta['keypoint_id2name'])
        meta = result.metainfo
        first = meta['input_center'] - 0.5 * meta['input_scale']
        there = np.stack([panel.mean for panel in panels]) / 56 * meta['input_scale'] + first
        np.testing.assert_allclose(there, result.pred_instances.keypoints[0], atol=0.01)
        visible = result.gt_instances.keypoints_visible[0] > 0
        labels = np.stack([panel.label for panel in panels]) / 56 * meta['input_scale'] + first
        expected = result.gt_instances.keypoints[0]
        np.testing.assert_allclose(labels[visible], expected[visible], atol=0.01)
        assert np.isnan(labels[~visible]).all()
        np.testing.assert_array_equal(panels[0].image[..., 2], image[0])


def test_measure_spread(run):
    """Loops over the samples and keypoints that are labelled."""
    found = measure_spread(run)
    spreads = []
    for result, _ in predict_heatmaps(run, range(16)):
        for heatmap, visible in zip(
            result.pred_fields.heatmaps, result.gt_instances.keypoints_visible[0]
        ):
            if visible > 0:
                variance = F.heatmap_variance(heatmap[None, None])[0, 0]
                spreads.append(variance.mean().sqrt().item())
    assert found.maps == len(spreads) > 100
    assert found.heatmap_size == (7, 7)
    assert found.spread_mean == pytest.approx(np.mean(spreads), rel=1e-5)
    assert found.spread_median == pytest.approx(np.median(spreads), rel=1e-5)
    assert 0.2 < found.spread_mean < 3
    assert found.peaks_mean >= 1


def test_draw_dsnt(learned, tmp_path):
    found = draw_dsnt([learned.first, learned.second], tmp_path / 'd.png')
    check_picture(tmp_path / 'd.png')
    assert [run.seed for run in found] == [3, 4]
    assert [run.work_dir for run in found] == ['first', 'second']
    assert {run.checkpoint for run in found} == {'iter_6.pth'}
    assert found[0].label == DSNT.stem
    names = [panel.title.split('  ')[0] for panel in found[0].panels]
    assert names == ['nose', 'left shoulder', 'left hip', 'right ankle']


def test_command_writes_picture_and_figures(learned, tmp_path, capsys):
    words = ['dsnt', str(learned.first), str(learned.second), '--out', str(tmp_path / 'd.png')]
    words += ['--keypoints', 'left_wrist', '0', 'nose', '4', '--index', '3', '--labels', 'a', 'b']
    assert main(words) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / 'd.png'), str(tmp_path / 'd.json')]
    check_picture(tmp_path / 'd.png')
    figures = json.loads((tmp_path / 'd.json').read_text())
    assert str(tmp_path) not in (tmp_path / 'd.json').read_text()
    assert figures['command'] == (
        'python -m mmloss_plugins.visualization dsnt first second --out d.png --keypoints '
        'left_wrist 0 nose 4 --index 3 --labels a b'
    )
    assert [(run['run'], run['seed'], run['work_dir']) for run in figures['runs']] == [
        ('a', 3, 'first'),
        ('b', 4, 'second'),
    ]
    spread = measure_spread(open_run(learned.first))
    assert figures['runs'][0]['spread_mean'] == pytest.approx(spread.spread_mean)
    assert figures['runs'][0]['heatmap_size'] == [7, 7]


def test_runs_of_one_label_share_a_row():
    runs = [
        LearnedMaps('js', 'w', 'c', seed, [], Spread(10, (7, 6), mean, mean, peaks))
        for seed, mean, peaks in ((0, 1.0, 1.0), (1, 1.5, 2.0), (2, 1.1, 1.5))
    ]
    assert _describe(runs).splitlines() == [
        'js',
        '7 x 6 cells',
        '',
        'val set, 3 runs:',
        'spread 1.20 px (1.00 to 1.50)',
        '1.50 peaks per map',
    ]
    assert _describe(runs[:1]).splitlines()[3:5] == ['val set:', 'spread 1.00 px']


@pytest.mark.parametrize(
    ('words', 'text'),
    [
        (['none'], "work_dir must hold one config, *.py, got 0 in 'none'."),
        (['{first}', '--labels', 'a', 'b'], 'labels must be one for each of at least one work'),
        (['{first}', '--keypoints', 'nise'], "got 'nise'. Did you mean 'nose'?"),
        (['{first}', '--keypoints', '17'], 'keypoints must be from 0 to 16, got 17.'),
        (['{first}', '--index', '16'], 'index must be from 0 to 15, got 16.'),
        (['{first}', '--cfg-options', 'val_dataloader.dataset.data_root=none'], 'be a file'),
    ],
)
def test_says_what_is_wrong(learned, tmp_path, capsys, words, text):
    words = [word.format(first=learned.first) for word in words]
    assert main(['dsnt', *words, '--out', str(tmp_path / 'd.png')]) == 1
    assert text in capsys.readouterr().err
    assert not (tmp_path / 'd.json').exists()


def test_a_folder_without_checkpoint(learned, tmp_path):
    (config,) = learned.first.glob('*.py')
    shutil.copy(config, tmp_path)
    with pytest.raises(FileNotFoundError, match='work_dir must hold last_checkpoint'):
        open_run(tmp_path)


def test_a_head_without_normalised_heatmaps(data, tmp_path):
    train(HEATMAP, tmp_path, 1)
    with pytest.raises(ValueError, match=r'the head must give .* that sum to 1, got sums from'):
        draw_dsnt([tmp_path], tmp_path / 'd.png')
