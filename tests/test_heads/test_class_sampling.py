"""Heads that compare with some of the classes: gradients, options, evaluation, optimizers."""

from __future__ import annotations

import math

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.optim import build_optim_wrapper
from torch.testing import assert_close

from mmloss_plugins import functional as F
from mmloss_plugins.functional import value_checks
from mmloss_plugins.heads import ArcFaceHead, ModifiedSoftmaxHead, NormFaceHead, SoftmaxHead
from tests.contract.test_device import NoSync
from tests.test_heads.softmax_cases import LABELS, SMOOTH, build, features, gradients, loss_of

HEADS = [NormFaceHead, ArcFaceHead]
C = 40
SEED = 5


def sampling(head, **options):
    return build(head, **{'num_classes': C, 'sample_rate': 0.25, **options})


def drawn(labels=LABELS, ignore_index=-1, rate=0.25):
    """The classes that a head draws first after the seed, and the positions of the labels."""
    torch.manual_seed(SEED)
    found = F.sample_classes(labels, C, sample_rate=rate, ignore_index=ignore_index)
    torch.manual_seed(SEED)
    return found


@pytest.mark.parametrize('head', HEADS)
def test_all_classes_are_the_plain_head(head):
    every, x = build(head, sample_rate=1.0), features()
    state = torch.get_rng_state()
    found = gradients(every, x)
    assert torch.equal(torch.get_rng_state(), state)
    for ours, plain in zip(found, gradients(build(head), x)):
        assert_close(ours, plain, rtol=0, atol=0)


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('chunk_size', [None, 3])
@pytest.mark.parametrize('centres', [1, 3])
def test_a_head_of_the_drawn_classes_alone(head, chunk_size, centres):
    x, head = features(), sampling(head, chunk_size=chunk_size, num_subcenters=centres)
    classes, position = drawn()
    found = gradients(head, x)
    few = build(type(head), num_classes=10, num_subcenters=centres)
    few.weight.data = head.weight.data[classes]
    expected = gradients(few, x, position)
    assert_close(found[0], expected[0])
    assert_close(found[1][classes], expected[1])
    others = torch.ones(C, dtype=torch.bool).index_fill_(0, classes, False)
    assert others.sum() == 30
    assert (found[1][others] == 0).all()
    assert (found[1][classes] != 0).flatten(1).any(1).all()


@pytest.mark.parametrize(('rate', 'classes'), [(0.25, 10), (1.0, C)])
def test_chunks_and_classes_of_the_loss(monkeypatch, rate, classes):
    seen, loss = [], F.margin_cross_entropy

    def spy(x, weight, labels, **options):
        seen.append((len(weight), options['chunk_size']))
        return loss(x, weight, labels, **options)

    monkeypatch.setattr(F, 'margin_cross_entropy', spy)
    loss_of(sampling(ArcFaceHead, chunk_size=3, sample_rate=rate), features())
    assert seen == [(classes, 3)]


def test_each_step_draws_anew_and_the_batch_is_always_there():
    head, x = sampling(ArcFaceHead), features()
    torch.manual_seed(SEED)
    rows = [gradients(head, x)[1].ne(0).any(1) for _ in range(30)]
    assert all(each[LABELS].all() for each in rows)
    assert torch.stack(rows).any(0).all()


@pytest.mark.parametrize('head', HEADS)
def test_evaluation_is_over_all_classes(head):
    some, every = sampling(head, accuracy=True), build(head, num_classes=C, accuracy=True)
    x = features()
    assert_close(some.predict(x), every.predict(x), rtol=0, atol=0)
    losses = some.loss(x, LABELS)
    assert losses['acc_cls'] == every.loss(x, LABELS)['acc_cls']
    assert losses['loss_cls'] < loss_of(every, x)
    assert_close(loss_of(some.eval(), x), loss_of(every, x), rtol=0, atol=0)


def test_margins_of_the_drawn_classes():
    margins = torch.linspace(0.1, 0.9, C).tolist()
    head, x = sampling(ArcFaceHead, margin=margins, scale=8.0), features()
    classes, position = drawn()
    expected = F.margin_cross_entropy(
        x,
        head.weight[classes],
        position,
        scale=8.0,
        margins=(1.0, head.class_margins[classes], 0.0),
    )
    assert_close(loss_of(head, x), expected.mean())
    # One sample: its own margin, 0.1 + 0.8 * 7 / 39.
    one = sampling(ArcFaceHead, margin=0.1 + 0.8 * 7 / 39, scale=8.0)
    label = torch.tensor([7])
    torch.manual_seed(SEED)
    expected = loss_of(one, x[:1], label)
    torch.manual_seed(SEED)
    assert_close(loss_of(head, x[:1], label), expected)


@pytest.mark.parametrize('ignore_index', [-1, 3, 255])
def test_ignored_samples(ignore_index):
    head, x = sampling(ArcFaceHead, ignore_index=ignore_index), features()
    broken = x.detach().clone()
    broken[1] = math.nan
    broken.requires_grad_()
    labels = torch.tensor([0, ignore_index, 6, 9, 1])
    kept = [0, 2, 3, 4]
    classes, position = drawn(labels, ignore_index)
    expected = F.margin_cross_entropy(x[kept], head.weight[classes], position[kept])
    assert_close(loss_of(head, broken, labels), expected.mean())
    torch.manual_seed(SEED)
    by_x, by_w = gradients(head, broken, labels)
    assert (by_x[1] == 0).all()
    assert (by_x[kept] != 0).any(1).all()
    assert by_w.isfinite().all()


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('labels', [torch.full((5,), -1), torch.zeros(0, dtype=torch.int64)])
def test_nothing_to_learn_from(head, labels):
    head, x = sampling(head), features().detach()[: len(labels)].requires_grad_()
    assert loss_of(head, x, labels).item() == 0
    for gradient in gradients(head, x, labels):
        assert gradient.count_nonzero() == 0


