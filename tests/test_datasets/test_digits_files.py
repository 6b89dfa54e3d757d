"""The files of the generated digits, and what MMDetection makes of them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmloss_plugins.datasets import digits_files, digits_scene, generate_digits
from mmloss_plugins.datasets.digits import CLASSES, main

SIZES = dict(num_train=8, num_val=3, image_size=128, seed=7, progress=False)


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_digits(tmp_path_factory.mktemp('set') / 'digits', **SIZES)


def labels_of(folder: Path, split: str = 'train') -> dict:
    return json.loads((folder / 'annotations' / f'digits_{split}.json').read_text())


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


class TestFiles:
    def test_format(self, folder):
        content = labels_of(folder)
        assert [image['id'] for image in content['images']] == list(range(1, 9))
        assert [label['id'] for label in content['annotations']] == list(
            range(1, len(content['annotations']) + 1)
        )
        assert {label['image_id'] for label in content['annotations']} == set(range(1, 9))
        assert [kind['name'] for kind in content['categories']] == list(CLASSES)
        assert [kind['id'] for kind in content['categories']] == list(range(1, 11))
        for image in content['images']:
            picture = cv2.imread(str(folder / 'images' / 'train' / image['file_name']))
            assert picture.shape == (image['height'], image['width'], 3) == (128, 128, 3)
        for label in content['annotations']:
            assert label['iscrowd'] == 0
            assert len(label['extreme_points']) == 4
            assert label['segmentation']['size'] == [128, 128]

    def test_the_splits_share_no_digit(self, folder):
        used = {
            split: {label['glyph'] for label in labels_of(folder, split)['annotations']}
            for split in ('train', 'val')
        }
        assert used['train'] <= set(digits_scene.glyphs_of('train'))
        assert used['val'] <= set(digits_scene.glyphs_of('val'))

    def test_same_files_on_every_run_and_after_use_of_global_generators(self, folder, tmp_path):
        np.random.rand(3)  # noqa: NPY002 (whether the set reads this generator is the question)
        again = generate_digits(tmp_path / 'again', **SIZES)
        assert files_of(again) == files_of(folder)
        assert len(files_of(again)) == 8 + 3 + 2

    def test_an_image_does_not_depend_on_the_size_of_the_set(self, folder, tmp_path):
        larger = generate_digits(tmp_path, **{**SIZES, 'num_train': 9, 'num_val': 1})
        for name in ('images/train/000004.png', 'images/val/000001.png'):
            assert (larger / name).read_bytes() == (folder / name).read_bytes()
        small = labels_of(folder)['annotations']
        assert labels_of(larger)['annotations'][: len(small)] == small

    def test_seed_split_and_index_each_change_the_picture(self, folder, tmp_path):
        other = generate_digits(tmp_path, **{**SIZES, 'seed': 8, 'num_train': 1, 'num_val': 1})
        pictures = [
            cv2.imread(str(path)).tobytes()
            for root in (folder, other)
            for path in sorted(root.rglob('*.png'))
        ]
        assert len(set(pictures)) == len(pictures) == 13

    def test_a_second_call_returns_at_once(self, folder):
        before = {path: path.stat().st_mtime_ns for path in folder.rglob('*')}
        start = time.process_time()
        generate_digits(folder, **SIZES)
        assert time.process_time() - start < 0.2
        assert {path: path.stat().st_mtime_ns for path in folder.rglob('*')} == before

    def test_stopped_and_continued_with_a_line_cut_off(self, folder, tmp_path, monkeypatch):
        draw, drawn = digits_files.Split._draw, []

        def stop_at_four(self, index):
            if len(drawn) == 3:
                raise KeyboardInterrupt
            drawn.append(index)
            return draw(self, index)

        with monkeypatch.context() as patch:
            patch.setattr(digits_files.Split, '_draw', stop_at_four)
            with pytest.raises(KeyboardInterrupt):
                generate_digits(tmp_path, **SIZES)
        assert drawn == [0, 1, 2]
        assert not (tmp_path / 'annotations' / 'digits_train.json').exists()
        partial = tmp_path / 'annotations' / 'digits_train.partial.jsonl'
        partial.write_bytes(partial.read_bytes()[:-40])

        def note(self, index):
            drawn.append(index)
            return draw(self, index)

        drawn.clear()
        monkeypatch.setattr(digits_files.Split, '_draw', note)
        generate_digits(tmp_path, **SIZES)
        assert drawn == [2, 3, 4, 5, 6, 7, 0, 1, 2]
        assert files_of(tmp_path) == files_of(folder)

    def test_a_deleted_and_an_empty_image_are_drawn_again(self, folder, tmp_path):
        generate_digits(tmp_path, **SIZES)
        (tmp_path / 'images' / 'val' / '000002.png').unlink()
        (tmp_path / 'images' / 'train' / '000005.png').write_bytes(b'')
        generate_digits(tmp_path, **SIZES)
        assert files_of(tmp_path) == files_of(folder)


class TestRefusals:
    @pytest.mark.parametrize(
        'change', [{'num_train': 6}, {'num_val': 2}, {'image_size': 64}, {'seed': 8}]
    )
    def test_another_set_is_refused_and_left_alone(self, folder, change):
        (name,) = change
        key = 'num' if name.startswith('num') else name
        before = files_of(folder)
        text = rf'generate_digits: out_dir must .*{key}={change[name]}.*got {key}='
        with pytest.raises(ValueError, match=text):
            generate_digits(folder, **{**SIZES, **change})
        assert files_of(folder) == before

    def test_another_version_is_refused(self, folder, monkeypatch):
        monkeypatch.setattr(digits_files, 'VERSION', digits_files.VERSION + 1)
        with pytest.raises(ValueError, match=r'got version=1\. Take another folder'):
            generate_digits(folder, **SIZES)

    def test_the_folder_of_the_figures_is_refused_and_left_alone(self, tmp_path):
        picture = tmp_path / 'images' / 'train' / '000001.png'
        picture.parent.mkdir(parents=True)
        picture.write_bytes(b'not empty')
        with pytest.raises(ValueError, match='got 1 images without annotations'):
            generate_digits(tmp_path, **SIZES)
        assert files_of(tmp_path) == {'images/train/000001.png': b'not empty'}

    @pytest.mark.parametrize(
        ('argument', 'value', 'error', 'text'),
        [
            ('num_train', 0, ValueError, 'num_train must be an integer from 1 .* got 0'),
            ('num_val', -3, ValueError, 'num_val must .* got -3'),
            ('image_size', 32, ValueError, 'image_size must be an integer from 64 to 1024, got 32'),
            ('image_size', 128.0, TypeError, 'image_size must .* got 128.0'),
            ('seed', -1, ValueError, 'seed must .* got -1'),
            ('seed', True, TypeError, 'seed must .* got True'),
        ],
    )
    def test_bad_arguments(self, tmp_path, argument, value, error, text):
        with pytest.raises(error, match=text):
            generate_digits(tmp_path, **{**SIZES, argument: value})
        assert not files_of(tmp_path)


class TestCommandLine:
    def test_says_where_the_data_are(self, tmp_path, capsys):
        out = tmp_path / 'new' / 'set'
        arguments = [str(out), '--num-train', '2', '--num-val', '1', '--image-size', '64']
        assert main(arguments) == 0
        printed = capsys.readouterr()
        assert f'train: 2 images in {out / "images" / "train"}' in printed.out
        assert str(out / 'annotations' / 'digits_val.json') in printed.out
        assert '3/3' in printed.err

    def test_a_folder_that_cannot_be_made(self, tmp_path, capsys):
        (tmp_path / 'file').write_text('')
        assert main([str(tmp_path / 'file' / 'set'), '--num-train', '1', '--num-val', '1']) == 1
        error = capsys.readouterr().err
        assert error.startswith('generate_digits: out_dir must be a folder that can be written')
        assert 'Traceback' not in error

    def test_another_set(self, folder, capsys):
        assert main([str(folder), '--num-train', '9']) == 1
        assert 'num=9' in capsys.readouterr().err

    def test_without_scikit_learn(self, tmp_path, capsys, monkeypatch):
        from mmloss_plugins.datasets import digits_draw

        digits_draw.load_glyphs.cache_clear()
        # None in this table makes an import fail.
        monkeypatch.setitem(sys.modules, 'sklearn.datasets', None)
        assert main([str(tmp_path), '--num-train', '1', '--num-val', '1', '--quiet']) == 1
        error = capsys.readouterr().err
        assert error.startswith('generate_digits: scikit-learn must be installed')
        assert 'pip install scikit-learn' in error

    def test_runs_as_a_module_without_a_warning(self, folder):
        command = [sys.executable, '-W', 'error', '-m', 'mmloss_plugins.datasets.digits']
        options = ['--num-train', '8', '--num-val', '3', '--seed', '7']
        done = subprocess.run([*command, str(folder), *options], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert not done.stderr

    def test_importing_loads_neither_opencv_nor_scikit_learn_nor_a_host(self):
        code = (
            'import sys, mmloss_plugins.datasets as d; d.generate_digits; '
            "heavy = {'cv2', 'sklearn', 'torch', 'mmengine', 'mmdet'} & set(sys.modules); "
            'sys.exit(str(heavy) if heavy else 0)'
        )
        done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures('mmdet_scope')
class TestMMDetection:
    @staticmethod
    def dataset_of(folder: Path, split: str):
        import mmdet.datasets.transforms  # noqa: F401 (registers the steps of the pipeline)

        return pytest.importorskip('mmdet.datasets').CocoDataset(
            data_root=str(folder),
            ann_file=f'annotations/digits_{split}.json',
            data_prefix=dict(img=f'images/{split}/'),
            metainfo=dict(classes=CLASSES),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            ],
        )

    @pytest.mark.parametrize('split', ['train', 'val'])
    def test_the_stock_data_set_reads_boxes_and_masks(self, folder, split):
        dataset = self.dataset_of(folder, split)
        content = labels_of(folder, split)
        assert len(dataset) == len(content['images'])
        for item in dataset:
            labels = [a for a in content['annotations'] if a['image_id'] == item['img_id']]
            assert item['img'].shape == (128, 128, 3)
            assert item['gt_bboxes_labels'].tolist() == [a['category_id'] - 1 for a in labels]
            assert not item['gt_ignore_flags'].any()
            masks = item['gt_masks'].masks
            assert masks.sum(axis=(1, 2)).tolist() == [a['area'] for a in labels]
            for mask, box in zip(masks, item['gt_bboxes'].tensor.tolist()):
                rows, columns = np.nonzero(mask)
                outline = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert box == outline

    @pytest.mark.parametrize(('shift', 'low', 'high'), [(0, 1.0, 1.0), (4, 0.0, 0.5)])
    def test_the_stock_metric_gives_the_truth_full_marks(self, folder, shift, low, high):
        evaluation = pytest.importorskip('mmdet.evaluation')
        path = folder / 'annotations' / 'digits_train.json'
        metric = evaluation.CocoMetric(ann_file=str(path), metric=['bbox', 'segm'])
        metric.dataset_meta = dict(classes=CLASSES)
        for item in self.dataset_of(folder, 'train'):
            masks = torch.from_numpy(item['gt_masks'].masks)
            found = dict(
                bboxes=item['gt_bboxes'].tensor + shift,
                labels=torch.from_numpy(item['gt_bboxes_labels']),
                scores=torch.ones(len(masks)),
                masks=torch.roll(masks, (shift, shift), (1, 2)) > 0,
            )
            sample = dict(img_id=item['img_id'], ori_shape=(128, 128), pred_instances=found)
            metric.process({}, [sample])
        scores = metric.evaluate(size=SIZES['num_train'])
        assert low <= scores['coco/bbox_mAP'] <= high
        assert low <= scores['coco/segm_mAP'] <= high
