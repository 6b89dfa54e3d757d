from __future__ import annotations

import json
import shutil

import pytest

from mmloss_plugins.visualization import draw_curves, read_scalars
from mmloss_plugins.visualization.curves import short_name
from tests.test_visualization.conftest import KILLED_AT, LAST, RESUMED_FROM
from tests.test_visualization.pictures import check_picture


def write(folder, name, rows):
    path = folder / name / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(row if isinstance(row, str) else json.dumps(row) for row in rows))


def train_row(step, loss=1.0):
    return dict(loss=loss, iter=step, step=step)


def log_files(trained):
    return sorted(trained.work_dir.glob('*/vis_data/scalars.json'))


def steps_in(file):
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [row['step'] for row in rows if 'iter' in row]


def test_the_run_left_two_overlapping_files(trained):
    first, second = map(steps_in, log_files(trained))
    assert first == list(range(1, KILLED_AT))
    assert second == list(range(RESUMED_FROM + 1, LAST + 1))


def test_resumed_runs_are_merged_by_step(trained):
    scalars = read_scalars(trained.work_dir)
    steps, losses = scalars.series('loss')
    assert steps == list(range(1, LAST + 1))
    # Where both logged, the resumed run counts.
    rows = [json.loads(line) for line in log_files(trained)[1].read_text().splitlines()]
    resumed = {row['step']: row['loss'] for row in rows if 'iter' in row}
    assert dict(zip(steps, losses))[RESUMED_FROM + 1] == resumed[RESUMED_FROM + 1]
    assert losses[-1] < losses[0]


def test_val_rows_get_the_iteration(trained):
    scalars = read_scalars(trained.work_dir)
    for name in ('coco/AP', 'pck@.05/PCK', 'pck@.02/PCK'):
        assert scalars.series(name)[0] == [4, 8, 12, 16, 20]
    assert scalars.metrics() == ['pck@.05/PCK', 'pck@.02/PCK', 'coco/AP']


def test_diagnostics_are_there(trained):
    steps, ratios = read_scalars(trained.work_dir).series('simcc_ratio')
    assert steps == list(range(1, LAST + 1))
    assert all(0 < ratio < 1.5 for ratio in ratios)


def test_a_run_from_the_start_replaces_what_was_there(tmp_path):
    write(tmp_path, '1', [train_row(2), train_row(4), {'a/PCK': 0.1, 'step': 4}])
    write(tmp_path, '2', [train_row(1, 9.0)])
    scalars = read_scalars(tmp_path)
    assert scalars.series('loss') == ([1], [9.0])
    assert scalars.val == []


def test_logs_of_a_test_are_passed_over(tmp_path):
    write(tmp_path, '1', [train_row(2)])
    write(tmp_path, '2', [{'a/PCK': 0.1, 'step': 0}])
    write(tmp_path, '3', [])
    scalars = read_scalars(tmp_path)
    assert scalars.series('loss') == ([2], [1.0])
    assert scalars.metrics() == []


def test_epochs_become_iterations(tmp_path):
    write(tmp_path, '1', [train_row(50), train_row(100), {'coco/AP': 0.3, 'step': 1}])
    assert read_scalars(tmp_path).series('coco/AP') == ([100], [0.3])


def test_cut_lines(tmp_path):
    write(tmp_path, '1', [train_row(1), '{"loss": 0.'])
    assert read_scalars(tmp_path).series('loss')[0] == [1]
    write(tmp_path, '2', ['{"loss": 0.', train_row(1)])
    with pytest.raises(ValueError, match=r"must hold one JSON object per line, got '\{.*in line 1"):
        read_scalars(tmp_path)


def test_folder_without_a_log(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'work_dir must hold .*scalars\.json, got'):
        draw_curves(tmp_path, tmp_path / 'c.png')
    with pytest.raises(ValueError, match='runs must hold at least one run, got 0'):
        draw_curves({}, tmp_path / 'c.png')


def test_draw_one_run(trained, tmp_path):
    drawn = draw_curves(trained.work_dir, tmp_path / 'c.png')
    check_picture(tmp_path / 'c.png')
    assert list(drawn) == [trained.work_dir.name]


def test_draw_several_runs(trained, tmp_path):
    """One without simcc_ratio, and with other values, beside one with it."""
    file = log_files(trained)[0]
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row.pop('simcc_ratio', None)
    write(tmp_path, '1', [dict(row, loss=row.get('loss', 1) / 1000) for row in rows])
    runs = {'SimCC': trained.work_dir, 'heatmap': tmp_path}
    assert list(draw_curves(runs, tmp_path / 'c.png')) == ['SimCC', 'heatmap']
    check_picture(tmp_path / 'c.png')


def test_draw_a_run_that_has_just_begun(tmp_path):
    write(tmp_path, '1', [train_row(50, -1.5), train_row(100, -2.0)])
    draw_curves(tmp_path, tmp_path / 'c.png')
    assert (tmp_path / 'c.png').stat().st_size > 5_000
    shutil.copytree(tmp_path / '1', tmp_path / 'other' / '1')
    draw_curves({'a': tmp_path, 'b': tmp_path / 'other'}, tmp_path / 'd.png')
    assert (tmp_path / 'd.png').stat().st_size > 5_000


@pytest.mark.parametrize(
    ('metric', 'short'),
    [('coco/AP', 'AP'), ('pck@.05/PCK', 'PCK@.05'), ('PCK', 'PCK'), ('coco/bbox_mAP', 'bbox_mAP')],
)
def test_short_name(metric, short):
    assert short_name(metric) == short
