"""``mim train mmdet`` and ``mim test mmdet`` of the detection minis, from an unrelated folder."""

from __future__ import annotations

import pytest

from tests.mim import Mim

MINIS = {
    'ours': 'detection/centernet/centernet_mini_tiny-hg_digits-128x128.py',
    'mmdet': 'detection/centernet/centernet-mmdet_mini_tiny-hg_digits-128x128.py',
    'extremenet': 'detection/extremenet/extremenet_mini_tiny-hg_digits-128x128.py',
    'fcos': 'detection/fcos/fcos-focal_mini_tiny-r18_digits-128x128.py',
}


@pytest.fixture
def mim(request, tmp_path, installed_wheel, digits):
    return Mim(tmp_path, installed_wheel, digits, 'mmdet', MINIS[request.param])


@pytest.mark.parametrize('mim', MINIS, indirect=True)
def test_mini_trains_and_its_checkpoint_gives_the_same_metrics(mim):
    code, output = mim.run(*mim.train(2))
    assert code == 0, output
    rows = mim.scalars()
    assert [row['iter'] for row in rows if 'loss' in row] == [1, 2]
    ap = next(row['coco/bbox_mAP'] for row in rows if 'coco/bbox_mAP' in row)
    checkpoint = mim.folder / 'run' / 'iter_2.pth'
    code, output = mim.run(
        'test', 'mmdet', mim.config, '--checkpoint', checkpoint, '--work-dir', mim.folder / 'test'
    )
    assert code == 0, output
    assert f'coco/bbox_mAP: {ap:.4f}' in output


@pytest.mark.parametrize('mim', ['ours'], indirect=True)
@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('model.bbox_head.num_classes=9', 'The `num_classes` (9) in CenterNetHead'),
        ('model.bbox_head.radius_imp=mmdet', "Did you mean 'radius_impl'?"),
        ('model.test_cfg.top_k=5', "Did you mean 'topk'?"),
        ('train_dataloader.dataset.ann_file=nowhere.json', 'nowhere.json'),
    ],
    ids=['num_classes', 'head', 'test_cfg', 'data'],
)
def test_mistake_in_the_config_is_named_before_training(mim, option, message):
    code, output = mim.run(*mim.train(2, option))
    assert code != 0
    assert message in output
    assert mim.scalars() == []
