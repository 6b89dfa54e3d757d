"""What the heads of the softmax family refuse, and what they say."""

from __future__ import annotations

import re

import pytest
import torch

from mmloss_plugins.heads import ArcFaceHead, ModifiedSoftmaxHead, NormFaceHead, SoftmaxHead

HEADS = [SoftmaxHead, ModifiedSoftmaxHead, NormFaceHead, ArcFaceHead]
SMOOTH = dict(type='mmloss_plugins.LabelSmoothLoss')
LINEAR = dict(type='linear', start=0.0, stop=0.5, end=10)


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        (dict(num_classes=0), ValueError, 'num_classes must be a positive integer, got 0'),
        (dict(in_channels=2.0), ValueError, 'in_channels must be a positive integer, got 2.0'),
        (dict(accuracy=1), TypeError, 'accuracy must be True or False, got 1'),
        (dict(with_scores='no'), TypeError, "with_scores must be True or False, got 'no'"),
        (dict(weight_init='ring'), ValueError, "weight_init must be one of 'xavier', 'circle'"),
        (dict(weight_init='circle'), ValueError, "in_channels must be 2 with weight_init='circle'"),
        (dict(loss='ce'), TypeError, "loss must be the config of a loss, got 'ce'"),
        (dict(acuracy=True), TypeError, "got 'acuracy'. Did you mean 'accuracy'?"),
    ],
)
def test_mistakes_die_in_every_constructor(head, options, error, text):
    with pytest.raises(error, match=re.escape(text)):
        head(**{'in_channels': 4, 'num_classes': 7, **options})


@pytest.mark.parametrize(
    ('head', 'options', 'error', 'text'),
    [
        (SoftmaxHead, dict(bias=0), TypeError, 'bias must be True or False, got 0'),
        (SoftmaxHead, dict(num_subcenters=2), ValueError, 'num_subcenters must be 1, got 2. Take'),
        (SoftmaxHead, dict(scale=8.0), TypeError, "got 'scale'"),
        (NormFaceHead, dict(scale=0), ValueError, 'scale must be a positive number, got 0'),
        (NormFaceHead, dict(scale='atuo'), ValueError, "Did you mean 'auto'?"),
        (NormFaceHead, dict(scale='auto', num_classes=2), ValueError, 'of at least 3, got 2'),
        (NormFaceHead, dict(num_subcenters=0), ValueError, 'num_subcenters must be a positive'),
        (NormFaceHead, dict(chunk_size=0), ValueError, 'chunk_size must be a positive integer'),
        (NormFaceHead, dict(chunk_size=4, loss=SMOOTH), ValueError, 'chunk_size must be None with'),
        (NormFaceHead, dict(margin=0.1), TypeError, "got 'margin'"),
        (ArcFaceHead, dict(margin=-0.1), ValueError, 'angular margin must be within [0, 3.142)'),
        (ArcFaceHead, dict(margin=28.6), ValueError, 'got 28.6. Radians: 0.5 is 28.6 degrees'),
        (
            ArcFaceHead,
            dict(margin='0.5'),
            TypeError,
            "margin must be a number or a schedule, got '",
        ),
        (
            ArcFaceHead,
            dict(margin=dict(LINEAR, stop=9.0)),
            ValueError,
            'within [0, 3.142), got 9.0',
        ),
        (ArcFaceHead, dict(margin=dict(LINEAR, type='lin')), ValueError, "one of 'linear', 'step'"),
        (ArcFaceHead, dict(margin=dict(LINEAR, end=0)), ValueError, 'begin and end of margin must'),
        (
            ArcFaceHead,
            dict(margin=[0.1, 0.2]),
            ValueError,
            'one value for each of 7 classes, got 2',
        ),
        (ArcFaceHead, dict(margin=[4.0] * 7), ValueError, 'within [0, 3.142), got 4.0'),
        (ArcFaceHead, dict(margin=['a'] * 7), TypeError, 'margin must hold numbers'),
        (ArcFaceHead, dict(cosine_margin=-1), ValueError, 'cosine margin must be within [0, inf)'),
        (ArcFaceHead, dict(angle_factor=0), ValueError, 'm1 must be a positive number, got 0'),
        (
            ArcFaceHead,
            dict(rule='hard'),
            ValueError,
            "rule must be one of 'monotonic', 'easy', 'of",
        ),
    ],
)
def test_mistakes_die_in_the_constructor(head, options, error, text):
    with pytest.raises(error, match=re.escape(text)):
        head(**{'in_channels': 4, 'num_classes': 7, **options})


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize(
    ('x', 'labels', 'error', 'text'),
    [
        (torch.rand(5, 3), torch.zeros(5).long(), ValueError, 'Set in_channels'),
        (torch.rand(5, 4, 2, 2), torch.zeros(5).long(), ValueError, 'Pool and flatten the feature'),
        (torch.ones(5, 4).long(), torch.zeros(5).long(), TypeError, 'features must be a floating'),
        (torch.rand(5, 4), torch.zeros(4).long(), ValueError, 'target must have the shape (5,)'),
        (torch.rand(5, 4), torch.zeros(5), TypeError, 'target must be a tensor of integers'),
        (
            torch.rand(5, 4),
            torch.full((5,), 7),
            ValueError,
            'target must be within 0...6 or ignore',
        ),
        (torch.rand(5, 4), torch.full((5,), -2), ValueError, 'got -2 at index (0,)'),
        (torch.rand(5, 4), None, ValueError, 'data_samples must be the labels of the batch, got N'),
        (torch.rand(5, 4), ['a'] * 5, ValueError, 'each data sample must have a gt_label with the'),
        (torch.rand(5, 4), dict(label=1), ValueError, 'data_samples must be the labels of the bat'),
    ],
)
def test_batches_that_do_not_fit(head, x, labels, error, text):
    head = head(in_channels=4, num_classes=7)
    with pytest.raises(error, match=re.escape(text)) as caught:
        head.loss(x, labels)
    assert str(caught.value).startswith(f'{head.what}: ')
