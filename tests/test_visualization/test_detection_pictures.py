"""Pictures of detectors: what is drawn, what the command line writes and refuses."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mmloss_plugins.visualization import draw_centernet, draw_detections, draw_extremenet
from mmloss_plugins.visualization.__main__ import main
from mmloss_plugins.visualization._detection_panels import KEYS, MISSED, RIGHT, WRONG, new_sheet
from mmloss_plugins.visualization._detection_run import DetectionRun
from mmloss_plugins.visualization._figure import MAX_BYTES, _shrink
from mmloss_plugins.visualization._peak_panels import points_of
from tests.test_visualization.conftest import SIMCC
from tests.test_visualization.detectors import (
    CENTERNET,
    EXTREMENET,
    FCOS,
    LAST,
    MMDET,
    make_run,
    with_targets,
)
from tests.test_visualization.pictures import check_picture


@pytest.fixture(scope='module')
def folders(digits, tmp_path_factory):
    """Work folders of random weights by name."""
    parent = tmp_path_factory.mktemp('runs')
    configs = dict(centernet=CENTERNET, mmdet=MMDET, extremenet=EXTREMENET, fcos=FCOS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MMLOSS_DATA', str(digits.parent))
        yield {name: make_run(path, parent / name) for name, path in configs.items()}


@pytest.fixture(scope='module')
def perfect(folders):
    """ExtremeNet whose maps are its targets."""
    return with_targets(DetectionRun(folders['extremenet']))


def share_of(path, colour):
    """Return the share of pixels that have a colour '#rrggbb' exactly."""
    pixels = np.asarray(Image.open(path).convert('RGB'))
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return (pixels == wanted).all(-1).mean()


def test_groups_of_extreme_points(perfect, tmp_path):
    sample, maps = draw_extremenet(perfect, tmp_path / 'out.png', index=3)
    check_picture(tmp_path / 'out.png')
    assert sample.match().right.any()
    assert len(maps.maps) == 5
    # The colours of what is right, and of its legend.
    assert share_of(tmp_path / 'out.png', RIGHT) > 1e-3
    # The middle of a box is the middle of its left and right, and of its top and bottom point.
    left, right = (points_of(sample, name)[:, 0] for name in ('left', 'right'))
    top, bottom = (points_of(sample, name)[:, 1] for name in ('top', 'bottom'))
    middle = np.stack([(left + right) / 2, (top + bottom) / 2], 1)
    np.testing.assert_allclose(points_of(sample, 'center'), middle, atol=1e-4)


def test_an_image_without_detections(folders, tmp_path):
    sample, _ = draw_extremenet(str(folders['extremenet']), tmp_path / 'out.png', score_thr=0.99)
    check_picture(tmp_path / 'out.png')
    assert sample.boxes.shape == (0, 4)
    assert sample.extreme_points.shape == (0, 4, 2)


def test_several_runs_on_the_same_images(folders, perfect, tmp_path):
    pair = folders['mmdet'] / MMDET.name, folders['mmdet'] / LAST
    rows = draw_detections([perfect, pair], tmp_path / 'out.png', ['ours', 'baseline'])
    check_picture(tmp_path / 'out.png')
    assert [len(row) for row in rows] == [4, 4]
    assert [each.name for each in rows[0]] == [each.name for each in rows[1]]
    # What random weights miss has the colour of the legend.
    assert share_of(tmp_path / 'out.png', MISSED) > 1e-3


@pytest.mark.parametrize('name', ['centernet', 'mmdet'])
def test_heatmaps_of_both_centernets(folders, tmp_path, name):
    found = draw_centernet(folders[name], tmp_path / 'out.png', indices=[1, 5, 2, 0, 7])
    check_picture(tmp_path / 'out.png')
    assert [sample.name[:6] for sample, _ in found] == [
        '000002',
        '000006',
        '000003',
        '000001',
        '000008',
    ]
    assert all(maps.edges == (0, 0, 128, 128) for _, maps in found)


def test_sizes_of_sheets():
    """Four columns fill the width; one image alone is no poster; rows add up."""
    wide, axes = new_sheet(2, 4, 1.0, False, '')
    assert axes.shape == (2, 4)
    assert wide.get_figwidth() == pytest.approx(8.4)
    single, _ = new_sheet(1, 1, 0.75, False, '')
    assert single.get_figwidth() == pytest.approx(5.0)
    higher, _ = new_sheet(4, 4, 1.0, False, '')
    # 8.4 / 4 - 0.06 inches for an image and 0.2 for the line above it, twice.
    assert higher.get_figheight() - wide.get_figheight() == pytest.approx(2 * (2.04 + 0.2))
    inside = [ax.get_position() for ax in axes.flat]
    assert all(0 <= each.x0 < each.x1 <= 1 and 0 <= each.y0 < each.y1 <= 1 for each in inside)


def test_few_colours_keep_those_of_the_legend():
    noise = np.random.default_rng(0).integers(0, 120, (400, 600, 3), dtype=np.uint8)
    noise[:12, :60] = [0x56, 0xB4, 0xE9]
    noise[:12, 60:120] = [0xD5, 0x5E, 0x00]
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format='png')
    assert len(buffer.getvalue()) > MAX_BYTES
    small = io.BytesIO(_shrink(buffer.getvalue(), KEYS))
    assert small.getbuffer().nbytes <= MAX_BYTES
    for colour in (RIGHT, WRONG):
        assert share_of(small, colour) > 1e-3


def test_the_plain_command_draws_a_detector(folders, tmp_path, capsys):
    for name, config, second in (
        ('centernet', CENTERNET, 'centernet'),
        ('extremenet', EXTREMENET, 'extremenet'),
        ('fcos', FCOS, None),
    ):
        out = tmp_path / name
        words = [str(config), str(folders[name] / LAST), '--out', str(out), '--num', '2']
        assert main(words) == 0
        captured = capsys.readouterr()
        expected = ['detections'] + ([second] if second else [])
        lines = [line for line in captured.out.splitlines() if line.endswith('.png')]
        assert lines == [str(out / f'{each}.png') for each in expected]
        # The folder has no log.
        assert 'No curves.png.' in captured.err
        assert all((out / f'{each}.png').stat().st_size > 20_000 for each in expected)


def test_commands_of_one_picture(folders, tmp_path, capsys):
    out = tmp_path / 'deep' / 'out.png'
    for words in (
        ['detections', '{fcos}', '{mmdet}', '--labels', 'FCOS', 'CenterNet', '--num', '3'],
        ['centernet', '{centernet}', '--indices', '2', '4', '--score-thr', '0.05'],
        ['extremenet', '{extremenet}', '--index', '6'],
    ):
        words = [word.format(**folders) for word in words]
        assert main([*words, '--out', str(out)]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == str(out)
        assert Image.open(out).width >= 600
        out.unlink()


@pytest.mark.parametrize(
    ('words', 'text'),
    [
        (['detections', 'none'], "work_dir must hold one config, *.py, got 0 in 'none'."),
        (['detections', '{here}'], "work_dir must hold last_checkpoint, got '{here}'."),
        (['detections', 'none.py', 'none.pth'], "config must be a file, got 'none.py'."),
        (['detections', str(FCOS), 'none.pth'], "checkpoint must be a file, got 'none.pth'."),
        (['detections', str(FCOS)], 'must be followed by its checkpoint, got nothing'),
        (
            ['detections', str(SIMCC), '{fcos}/' + LAST],
            "must be that of an MMDetection model with a val set, got default_scope='mmpose'",
        ),
        (['detections', str(CENTERNET), '{fcos}/' + LAST], 'do not fit, such as '),
        (['detections', '{fcos}', '--num', '0'], 'num must be at least 1, got 0'),
        (['detections', '{fcos}', '--indices', '8'], 'indices must be from 0 to 7, got 8'),
        (
            ['detections', '{fcos}', '--labels', 'a', 'b'],
            'labels must be one for each of the 1 runs',
        ),
        (['detections', '{fcos}', '--score-thr', '1'], 'score_thr must be in [0, 1), got 1.0'),
        (
            ['centernet', '{fcos}'],
            'draw_centernet: the head must have a heatmap of centres, got FCOSHead. Draw it with',
        ),
        (
            ['extremenet', '{centernet}'],
            'the head must have heatmaps top, left, bottom, right, center, got CenterNetHead.',
        ),
        (['extremenet', '{extremenet}', '--index', '-1'], 'indices must be from 0 to 7, got -1'),
        (['centernet', '{centernet}', '{mmdet}'], 'runs must be one, got 2'),
        (
            ['detections', '{fcos}', '--cfg-options', 'val_dataloader.dataset.data_root=none'],
            'val_dataloader.dataset.ann_file must be a file',
        ),
        (['extremenet', '{extremenet}', '--index', '1', '--suffix'], 'end in .png'),
    ],
)
def test_says_what_is_wrong(folders, tmp_path, capsys, words, text):
    here = tmp_path / 'here'
    here.mkdir()
    (here / 'config.py').write_text('')
    suffix = 'jpg' if words[-1] == '--suffix' else 'png'
    words = [word.format(here=here, **folders) for word in words if word != '--suffix']
    assert main([*words, '--out', str(tmp_path / f'out.{suffix}')]) == 1
    assert text.format(here=here) in capsys.readouterr().err


def test_runs_of_other_val_sets(folders, tmp_path):
    other = DetectionRun(folders['fcos'])
    other.classes = other.classes[:5]
    with pytest.raises(
        ValueError, match=r'^draw_detections: the val set of fcos.* must have the cl'
    ):
        draw_detections([folders['centernet'], other], tmp_path / 'out.png')
    shifted = DetectionRun(folders['fcos'])
    shifted.image_name = lambda index: f'{index}.png'
    with pytest.raises(ValueError, match=r'must have the images of centernet_mini.* at 0, got'):
        draw_detections([folders['centernet'], shifted], tmp_path / 'out.png', indices=[0])


def test_a_label_that_the_val_set_does_not_have(folders):
    run = DetectionRun(folders['fcos'])
    run.classes = ('0',)
    with pytest.raises(
        ValueError, match=r'^visualization: num_classes must be that of the val set, 1'
    ):
        run.predict(0, 0.0)


def test_without_mmdet(tmp_path):
    script = (
        'import sys\n'
        'sys.modules.update(dict.fromkeys(("mmdet", "mmpose", "mmcv")))\n'
        'from mmloss_plugins.visualization.__main__ import main\n'
        f'sys.exit(main(["detections", {str(tmp_path)!r}, "--out", "out.png"]))\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    text = 'visualization: mmdet must be installed to run a detector, got none. Install it, or see'
    assert done.stderr.startswith(text)
