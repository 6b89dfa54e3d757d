from __future__ import annotations

import subprocess
import sys

import pytest

from mmloss_plugins.visualization.__main__ import main
from tests.test_visualization.conftest import HEATMAP, SIMCC
from tests.test_visualization.pictures import check_picture

NAMES = ('predictions.png', 'simcc.png', 'curves.png')


def test_writes_three_pictures(trained, tmp_path, capsys):
    out = tmp_path / 'deep' / 'out'
    arguments = [str(SIMCC), str(trained.checkpoint), '--out', str(out), '--num', '5']
    assert main(arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line.endswith('.png')] == [
        str(out / name) for name in NAMES
    ]
    for name in NAMES:
        check_picture(out / name)


@pytest.mark.parametrize(
    ('arguments', 'text'),
    [
        ((SIMCC, 'none.pth'), "visualization: checkpoint must be a file, got 'none.pth'."),
        (('none.py', 'none.pth'), "visualization: config must be a file, got 'none.py'."),
        ((HEATMAP, '{checkpoint}'), 'do not fit, such as head.'),
        ((SIMCC, '{checkpoint}', '--num', '0'), 'num must be at least 1, got 0'),
        ((SIMCC, '{checkpoint}', '--work-dir', 'none'), 'work_dir must hold'),
        (
            (SIMCC, '{checkpoint}', '--cfg-options', 'val_dataloader.dataset.data_root=none'),
            'ann_file must be a file',
        ),
    ],
)
def test_says_what_is_wrong(trained, tmp_path, capsys, arguments, text):
    words = [str(word).format(checkpoint=trained.checkpoint) for word in arguments]
    assert main([*words, '--out', str(tmp_path)]) == 1
    assert text in capsys.readouterr().err


def test_imports_without_mmpose_and_matplotlib():
    script = (
        'import sys\n'
        'sys.modules.update(dict.fromkeys(("mmpose", "mmdet", "mmcv", "matplotlib")))\n'
        'import mmloss_plugins.visualization as v\n'
        'try:\n'
        '    v.draw_curves("x", "y.png")\n'
        'except ModuleNotFoundError as error:\n'
        '    print(error)\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', script], capture_output=True, text=True, check=True
    )
    assert 'matplotlib must be installed to draw pictures' in done.stdout
