"""BalancedBCELoss against the procedures of DB, the source and MMOCR, and in MMPose's head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData
from mmpose.registry import KEYPOINT_CODECS, MODELS
from mmpose.structures import PoseDataSample
from torch.testing import assert_close

from mmloss_plugins.losses import BalancedBCELoss

INPUT_SIZE = (64, 96)
K = 3


def maps(positives=0.05, soft=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = 3, 1, 8, 11
    logits = torch.randn(shape, generator=generator, dtype=torch.float64)
    draw = torch.rand(shape, generator=generator)
    target = (draw < positives).double()
    target[(draw >= positives) & (draw < positives + soft)] = 0.6
    mask = torch.rand(shape, generator=generator) < 0.8
    return logits.requires_grad_(), target, mask


def procedure(logits, target, mask, empty):
    """DB's steps, one pixel after the other; ``empty`` says what to do without positives.

    ``byte()`` cuts a soft target off to 0 and so does it with one minus it: such a pixel is neither
    a positive nor a negative.
    """
    p = logits.detach().sigmoid().flatten().tolist()
    positive, negative = [], []
    for q, t, known in zip(p, target.flatten().tolist(), mask.flatten().tolist()):
        if known and int(t):
            positive.append(-np.log(q))
        elif known and int(1 - t):
            negative.append(-np.log(1 - q))
    count = min(len(negative), int(3.0 * len(positive)))
    if not positive and empty == 'all':
        count = len(negative)
    chosen = positive + sorted(negative)[len(negative) - count :]
    return sum(chosen) / (len(chosen) + 1e-6)


@pytest.mark.parametrize('soft', [0.0, 0.2])
@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('positives', [0.05, 0.5])
def test_is_the_procedure_of_the_authors(positives, masked, soft):
    logits, target, mask = maps(positives, soft)
    mask = mask if masked else torch.ones_like(mask)
    expected = procedure(logits, target, mask, 'nothing')
    found = BalancedBCELoss()(logits, target, mask=mask if masked else None)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_an_image_without_positives():
    logits, target, mask = maps(0.0)
    expected = procedure(logits, target, mask, 'all')
    found = BalancedBCELoss()(logits, target, mask=mask)
    assert found.item() == pytest.approx(expected, rel=1e-6)
    found.backward()
    assert (logits.grad != 0).sum() == mask.sum()
    # DB's and MMOCR's 0, attached to the graph.
    nothing = BalancedBCELoss(fallback_negatives=0)(logits, target, mask=mask)
    assert nothing == procedure(logits, target, mask, 'nothing') == 0
    nothing.backward()
    some = BalancedBCELoss(fallback_negatives=7, reduction='none')(logits, target, mask=mask)
    assert (some > 0).sum() == 7


def test_mmocr_counts_fractions_of_soft_targets():
    """The documented difference; MMOCR's formula on a row small enough to write out."""
    logits, target = torch.tensor([[2.0, -4.0, 1.0, 0.5]]), torch.tensor([[1.0, 0.5, 0.0, 0.0]])
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction='none')
    positives = 1 + 0.5
    k = min(int(2 + 0.5), int(3 * positives))
    # The half negative has the weight 0.5 in the ranking, too.
    negatives = torch.stack([0.5 * loss[0, 1], loss[0, 2], loss[0, 3]]).topk(k).values
    mmocr = (loss[0, 0] + 0.5 * loss[0, 1] + negatives.sum()) / (positives + k)
    ours = BalancedBCELoss()(logits, target)
    assert_close(ours, (loss[0, 0] + loss[0, 2] + loss[0, 3]) / 3)
    assert abs(ours - mmocr) > 0.01


def test_unmined_elements_are_zero():
    logits, target, _ = maps()
    loss = BalancedBCELoss(reduction='none')(logits, target)
    positives = int(target.sum())
    assert loss.shape == logits.shape
    assert (loss > 0).sum() == 4 * positives
    assert (loss[target == 1] > 0).all()
    assert_close(BalancedBCELoss()(logits, target), loss.sum() / (4 * positives))
    assert_close(BalancedBCELoss(reduction='sum')(logits, target), loss.sum())
    assert_close(BalancedBCELoss(mean_over='all')(logits, target), loss.mean())


def test_weights_scale_but_do_not_rank():
    logits, target, _ = maps()
    generator = torch.Generator().manual_seed(1)
    weight = torch.rand(logits.shape, generator=generator, dtype=torch.float64) + 0.1
    elements = BalancedBCELoss(reduction='none')(logits, target)
    weighted = BalancedBCELoss()(logits, target, weight)
    assert_close(weighted, (weight * elements).sum() / (elements > 0).sum())


