"""NonFiniteGuardHook with what MMEngine and MMPose bring: GradScaler, processes, a stock head."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import AmpOptimWrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.registry import DefaultScope
from mmpose.registry import MODELS
from mmpose.testing import get_packed_inputs
from torch import multiprocessing
from torch.testing import assert_close

from tests.test_hooks import toys
from tests.test_hooks.toys import Recorder, ToyModel, scalar, toy_runner


def scaled(runner, monkeypatch, scale=1024.0):
    """Turn the wrapper into an AmpOptimWrapper, whose constructor insists on a GPU."""
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of the scaler for a GPU, replaced below
        wrapper = AmpOptimWrapper(optimizer=runner.optim_wrapper.optimizer, dtype='bfloat16')
    wrapper.loss_scaler = torch.amp.GradScaler('cpu', init_scale=scale)
    runner.optim_wrapper = wrapper
    return wrapper


@pytest.mark.parametrize('action', ['stop', 'skip'])
def test_a_grad_scaler_may_overflow(tmp_path, monkeypatch, action):
    recorder = Recorder()
    model = ToyModel({2: toys.nan_gradient, 3: toys.nan_gradient})
    runner = toy_runner(model, tmp_path, dict(interval=1, action=action, max_in_a_row=2))
    wrapper = scaled(runner, monkeypatch)
    runner.register_hook(recorder)
    runner.train()
    assert wrapper.loss_scaler.get_scale() == 256
    assert_close(recorder.states[2], recorder.states[0], rtol=0, atol=0)
    assert recorder.states[3][0]['first'][0] < recorder.states[2][0]['first'][0]
    if action == 'skip':
        assert scalar(runner, 'skipped_updates') == 2


@pytest.mark.parametrize('action', ['stop', 'skip'])
def test_a_grad_scaler_that_finds_no_scale_stops(tmp_path, monkeypatch, action):
    model = ToyModel(dict.fromkeys(range(2, 7), toys.nan_gradient))
    runner = toy_runner(model, tmp_path, dict(interval=1, action=action, max_in_a_row=2))
    scaled(runner, monkeypatch)
    with pytest.raises(FloatingPointError, match=r'second at .* Updates left out in a row: 3'):
        runner.train()
    assert runner.iter + 1 == 4


@pytest.mark.parametrize('fault', [toys.nan_loss, toys.constant_nan_loss])
def test_a_loss_under_a_grad_scaler_has_to_be_finite(tmp_path, monkeypatch, fault):
    model = ToyModel({2: fault})
    runner = toy_runner(model, tmp_path / 'stop', dict(interval=1))
    scaled(runner, monkeypatch)
    with pytest.raises(FloatingPointError, match='loss_a at iteration 2 must be finite'):
        runner.train()
    recorder, model = Recorder(), ToyModel({2: fault})
    runner = toy_runner(model, tmp_path / 'skip', dict(interval=50, action='skip'))
    wrapper = scaled(runner, monkeypatch)
    runner.register_hook(recorder)
    runner.train()
    assert_close(recorder.states[1], recorder.states[0], rtol=0, atol=0)
    # The scale is not to blame for a loss that is NaN before it is scaled.
    assert wrapper.loss_scaler.get_scale() == 1024
    assert scalar(runner, 'skipped_updates') == 1


def run_rank(rank: int, folder: str) -> None:
    """Train a toy in one of two processes; the loss of rank 1 is NaN in iteration 2 alone."""
    os.environ.setdefault('GLOO_SOCKET_IFNAME', 'lo')
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=2)
    found = {}
    for action in ('skip', 'stop'):
        fault = {2: toys.constant_nan_loss} if rank == 1 else None
        model = MMDistributedDataParallel(ToyModel(fault))
        hook = dict(interval=3, action=action)
        runner = toy_runner(model, Path(folder) / f'{action}{rank}', hook)
        recorder = Recorder()
        runner.register_hook(recorder)
        try:
            runner.train()
            found[action] = [parameters for parameters, _ in recorder.states]
            found['skipped'] = scalar(runner, 'skipped_updates')
        except FloatingPointError as error:
            found[action] = str(error)
    torch.save(found, Path(folder) / f'{rank}.pt')
    dist.barrier()
    dist.destroy_process_group()


def test_ranks_decide_alike(tmp_path):
    multiprocessing.spawn(run_rank, (str(tmp_path),), nprocs=2)
    found = [torch.load(tmp_path / f'{rank}.pt', weights_only=False) for rank in range(2)]
    # Each rank sees every other batch element: rank 1 has the images b.
    text = 'loss_a at iteration 2 must be finite, got nan for 3b.png, 4b.png. '
    for result in found:
        assert result['stop'].startswith(f'rank 1: NonFiniteGuardHook: {text}')
        assert_close(result['skip'][1], result['skip'][0], rtol=0, atol=0)
        assert result['skip'][2]['module.first'][0] < result['skip'][1]['module.first'][0]
        assert result['skipped'] == 1
    assert_close(found[0]['skip'], found[1]['skip'], rtol=0, atol=0)


def dsnt_runner(work_dir, hook, hidden_in):
    """Return a Runner of MMPose's DSNT config at 64 x 64; one joint is hidden in one iteration."""
    with DefaultScope.overwrite_default_scope('mmpose'):
        model = MODELS.build(
            dict(
                type='TopdownPoseEstimator',
                data_preprocessor=dict(type='PoseDataPreprocessor'),
                backbone=dict(type='ResNet', depth=18),
                head=dict(
                    type='DSNTHead',
                    in_channels=512,
                    in_featuremap_size=(2, 2),
                    num_joints=3,
                    deconv_out_channels=(8, 8),
                    deconv_kernel_sizes=(4, 4),
                    loss=dict(
                        type='MultipleLossWrapper',
                        losses=[
                            dict(type='SmoothL1Loss', use_target_weight=True),
                            dict(type='JSDiscretLoss', use_target_weight=True),
                        ],
                    ),
                ),
            )
        )
    samples = []
    for iteration in range(1, 5):
        batch = get_packed_inputs(
            batch_size=2,
            num_keypoints=3,
            img_shape=(64, 64),
            input_size=(64, 64),
            heatmap_size=(8, 8),
        )
        for number, (image, sample) in enumerate(zip(batch['inputs'], batch['data_samples'])):
            sample.set_metainfo(dict(img_path=f'{iteration}{"ab"[number]}.png'))
            if iteration == hidden_in:
                sample.gt_instance_labels.keypoint_weights[:, 1] = 0
            samples.append(dict(inputs=image, data_samples=sample))
    return toy_runner(
        model,
        work_dir,
        hook,
        iterations=4,
        train_dataloader=dict(
            batch_size=2,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=samples,
            collate_fn=dict(type='pseudo_collate'),
        ),
        optimizer=dict(type='SGD', lr=1e-4),
    )