def test_half_features_and_schedule():
    linear = dict(type='linear', start=0.2, stop=0.4, end=4)
    head, x = sampling(ArcFaceHead, margin=linear), features(torch.float16)
    torch.manual_seed(SEED)
    losses = head.loss(x, LABELS)
    assert losses['margin'].item() == pytest.approx(0.2)
    assert losses['loss_cls'].dtype == torch.float32
    same = sampling(ArcFaceHead, margin=0.2)
    torch.manual_seed(SEED)
    assert_close(losses['loss_cls'], loss_of(same, x.float()), rtol=1e-5, atol=1e-6)


def test_no_sync():
    head, x = sampling(ArcFaceHead), features()
    classes, _ = drawn()
    with value_checks(False), NoSync():
        head.loss(x, LABELS)['loss_cls'].backward()
    assert head.weight.grad.ne(0).any(1).sum() == len(classes) == 10


def test_state_is_that_of_the_plain_head():
    assert set(sampling(ArcFaceHead).state_dict()) == {'weight'}


class Model(BaseModule):
    """A model as MMEngine's optimizers see it."""

    def __init__(self, head):
        super().__init__()
        self.head = head


def rows_moved(optimizer, paramwise_cfg=None, steps=1):
    """Return which rows an optimizer moves in its last step, of those that were not drawn then."""
    model = Model(sampling(ArcFaceHead))
    config = dict(optimizer=optimizer)
    if paramwise_cfg is not None:
        config['paramwise_cfg'] = paramwise_cfg
    wrapper, weight = build_optim_wrapper(model, config), model.head.weight
    torch.manual_seed(SEED)
    for _ in range(steps):
        before = weight.detach().clone()
        wrapper.zero_grad()
        wrapper.backward(loss_of(model.head, features().detach()))
        idle = (weight.grad == 0).all(1)
        wrapper.step()
    assert idle.sum() == 30
    return (weight.data != before).any(1)[idle]


def test_optimizers_move_what_was_not_drawn_and_the_way_out():
    sgd = dict(type='SGD', lr=0.1)
    assert not rows_moved(sgd).any()
    assert rows_moved(dict(sgd, weight_decay=0.1)).all()
    no_decay = dict(custom_keys={'head.weight': dict(decay_mult=0.0)})
    assert not rows_moved(dict(sgd, weight_decay=0.1), no_decay).any()
    # Momentum goes on with what was drawn in an earlier step.
    assert rows_moved(dict(sgd, momentum=0.9), steps=3).any()
    assert not rows_moved(sgd, steps=3).any()


def test_the_sparse_gradient_of_the_docstring():
    weights = torch.randn(C, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    classes, position = drawn()
    x = features().detach()
    grads = {}
    for sparse in (False, True):
        rows = torch.nn.functional.embedding(classes, weights, sparse=sparse)
        loss = F.margin_cross_entropy(x, rows, position).sum()
        (grads[sparse],) = torch.autograd.grad(loss, [weights])
    assert grads[True].layout == torch.sparse_coo
    assert grads[True].coalesce().indices()[0].tolist() == classes.tolist()
    assert_close(grads[True].to_dense(), grads[False])


def test_it_learns():
    """Forty classes around as many directions, five to seven of them per step."""
    generator = torch.Generator().manual_seed(3)
    centres = torch.nn.functional.normalize(torch.randn(C, 16, generator=generator))
    head = sampling(ArcFaceHead, in_channels=16, scale=16.0, sample_rate=0.15)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.5)

    def share_right():
        x = centres + 0.05 * torch.randn(C, 16, generator=generator)
        return (head.predict(x).argmax(1) == torch.arange(C)).float().mean()

    assert share_right() < 0.2
    for _ in range(150):
        labels = torch.randint(C, (5,), generator=generator)
        x = centres[labels] + 0.05 * torch.randn(5, 16, generator=generator)
        optimizer.zero_grad()
        loss_of(head, x, labels).backward()
        optimizer.step()
    assert share_right() > 0.9


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        (dict(sample_rate=0.0), ValueError, r'sample_rate must be within \(0, 1\], got 0\.0'),
        (dict(sample_rate=1.5), ValueError, r'sample_rate must be within \(0, 1\], got 1\.5'),
        (dict(sample_rate='all'), ValueError, r"sample_rate must be within \(0, 1\], got 'all'"),
        (dict(loss=SMOOTH), ValueError, 'sample_rate must be 1 with a loss on logits, got 0.25'),
        (dict(sample_rat=0.1), TypeError, "got 'sample_rat'. Did you mean 'sample_rate'?"),
    ],
)
def test_mistakes_die_in_the_constructor(head, options, error, text):
    with pytest.raises(error, match=f'{head.__name__}: .*{text}'):
        sampling(head, **options)


@pytest.mark.parametrize('head', [SoftmaxHead, ModifiedSoftmaxHead])
def test_heads_without_sampling_say_so(head):
    with pytest.raises(TypeError, match="got 'sample_rate'"):
        sampling(head)
