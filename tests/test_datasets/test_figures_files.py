"""The files of the generated figures: COCO's format, the same on every run, never lost."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmloss_plugins.datasets import figures_files
from mmloss_plugins.datasets.figures import generate_figures, main, render_figure

SIZES = dict(num_train=8, num_val=3, image_size=128, seed=7, progress=False)


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_figures(tmp_path_factory.mktemp('set') / 'figures', **SIZES)


def labels_of(folder: Path, split: str = 'train') -> dict:
    return json.loads((folder / 'annotations' / f'figures_{split}.json').read_text())


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


class TestDeterminism:
    def test_same_state_same_picture(self):
        first = render_figure(np.random.default_rng(11), 96)
        second = render_figure(np.random.default_rng(11), 96)
        assert (first[0] == second[0]).all()
        assert (first[1] == second[1]).all()
        assert first[0].shape == (96, 96, 3)
        assert first[1].shape == (17, 3)
        assert (first[0] != render_figure(np.random.default_rng(12), 96)[0]).any()

    def test_same_files_on_every_run_and_after_use_of_global_generators(self, folder, tmp_path):
        np.random.rand(3)  # noqa: NPY002 (whether the set reads this generator is the question)
        again = generate_figures(tmp_path / 'again', **SIZES)
        assert files_of(again) == files_of(folder)

    def test_an_image_does_not_depend_on_the_size_of_the_set(self, folder, tmp_path):
        larger = generate_figures(tmp_path, **{**SIZES, 'num_train': 9, 'num_val': 1})
        for name in ('images/train/000004.png', 'images/val/000001.png'):
            assert (larger / name).read_bytes() == (folder / name).read_bytes()
        assert labels_of(larger)['annotations'][:8] == labels_of(folder)['annotations']

    def test_seed_split_and_index_each_change_the_picture(self, folder, tmp_path):
        other = generate_figures(tmp_path, **{**SIZES, 'seed': 8, 'num_train': 1, 'num_val': 1})
        pictures = [
            cv2.imread(str(path)).tobytes()
            for root in (folder, other)
            for path in sorted(root.rglob('*.png'))
        ]
        assert len(set(pictures)) == len(pictures) == 13


class TestFiles:
    def test_format(self, folder):
        content = labels_of(folder)
        assert len(content['images']) == len(content['annotations']) == 8
        for image, label in zip(content['images'], content['annotations']):
            picture = cv2.imread(str(folder / 'images' / 'train' / image['file_name']))
            assert picture.shape == (image['height'], image['width'], 3) == (128, 128, 3)
            assert label['image_id'] == image['id'] >= 1
            assert label['id'] >= 1  # COCO's evaluation takes 0 for "no match"
            assert len(label['keypoints']) == 51
            assert label['num_keypoints'] == sum(flag > 0 for flag in label['keypoints'][2::3])
            assert label['iscrowd'] == 0
        assert content['categories'][0]['keypoints'] == list(figures_files.KEYPOINT_NAMES)
        assert len(content['categories'][0]['skeleton']) == 19

    def test_no_leftovers(self, folder):
        assert len(files_of(folder)) == 8 + 3 + 2

    def test_a_second_call_returns_at_once(self, folder):
        before = {path: path.stat().st_mtime_ns for path in folder.rglob('*')}
        start = time.perf_counter()
        generate_figures(folder, **SIZES)
        assert time.perf_counter() - start < 0.2
        assert {path: path.stat().st_mtime_ns for path in folder.rglob('*')} == before

    def test_stopped_after_three_images_and_continued(self, folder, tmp_path, monkeypatch):
        draw, drawn = figures_files.Split._draw, []

        def stop_at_four(self, index):
            if len(drawn) == 3:
                raise KeyboardInterrupt
            drawn.append((self.name, index))
            return draw(self, index)

        monkeypatch.setattr(figures_files.Split, '_draw', stop_at_four)
        with pytest.raises(KeyboardInterrupt):
            generate_figures(tmp_path, **SIZES)
        assert not (tmp_path / 'annotations' / 'figures_train.json').exists()
        # As after a power cut: the last line is half written.
        partial = tmp_path / 'annotations' / 'figures_train.partial.jsonl'
        partial.write_bytes(partial.read_bytes()[:-40])

        def note(self, index):
            drawn.append((self.name, index))
            return draw(self, index)

        drawn.clear()
        monkeypatch.setattr(figures_files.Split, '_draw', note)
        generate_figures(tmp_path, **SIZES)
        assert [index for name, index in drawn if name == 'train'] == [2, 3, 4, 5, 6, 7]
        assert files_of(tmp_path) == files_of(folder)

    def test_stopped_twice_with_a_line_cut_off(self, folder, tmp_path, monkeypatch):
        draw, runs = figures_files.Split._draw, []

        def stop_at_three(self, index):
            if len(runs[-1]) == 2:
                raise KeyboardInterrupt
            runs[-1].append(index)
            return draw(self, index)

        monkeypatch.setattr(figures_files.Split, '_draw', stop_at_three)
        partial = tmp_path / 'annotations' / 'figures_train.partial.jsonl'
        for cut_off in (40, 1, 0):
            runs.append([])
            with pytest.raises(KeyboardInterrupt):
                generate_figures(tmp_path, **SIZES)
            content = partial.read_bytes()
            partial.write_bytes(content[: len(content) - cut_off])
        # The first cut costs one image; the second took the line's end alone, which costs none.
        assert runs == [[0, 1], [1, 2], [3, 4]]
        monkeypatch.setattr(figures_files.Split, '_draw', draw)
        assert files_of(generate_figures(tmp_path, **SIZES)) == files_of(folder)

    def test_a_deleted_and_an_empty_image_are_drawn_again(self, folder, tmp_path):
        generate_figures(tmp_path, **SIZES)
        (tmp_path / 'images' / 'val' / '000002.png').unlink()
        (tmp_path / 'images' / 'train' / '000005.png').write_bytes(b'')
        generate_figures(tmp_path, **SIZES)
        assert files_of(tmp_path) == files_of(folder)


class TestRefusals:
    @pytest.mark.parametrize(
        'change', [{'num_train': 6}, {'num_val': 2}, {'image_size': 64}, {'seed': 8}]
    )
    def test_another_set_is_refused_and_left_alone(self, folder, change):
        (name,) = change
        key = 'num' if name.startswith('num') else name
        before = files_of(folder)
        with pytest.raises(ValueError, match=rf'out_dir must .*{key}={change[name]}.*got {key}='):
            generate_figures(folder, **{**SIZES, **change})
        assert files_of(folder) == before

    def test_another_version_is_refused(self, folder, monkeypatch):
        monkeypatch.setattr(figures_files, 'VERSION', figures_files.VERSION + 1)
        with pytest.raises(ValueError, match=r'got version=1\. Take another folder'):
            generate_figures(folder, **SIZES)

    def test_an_unfinished_other_set_is_refused(self, tmp_path, monkeypatch):
        def stop(self, index):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(figures_files.Split, '_draw', stop)
            with pytest.raises(KeyboardInterrupt):
                generate_figures(tmp_path, **SIZES)
        with pytest.raises(ValueError, match=r'seed=8.*got seed=7'):
            generate_figures(tmp_path, **{**SIZES, 'seed': 8})

    @pytest.mark.parametrize('name', ['images/train/000001.png', 'annotations/figures_val.json'])
    def test_files_of_someone_else_are_refused_and_left_alone(self, tmp_path, name):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text('[1]')
        with pytest.raises(ValueError, match=r'out_dir must be empty or hold .* got .*delete'):
            generate_figures(tmp_path, **SIZES)
        assert files_of(tmp_path) == {name: b'[1]'}

    @pytest.mark.parametrize(
        ('argument', 'value', 'error', 'text'),
        [
            ('num_train', 0, ValueError, 'num_train must be an integer from 1 .* got 0'),
            ('num_val', -3, ValueError, 'num_val must .* got -3'),
            ('image_size', 16, ValueError, 'image_size must be an integer from 32 to 1024, got 16'),
            ('image_size', 128.0, TypeError, 'image_size must .* got 128.0'),
            ('seed', -1, ValueError, 'seed must .* got -1'),
            ('seed', True, TypeError, 'seed must .* got True'),
            ('num_train', '20', TypeError, "num_train must .* got '20'"),
        ],
    )
    def test_bad_arguments(self, tmp_path, argument, value, error, text):
        with pytest.raises(error, match=text):
            generate_figures(tmp_path, **{**SIZES, argument: value})
        assert not files_of(tmp_path)

    def test_a_full_disk_is_named_and_the_next_call_goes_on(self, folder, tmp_path, monkeypatch):
        write, written = Path.write_bytes, []

        def full(self, content):
            written.append(self.name)
            if len(written) > 3:
                write(self, content[:10])
                raise OSError(errno.ENOSPC, 'No space left on device')
            return write(self, content)

        with monkeypatch.context() as patch:
            patch.setattr(Path, 'write_bytes', full)
            with pytest.raises(
                OSError, match=r'No space left on device\)\. Free some space'
            ) as info:
                generate_figures(tmp_path, **SIZES)
        assert info.value.errno == errno.ENOSPC
        assert not list(tmp_path.rglob('*.tmp'))
        assert files_of(generate_figures(tmp_path, **SIZES)) == files_of(folder)


class TestCommandLine:
    def test_says_where_the_data_are(self, tmp_path, capsys):
        out = tmp_path / 'new' / 'set'
        arguments = [str(out), '--num-train', '2', '--num-val', '1', '--image-size', '64']
        assert main(arguments) == 0
        printed = capsys.readouterr()
        assert f'train: 2 images in {out / "images" / "train"}' in printed.out
        assert str(out / 'annotations' / 'figures_val.json') in printed.out
        assert '3/3' in printed.err
        assert 'ETA' in printed.err

    def test_a_folder_that_cannot_be_made(self, tmp_path, capsys):
        (tmp_path / 'file').write_text('')
        assert main([str(tmp_path / 'file' / 'set'), '--num-train', '1', '--num-val', '1']) == 1
        error = capsys.readouterr().err
        assert error.startswith('generate_figures: out_dir must be a folder that can be written')
        assert 'Traceback' not in error

    def test_another_set(self, folder, capsys):
        assert main([str(folder), '--num-train', '9']) == 1
        assert 'num=9' in capsys.readouterr().err

    def test_runs_as_a_module_without_a_warning(self, folder):
        command = [sys.executable, '-W', 'error', '-m', 'mmloss_plugins.datasets.figures']
        options = ['--num-train', '8', '--num-val', '3', '--seed', '7']
        done = subprocess.run([*command, str(folder), *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert not done.stderr

    def test_importing_the_package_loads_neither_opencv_nor_a_host(self):
        code = (
            'import sys, mmloss_plugins.datasets as d; d.generate_figures; '
            "heavy = {'cv2', 'torch', 'mmengine', 'mmcv', 'mmpose', 'mmdet'} & set(sys.modules); "
            'sys.exit(str(heavy) if heavy else 0)'
        )
        done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.filterwarnings('ignore:The metainfo config file')
class TestMMPose:
    def test_the_stock_data_set_reads_every_figure(self, folder):
        dataset = pytest.importorskip('mmpose.datasets.datasets').CocoDataset(
            data_root=str(folder),
            ann_file='annotations/figures_train.json',
            data_prefix=dict(img='images/train/'),
            data_mode='topdown',
            pipeline=[],
        )
        labels = labels_of(folder)['annotations']
        assert len(dataset) == len(labels)
        for item, label in zip(dataset, labels):
            points = np.array(label['keypoints']).reshape(17, 3)
            assert item['keypoints'][0] == pytest.approx(points[:, :2], abs=1e-4)
            assert (item['keypoints_visible'][0] == (points[:, 2] > 0)).all()
            x, y, width, height = label['bbox']
            assert item['bbox'][0] == pytest.approx([x, y, x + width, y + height], abs=1e-3)
            assert Path(item['img_path']).is_file()

    @pytest.mark.parametrize(('shift', 'low', 'high'), [(0.0, 1.0, 1.0), (12.0, 0.0, 0.3)])
    def test_the_stock_metric_gives_the_truth_full_marks(self, folder, shift, low, high):
        evaluation = pytest.importorskip('mmpose.evaluation.metrics')
        coco = pytest.importorskip('mmpose.datasets.datasets').CocoDataset.METAINFO
        parse = pytest.importorskip('mmpose.datasets.datasets.utils').parse_pose_metainfo
        path = folder / 'annotations' / 'figures_train.json'
        metric = evaluation.CocoMetric(ann_file=str(path))
        metric.dataset_meta = parse(coco)
        for label in labels_of(folder)['annotations']:
            points = np.array(label['keypoints']).reshape(1, 17, 3)
            x, y, width, height = label['bbox']
            found = dict(
                keypoints=points[..., :2] + shift,
                keypoint_scores=np.ones((1, 17)),
                bboxes=np.array([[x, y, x + width, y + height]]),
            )
            truth = dict(bbox_scores=np.ones(1), bbox_scales=np.full((1, 2), 100.0))
            sample = dict(
                id=label['id'],
                img_id=label['image_id'],
                category_id=1,
                pred_instances=found,
                gt_instances=truth,
            )
            metric.process({}, [sample])
        scores = metric.evaluate(size=SIZES['num_train'])
        assert low <= scores['coco/AP'] <= high
        assert low <= scores['coco/AR'] <= high