def test_the_invisible_joint_of_the_stock_dsnt_head(tmp_path):
    """JSDiscretLoss: finite loss, NaN gradient, as soon as one joint has weight 0."""
    runner = dsnt_runner(tmp_path, dict(interval=4), hidden_in=3)
    with pytest.raises(FloatingPointError) as caught:
        runner.train()
    text = str(caught.value)
    assert text.startswith('NonFiniteGuardHook: gradient of head.')
    assert 'more parameters at iteration 3 must be finite, got nan for 3a.png, 3b.png. ' in text
    assert 'Its loss is finite, so a backward pass is at fault' in text
    losses = runner.message_hub.get_scalar('train/loss_kpt').data[0]
    assert torch.tensor(losses[:3]).isfinite().all()


def test_the_stock_dsnt_head_learns_past_the_invisible_joint(tmp_path):
    runner = dsnt_runner(tmp_path, dict(interval=4, action='skip'), hidden_in=3)
    recorder = Recorder()
    runner.register_hook(recorder)
    runner.train()
    states = [parameters for parameters, _ in recorder.states]
    assert_close(states[2], states[1], rtol=0, atol=0)
    name = 'backbone.conv1.weight'
    assert (states[3][name] != states[2][name]).any()
    assert all(p.isfinite().all() for p in states[3].values())
    assert scalar(runner, 'skipped_updates') == 1
