"""Every mini of CenterNet and ExtremeNet takes a step; those of a claim differ in one thing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from tests.test_configs.detection_cases import (
    CONFIGS,
    MINIS,
    build_model,
    check_predictions,
    differing,
    load,
    predicted,
    samples_of,
    step,
    with_peaks,
)

DIGITS = 'centernet_mini_tiny-hg_digits-128x128'


@pytest.mark.parametrize('name', MINIS)
def test_mini_takes_a_step_and_predicts(name, digits):
    config = load(name)
    model = build_model(config)
    samples = samples_of(config.train_dataloader, digits, 'train')
    if 'bccd' in name:
        assert samples[0]['inputs'].shape == (3, 192, 256)
    terms = step(model, samples)
    assert len(terms) == (9 if name.startswith('extremenet') else 3)
    found = predicted(with_peaks(model), samples_of(config.val_dataloader, digits, 'val'))
    check_predictions(found, 128)


@pytest.mark.parametrize(
    ('name', 'paths'),
    [
        ('centernet-mse', {'model.bbox_head.loss', 'model.bbox_head.prior_prob'}),
        ('centernet-bce', {'model.bbox_head.loss'}),
        ('centernet-soft-bce', {'model.bbox_head.loss'}),
    ],
)
def test_minis_of_the_claim_differ_in_the_loss_of_the_heatmap(name, paths):
    ours, other = load(name + DIGITS[len('centernet') :]), load(DIGITS)
    assert differing(ours.to_dict(), other.to_dict()) == paths
    loss = ours.model.bbox_head.loss
    assert set(loss) <= {'type', 'heatmap_loss', 'heatmap_weight'}


@pytest.mark.parametrize('data', ['digits-128x128', 'bccd-256x192'])
def test_the_baseline_has_the_budget_and_the_network_of_ours(data):
    ours = load(f'centernet_mini_tiny-hg_{data}')
    baseline = load(f'centernet-mmdet_mini_tiny-hg_{data}')
    paths = differing(baseline.to_dict(), ours.to_dict())
    rest = {path for path in paths if not path.startswith('model.bbox_head.')}
    # MMDetection's head does not predict without a border of the picture.
    border = {'border', 'loading', 'packing', 'val_pipeline'}
    border |= {f'{loader}_dataloader.dataset.pipeline' for loader in ('val', 'test')}
    assert rest == {'model.type'} | border
    for option in ('in_channels', 'feat_channels', 'num_classes'):
        assert baseline.model.bbox_head[option] == ours.model.bbox_head[option]
    # Same network: as many parameters.
    counts = [
        sum(p.numel() for p in MODELS.build(each.model).parameters()) for each in (ours, baseline)
    ]
    assert counts[0] == counts[1]


def test_blood_cells_train_the_network_of_the_digits():
    cells = load('centernet_mini_tiny-hg_bccd-256x192').to_dict()
    digits = load(DIGITS).to_dict()
    assert differing(cells['model'], digits['model']) == {'bbox_head.num_classes'}
    for part in ('train_cfg', 'optim_wrapper', 'param_scheduler'):
        assert cells[part] == digits[part]


# Of the losses for the heatmap of the claim, on logits x and a target t: the sum of the cells per
# object, by hand at one cell each.
HEATMAP_LOSSES = {
    'centernet-mse': lambda x, t: (x - t) ** 2,
    'centernet-bce': lambda x, t: torch.nn.functional.binary_cross_entropy_with_logits(
        x, (t == 1).float(), reduction='none'
    ),
    'centernet-soft-bce': lambda x, t: torch.nn.functional.binary_cross_entropy_with_logits(
        x, t, reduction='none'
    ),
}


@pytest.mark.parametrize(('name', 'cell'), HEATMAP_LOSSES.items())
def test_losses_of_the_claim_are_what_they_say(name, cell):
    """The sum over all cells divided by the objects: 67 in 13 crops, 5.154 each."""
    model = build_model(load(name + DIGITS[len('centernet') :]))
    ctdet = model.bbox_head.loss_module
    logits = torch.randn(13, 10, 40, 40)
    target = torch.rand(13, 10, 40, 40) * 0.99
    target.view(-1)[torch.randperm(target.numel())[:67]] = 1
    found = ctdet.heatmap_weight * ctdet.heatmap_loss(logits, target)
    expected = cell(logits, target).sum() / 67
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


@pytest.fixture
def bccd(monkeypatch):
    beside = Path(__file__).parents[3] / 'shared' / 'datasets' / 'bccd'
    folder = Path(os.environ.get('BCCD', beside))
    if not folder.is_dir():
        pytest.skip(f'no blood cells: {folder} is absent and BCCD is not set')
    monkeypatch.setenv('BCCD', str(folder))


@pytest.mark.parametrize('method', ['centernet', 'extremenet'])
def test_blood_cells_are_read(bccd, method):
    register_all_modules(init_default_scope=True)
    config = Config.fromfile(CONFIGS[f'{method}_mini_tiny-hg_bccd-256x192'])
    train, val = (
        DATASETS.build(loader.dataset)
        for loader in (config.train_dataloader, config.val_dataloader)
    )
    assert (len(train), len(val)) == (205, 87)
    model = build_model(config)
    batch = model.data_preprocessor(pseudo_collate([train[0], train[1]]), True)
    assert batch['inputs'].shape == (2, 3, 192, 256)
    instances = batch['data_samples'][0].gt_instances
    # Pictures of 640x480 at 0.4 of their size.
    boxes = train.get_data_info(0)['instances']
    expected = torch.tensor([each['bbox'] for each in boxes]) * 0.4
    areas = (expected[:, 2:] - expected[:, :2]).prod(-1)
    found = (instances.bboxes[:, 2:] - instances.bboxes[:, :2]).prod(-1)
    torch.testing.assert_close(found, areas, rtol=1e-4, atol=1e-3)
    assert set(instances.labels.tolist()) <= {0, 1, 2}
    losses = model(**batch, mode='loss')
    assert all(torch.isfinite(value).all() for value in losses.values())
