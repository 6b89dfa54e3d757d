"""CenterLoss: centres move as in the paper, on two processes too, and go on after a resume."""

from __future__ import annotations

import copy
import math
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from mmengine.optim import build_optim_wrapper
from torch import multiprocessing, nn
from torch.testing import assert_close

from mmloss_plugins.losses import CenterLoss
from mmloss_plugins.registry import MODELS

B, C, D = 8, 3, 2
TARGET = torch.tensor([0, 0, 0, 2, 2, 1, -1, 2])
WORLD = 2


def features_of(seed=0):
    return 3 * torch.randn(B, D, generator=torch.Generator().manual_seed(seed))


def moving(**options):
    return CenterLoss(C, D, update='moving_average', **options)


def step_of_the_paper(centers, features, target, rate, weight):
    """Algorithm 1, one sample at a time."""
    moved = centers.clone()
    for j in range(len(centers)):
        delta, count = torch.zeros(D), 1.0
        for x, y, w in zip(features, target, weight):
            if y == j:
                delta += w * (centers[j] - x)
                count += w
        moved[j] -= rate * delta / count
    return moved


def test_by_hand():
    # Centres at the origin: halves of 25 and 4, their mean 7.25; the un-squared form of the
    # write-ups is sqrt(29) / (2 * 2).
    features, target = torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([0, 1])
    assert_close(CenterLoss(2, 2)(features, target), torch.tensor(7.25))
    assert_close(CenterLoss(2, 2, loss_weight=0.2)(features, target), torch.tensor(1.45))
    printed = CenterLoss(2, 2, distance='frobenius')
    assert_close(printed(features, target), torch.tensor(math.sqrt(29) / 4))
    # A switched off sample has no part in the norm, and 'mean' still divides by 2.
    off = printed(features, target, torch.tensor([1.0, 0.0]))
    assert_close(off, torch.tensor(5 / 4))


def test_mean_over_valid_leaves_out_ignored_samples():
    loss = CenterLoss(C, D, mean_over='valid')
    features = features_of()
    kept = TARGET >= 0
    expected = features[kept].square().sum(1).mean() / 2
    assert_close(loss(features, TARGET), expected)
    assert_close(CenterLoss(C, D)(features, TARGET), expected * 7 / 8)


def test_a_parameter_learns_by_gradient():
    """Its own learning rate undoes loss_weight, with the optim wrapper of a config."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(D, D)
            self.center_loss = CenterLoss(C, D, loss_weight=0.01, reduction='sum')

    model = Model()
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='SGD', lr=0.5),
            paramwise_cfg=dict(custom_keys={'center_loss.centers': dict(lr_mult=100.0)}),
        ),
    )
    features = features_of()
    wrapper.update_params(model.center_loss(features, TARGET))
    for j in range(C):
        assert_close(model.center_loss.centers[j].detach(), 0.5 * features[j == TARGET].sum(0))


def test_a_moving_average_is_that_of_the_paper():
    loss, features = moving(rate=0.3, init_std=1.0), features_of()
    weight = torch.tensor([1.0, 0.5, 0.0, 1.0, 2.0, 1.0, 1.0, 1.0])
    mask = torch.tensor([True] * 7 + [False])
    before = loss.centers.clone()
    value = loss(features, TARGET, weight, mask)
    kept = torch.where(mask, TARGET, -1)
    expected = step_of_the_paper(before, features, kept, 0.3, weight)
    assert (expected != before).all()
    assert_close(loss.centers, expected)
    assert not list(loss.parameters())
    # The value is that of the centres before the step.
    old = CenterLoss(C, D)
    old.load_state_dict({'centers': before})
    assert_close(value, old(features, TARGET, weight, mask).detach())


def test_the_gradient_is_that_of_the_centres_before_the_step():
    loss, features = moving(init_std=1.0), features_of().requires_grad_()
    before = loss.centers.clone()
    loss(features, TARGET, reduction_override='sum').backward()
    expected = torch.where((TARGET >= 0)[:, None], features - before[TARGET.clamp(min=0)], 0)
    assert_close(features.grad, expected.detach())


def test_evaluation_moves_nothing():
    loss = moving().eval()
    loss(features_of(), TARGET)
    assert (loss.centers == 0).all()
    unweighted, weighted = moving(use_target_weight=False), moving()
    weight = torch.zeros(B)
    for trained in (unweighted, weighted):
        trained(features_of(), TARGET, weight)
    assert (unweighted.centers != 0).all()
    assert (weighted.centers == 0).all()


def test_an_overflow_does_not_stay_in_the_centres():
    loss, features = moving(), features_of()
    features[0] = math.inf
    assert not loss(features, TARGET).isfinite()
    assert loss.centers.isfinite().all()
    assert (loss.centers != 0).all()


def test_resume_goes_on_where_it_stopped():
    """Two steps in one run, and with a checkpoint in between, in either way of moving."""
    for update in ('gradient', 'moving_average'):
        config = dict(
            type='mmloss_plugins.CenterLoss', num_classes=C, feat_dim=D, update=update, init_std=1.0
        )
        whole = MODELS.build(config)
        whole(features_of(0), TARGET)
        resumed = MODELS.build(config)
        resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
        for loss in (whole, resumed):
            loss(features_of(1), TARGET)
        assert_close(resumed.centers, whole.centers, rtol=0, atol=0)
        assert list(whole.state_dict()) == ['centers']


def test_centres_find_the_classes():
    """The average of a class stays; a class without a sample does too."""
    loss, features = moving(), features_of()
    for _ in range(100):
        loss(features, torch.where(TARGET == 1, -1, TARGET))
    assert_close(loss.centers[0], features[TARGET == 0].mean(0))
    assert (loss.centers[1] == 0).all()


def run_rank(rank, folder):
    """Step with this rank's share of the batch: 5 samples and 3."""
    os.environ.setdefault('GLOO_SOCKET_IFNAME', 'lo')
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=WORLD)
    share = slice(0, 5) if rank == 0 else slice(5, B)
    loss = moving(rate=0.3)
    for seed in (0, 1):
        loss(features_of(seed)[share], TARGET[share])
    torch.save(loss.centers, Path(folder) / f'{rank}.pt')
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_move_the_centres_of_one(tmp_path):
    multiprocessing.spawn(run_rank, (str(tmp_path),), nprocs=WORLD)
    whole = moving(rate=0.3)
    for seed in (0, 1):
        whole(features_of(seed), TARGET)
    for rank in range(WORLD):
        assert_close(torch.load(tmp_path / f'{rank}.pt'), whole.centers)


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(num_classes=0), 'num_classes must be a positive integer, got 0'),
        (dict(feat_dim=2.0), 'feat_dim must be a positive integer, got 2.0'),
        (dict(update='ema'), "update must be one of 'gradient', 'moving_average'"),
        (dict(rate=1.5), r'rate must be within \(0, 1\], got 1.5'),
        (dict(init_std=-1.0), 'init_std must be at least 0'),
    ],
)
def test_bad_options(options, text):
    with pytest.raises(ValueError, match=text):
        CenterLoss(**{**dict(num_classes=C, feat_dim=D), **options})


def test_an_embedding_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r'centers must have the shape .*feat_dim of CenterLoss'):
        CenterLoss(C, D)(torch.zeros(B, D + 1), TARGET)
