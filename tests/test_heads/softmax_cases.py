"""Heads of the softmax family and a batch for their tests."""

from __future__ import annotations

import torch

from mmloss_plugins.heads import ArcFaceHead, ModifiedSoftmaxHead, NormFaceHead, SoftmaxHead

HEADS = [SoftmaxHead, ModifiedSoftmaxHead, NormFaceHead, ArcFaceHead]
SMOOTH = dict(type='mmloss_plugins.LabelSmoothLoss', smoothing=0.1, spread='all')
LABELS = torch.tensor([0, 3, 6, 3, 1])


def build(head, **options):
    torch.manual_seed(1)
    return head(**{'in_channels': 4, 'num_classes': 7, **options})


def features(dtype=torch.float32):
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(2)) * 3
    return x.to(dtype).requires_grad_()


def loss_of(head, x, labels=LABELS):
    return head.loss(x, labels)['loss_cls']


def gradients(head, x, labels=LABELS):
    return torch.autograd.grad(loss_of(head, x, labels), [x, *head.parameters()])
