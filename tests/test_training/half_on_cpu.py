"""Imported by configs of this folder's tests: training in half precision without a GPU.

MMEngine refuses ``AmpOptimWrapper`` there, and float16 in its autocast; PyTorch can do both.
"""

from __future__ import annotations

from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

amp_optimizer_wrapper.is_cuda_available = lambda: True


@OPTIM_WRAPPERS.register_module()
class Float16OptimWrapper(AmpOptimWrapper):
    """AmpOptimWrapper in float16 with a loss scale, on any device."""

    def __init__(self, **options):
        super().__init__(dtype='float16', **options)
        self.loss_scaler = torch.amp.GradScaler(get_device())

    @contextmanager
    def optim_context(self, model):
        with OptimWrapper.optim_context(self, model), torch.autocast(get_device(), torch.float16):
            yield


def say_precision(module, inputs, output):
    if module.training and isinstance(module, nn.Conv2d):
        print(f'in training, convolutions give {output.dtype}', flush=True)
        handle.remove()


handle = nn.modules.module.register_module_forward_hook(say_precision)