def test_weight_zero_is_neither_positive_nor_negative():
    logits, target, mask = maps(0.3)
    loss = BalancedBCELoss()
    assert_close(loss(logits, target, mask.double()), loss(logits, target, mask=mask))
    half = loss(logits, target, 0.5 * mask.double())
    assert_close(half, 0.5 * loss(logits, target, mask=mask))
    ignored = BalancedBCELoss(use_target_weight=False)(logits, target, mask.double())
    assert_close(ignored, loss(logits, target))


def test_valid_counts_unmined_elements():
    logits, target, mask = maps()
    total = BalancedBCELoss(reduction='sum')(logits, target, mask=mask)
    valid = BalancedBCELoss(mean_over='valid')(logits, target, mask=mask)
    assert_close(valid, total / mask.sum())


def test_mined_elements_are_averaged_over_ranks(monkeypatch):
    counts = []

    def four_times(count):
        counts.append(count)
        return 4 * count

    monkeypatch.setattr('mmloss_plugins.losses.balanced_bce.average_over_ranks', four_times)
    logits, target, _ = maps()
    loss = BalancedBCELoss()(logits, target)
    positives = target.sum()
    assert [count.item() for count in counts] == [4 * positives]
    total = BalancedBCELoss(reduction='sum')(logits, target)
    assert_close(loss, total / (16 * positives))


def test_samples_do_not_depend_on_each_other():
    logits, target, _ = maps(0.1)
    loss = BalancedBCELoss(mine_over='sample', reduction='none')
    alone = [loss(x, t) for x, t in zip(logits.split(1), target.split(1))]
    assert_close(loss(logits, target), torch.cat(alone))
    batch = BalancedBCELoss(reduction='none')(logits, target)
    assert ((batch > 0) != (torch.cat(alone) > 0)).any()


def test_diagnostics_count():
    logits, target, mask = maps()
    values = BalancedBCELoss().diagnostics(logits, target, mask.double())
    positives = (target * mask).sum()
    assert values['positives'] == positives > 0
    assert_close(values['mined_negatives'].double(), 3 * positives)


def test_error_of_a_mask_with_three_dimensions():
    logits, target, mask = maps()
    with pytest.raises(ValueError, match=r'mask must have the shape \(3, 1, 8, 11\)'):
        BalancedBCELoss()(logits, target, mask=mask[:, 0])


def packed_samples(codec):
    rng = np.random.default_rng(0)
    encoder = KEYPOINT_CODECS.build(codec)
    samples = []
    for index in range(3):
        points = rng.uniform((8, 8), np.array(INPUT_SIZE) - 9, (1, K, 2)).astype(np.float32)
        visible = (np.arange(K)[None] != index).astype(np.float32)
        encoded = encoder.encode(keypoints=points, keypoints_visible=visible)
        sample = PoseDataSample(metainfo=dict(input_size=INPUT_SIZE))
        weights = torch.as_tensor(encoded['keypoint_weights'])
        sample.gt_instance_labels = InstanceData(keypoint_weights=weights)
        sample.gt_fields = PixelData(heatmaps=torch.as_tensor(encoded['heatmaps']))
        samples.append(sample)
    return samples


def test_stock_heatmap_head_learns():
    """(B, K, H, W) with weights (B, K); targets between the thresholds are left out."""
    codec = dict(type='MSRAHeatmap', input_size=INPUT_SIZE, heatmap_size=(16, 24), sigma=2)
    loss = dict(type='mmloss_plugins.BalancedBCELoss', pos_threshold=0.5, neg_threshold=0.1)
    with DefaultScope.overwrite_default_scope('mmpose'):
        head = MODELS.build(
            dict(
                type='HeatmapHead',
                in_channels=8,
                out_channels=K,
                deconv_out_channels=None,
                loss=loss,
                decoder=codec,
            )
        )
        samples = packed_samples(codec)
    feats = (torch.randn(3, 8, 24, 16).requires_grad_(),)
    optimizer = torch.optim.Adam([*head.parameters(), feats[0]], lr=0.1)
    values = []
    for _ in range(25):
        optimizer.zero_grad()
        value = head.loss(feats, samples)['loss_kpt']
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.5 * values[0], values
    pred = head.forward(feats).detach().requires_grad_()
    heatmaps = torch.stack([sample.gt_fields.heatmaps for sample in samples])
    weights = torch.cat([s.gt_instance_labels.keypoint_weights for s in samples])
    head.loss_module(pred, heatmaps, weights).backward()
    assert (pred.grad[weights == 0] == 0).all()
    assert (pred.grad[weights == 1] != 0).flatten(1).any(1).all()
    assert (pred.grad[(heatmaps > 0.11) & (heatmaps < 0.49)] == 0).all()
