"""What torchrun starts in each process for test_sharded_training.py: runs of a digits mini."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import distributed as dist

CONFIG = 'configs/recognition/digits/arcface_mini_lenet_digits-2d.py'
ROOT = Path(__file__).resolve().parents[2]
HOOK = dict(type='mmloss_plugins.ShardedWeightsHook')
GUARD = dict(type='mmloss_plugins.NonFiniteGuardHook', interval=2, action='skip')
STEPS = 6


def build(folder, name, hooks=(HOOK,), launcher='none', **options):
    """Return the runner of a short run with sharded classes."""
    cfg = Config.fromfile(ROOT / CONFIG)
    cfg.merge_from_dict(
        {
            'work_dir': f'{folder}/{name}',
            'experiment_name': name,
            'launcher': launcher,
            'custom_hooks': list(hooks),
            'model.head.shard_classes': True,
            'model.head.accuracy': True,
            'train_dataloader.batch_size': 16,
            'val_dataloader.batch_size': 180,
            'default_hooks.checkpoint.interval': 3,
            'default_hooks.checkpoint.save_best': 'class/accuracy',
            'default_hooks.checkpoint.rule': 'greater',
            'train_cfg.max_iters': STEPS,
            'train_cfg.val_interval': STEPS,
            'log_level': 'WARNING',
            # On a GPU PyTorch takes all parameters at a time unless told otherwise.
            'optim_wrapper.optimizer.foreach': True,
            'optim_wrapper.clip_grad': dict(max_norm=0.5),
            # MMEngine hands over a GPU if it is not told that there is none.
            'model_wrapper_cfg': dict(type='MMDistributedDataParallel', device_ids=None),
            **options,
        }
    )
    return Runner.from_cfg(cfg)


def train(runner):
    """Train; return the losses, gradient norms and accuracies of each step, and the metrics."""
    runner.train()
    scalars = runner.message_hub.log_scalars
    names = ('loss', 'grad_norm', 'acc_cls')
    found = {name: scalars[f'train/{name}'].data[0].tolist() for name in names}
    # Each rank has its own averages of BatchNorm, of which a checkpoint has those of the first.
    for buffer in runner.model.module.buffers():
        dist.broadcast(buffer, 0)
    found['accuracy'] = float(runner.val_loop.run()['class/accuracy'])
    return {**found, 'end': runner.model.module.head.weight.full_tensor().tolist()}


def error_of(folder, name, error, hooks, **options):
    """Return what a run that must not begin says."""
    try:
        build(folder, name, hooks, 'pytorch', **options).train()
    except error as caught:
        return str(caught)
    return 'nothing'


def main(folder):
    torch.set_num_threads(1)
    # MMEngine begins a group of PyTorch's launcher with a GPU; one that is there it takes as it is.
    dist.init_process_group('gloo')
    runner = build(folder, 'whole', (HOOK, GUARD), 'pytorch')
    found = {'whole': train(runner)}
    found['rows'] = len(runner.model.module.head.weight.to_local())
    saved = f'{folder}/whole/iter_3.pth'
    runner = build(folder, 'resumed', launcher='pytorch', load_from=saved, resume=True)
    found['resumed'] = train(runner)
    found['no hook'] = error_of(folder, 'none', ValueError, ())
    found['EMA'] = error_of(folder, 'ema', TypeError, (HOOK, dict(type='EMAHook')))
    torch.save(found, f'{folder}/{dist.get_rank()}.pt')
    dist.barrier()
    dist.destroy_process_group()


if __name__ == '__main__':
    main(sys.argv[1])
