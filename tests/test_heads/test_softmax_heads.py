"""The softmax family: values by hand, oracles, options, schedules, half precision."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import MODELS as ROOT
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from mmloss_plugins.heads import ArcFaceHead, ModifiedSoftmaxHead, NormFaceHead, SoftmaxHead
from tests.test_heads.softmax_cases import (
    HEADS,
    LABELS,
    SMOOTH,
    build,
    features,
    gradients,
    loss_of,
)


@pytest.fixture
def hub():
    with_step = MessageHub.get_current_instance()
    yield with_step
    for name in ('epoch', 'iter'):
        with_step.update_info(name, 0)


class TestByHand:
    """Four classes on the axes of the plane, a sample of length 3 on the first one."""

    X = torch.tensor([[3.0, 0.0]])

    def circle(self, head, **options):
        return head(2, 4, weight_init='circle', **options)

    @pytest.mark.parametrize(
        ('head', 'options', 'logits'),
        [
            (SoftmaxHead, {}, [3, 0, -3, 0]),
            (ModifiedSoftmaxHead, {}, [3, 0, -3, 0]),
            (NormFaceHead, dict(scale=8.0), [8, 0, -8, 0]),
            (ArcFaceHead, dict(scale=8.0), [8 * math.cos(0.5), 0, -8, 0]),
            (ArcFaceHead, dict(scale=8.0, margin=0, cosine_margin=0.35), [8 * 0.65, 0, -8, 0]),
            (ArcFaceHead, dict(scale=2.0, margin=0.3, cosine_margin=0.1), [1.710673, 0, -2, 0]),
        ],
    )
    def test_loss_is_the_cross_entropy_of_these_logits(self, head, options, logits):
        head = self.circle(head, **options)
        expected = math.log(sum(math.exp(z - logits[0]) for z in logits))
        assert loss_of(head, self.X, torch.tensor([0])).item() == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize('head', HEADS)
    def test_prediction_has_no_margin(self, head):
        scale = dict(scale=8.0) if head in (NormFaceHead, ArcFaceHead) else {}
        logits = self.circle(head, **scale).predict(self.X)
        size = 8.0 if scale else 3.0
        assert_close(logits, torch.tensor([[size, 0, -size, 0]]), atol=1e-5, rtol=0)

    def test_beyond_pi(self):
        # Opposite of its class: cos(pi + 0.5) = -0.8776 as it stands; -1 - 0.5 sin(0.5) = -1.2397.
        opposite = torch.tensor([[-1.0, 0.0]])
        for rule, own in (('off', -0.877583), ('monotonic', -1.239713), ('easy', -1.0)):
            head = self.circle(ArcFaceHead, scale=1.0, rule=rule)
            expected = math.log(math.exp(own) + 2 + math.e) - own
            found = loss_of(head, opposite, torch.tensor([0])).item()
            assert found == pytest.approx(expected, rel=1e-5)

    def test_a_margin_for_each_class(self):
        head = self.circle(ArcFaceHead, scale=8.0, margin=[0.1, 0.2, 0.3, 0.4])
        plain = self.circle(ArcFaceHead, scale=8.0, margin=0.3)
        x, label = torch.tensor([[-2.0, 0.5]]), torch.tensor([2])
        assert_close(loss_of(head, x, label), loss_of(plain, x, label))
        assert 'class_margins' not in head.state_dict()

    def test_the_nearest_of_sub_centres(self):
        head = NormFaceHead(2, 2, num_subcenters=2, scale=1.0)
        head.weight.data = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [0.6, 0.8]]])
        x = torch.tensor([[0.0, 2.0]])
        assert_close(head.predict(x), torch.tensor([[1.0, 0.8]]))
        expected = math.log(1 + math.exp(-0.2))
        assert loss_of(head, x, torch.tensor([0])).item() == pytest.approx(expected, rel=1e-5)

    def test_scale_from_the_number_of_classes(self):
        # sqrt(2) log 9
        assert NormFaceHead(2, 10, scale='auto').scale == pytest.approx(3.10734, abs=1e-5)


class TestOracles:
    def test_softmax_is_pytorchs(self):
        head, x = build(SoftmaxHead), features()
        torch.nn.init.normal_(head.bias)
        expected = cross_entropy(x @ head.weight.T + head.bias, LABELS)
        found = gradients(head, x)
        for ours, theirs in zip(found, torch.autograd.grad(expected, [x, *head.parameters()])):
            assert_close(ours, theirs)
        assert_close(loss_of(head, x), cross_entropy(x @ head.weight.T + head.bias, LABELS))

    def test_modified_softmax_is_the_renorm_of_write_ups(self):
        head, x = build(ModifiedSoftmaxHead), features()
        logits = x @ head.weight.T.renorm(2, 1, 1e-5).mul(1e5)
        assert_close(loss_of(head, x), cross_entropy(logits, LABELS), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        ('head', 'name', 'options', 'theirs'),
        [
            (NormFaceHead, 'NormalizedSoftmaxLoss', dict(scale=20.0), dict(temperature=0.05)),
            (
                ArcFaceHead,
                'ArcFaceLoss',
                dict(scale=30.0, margin=0.4),
                dict(scale=30.0, margin=math.degrees(0.4)),
            ),
            (
                ArcFaceHead,
                'CosFaceLoss',
                dict(scale=30.0, margin=0.0, cosine_margin=0.25),
                dict(scale=30.0, margin=0.25),
            ),
        ],
    )
    def test_pytorch_metric_learning(self, head, name, options, theirs):
        losses = pytest.importorskip('pytorch_metric_learning.losses')
        head, x = build(head, **options), features()
        oracle = getattr(losses, name)(num_classes=7, embedding_size=4, **theirs)
        oracle.W.data = head.weight.data.T.clone()
        expected = oracle(x, LABELS)
        assert_close(loss_of(head, x), expected, rtol=1e-5, atol=1e-5)
        by_x, by_w = torch.autograd.grad(expected, [x, oracle.W])
        found = gradients(head, x)
        assert_close(found[0], by_x, rtol=1e-3, atol=1e-4)
        assert_close(found[1], by_w.T, rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize('head', HEADS)
    def test_float64_by_finite_differences(self, head):
        head = build(head).double()
        x = features(torch.float64).detach().div(3).requires_grad_()
        assert torch.autograd.gradcheck(lambda x, *w: loss_of(head, x), [x, *head.parameters()])


class TestOptions:
    @pytest.mark.parametrize('head', HEADS)
    def test_label_smoothing_by_config(self, head):
        head, x = build(head, loss=SMOOTH), features()
        logits = head.margin_logits(x, LABELS)
        assert_close(loss_of(head, x), cross_entropy(logits, LABELS, label_smoothing=0.1))

    @pytest.mark.parametrize('head', [NormFaceHead, ArcFaceHead])
    def test_in_one_piece_and_from_logits_are_the_same(self, head):
        plain = dict(type='mmloss_plugins.LabelSmoothLoss', smoothing=0.0)
        x, labels = features(), torch.tensor([0, 3, -1, 3, 1])
        found = gradients(build(head), x, labels)
        for ours, other in zip(found, gradients(build(head, loss=plain), x, labels)):
            assert_close(ours, other, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize('head', [NormFaceHead, ArcFaceHead])
    @pytest.mark.parametrize('size', [1, 3, 7, 50])
    def test_chunks_are_the_same(self, head, size):
        x = features()
        chunked = build(head, chunk_size=size, accuracy=True)
        plain = build(head, accuracy=True)
        for ours, other in zip(gradients(chunked, x), gradients(plain, x)):
            assert_close(ours, other, rtol=1e-4, atol=1e-5)
        assert_close(chunked.nearest(x), plain.predict(x).argmax(1))

    @pytest.mark.parametrize('head', HEADS)
    def test_accuracy_counts_what_is_not_ignored(self, head):
        head, x = build(head, accuracy=True), features()
        best = head.predict(x).argmax(1)
        labels = torch.stack([best[0], best[1], (best[2] + 1) % 7, best[3], torch.tensor(-1)])
        assert head.loss(x, labels)['acc_cls'].item() == 0.75

    def test_sub_centres_and_chunks_of_accuracy(self):
        x = features()
        head = build(ArcFaceHead, num_subcenters=3, chunk_size=2, accuracy=True)
        assert head.weight.shape == (7, 3, 4)
        assert_close(head.nearest(x), head.predict(x).argmax(1))

    def test_circle_with_sub_centres(self):
        head = ArcFaceHead(2, 5, num_subcenters=2, weight_init='circle')
        angles = torch.atan2(head.weight[..., 1], head.weight[..., 0])
        assert_close(angles[1], torch.full((2,), 2 * math.pi / 5), atol=0.1, rtol=0)
        assert not torch.equal(head.weight[:, 0], head.weight[:, 1])

    def test_a_loss_of_mmdet(self):
        pytest.importorskip('mmdet.models')
        head, x = build(SoftmaxHead, loss=dict(type='mmdet.CrossEntropyLoss')), features()
        labels = torch.tensor([0, 3, -1, 3, 1])
        expected = cross_entropy(head.predict(x), labels, ignore_index=-1)
        assert_close(loss_of(head, x, labels), expected)

    @pytest.mark.parametrize('head', HEADS)
    def test_built_by_a_config_of_any_host(self, head):
        config = dict(type=f'mmloss_plugins.{head.__name__}', in_channels=4, num_classes=7)
        assert type(ROOT.build(config)) is head


class TestSchedule:
    LINEAR = dict(type='linear', start=0.0, stop=0.4, begin=2, end=6)

    @pytest.mark.parametrize(
        ('epoch', 'margin'), [(0, 0.0), (2, 0.0), (5, 0.3), (6, 0.4), (9, 0.4)]
    )
    def test_by_epoch(self, hub, epoch, margin):
        hub.update_info('epoch', epoch)
        x = features()
        losses = build(ArcFaceHead, margin=self.LINEAR).loss(x, LABELS)
        assert losses['margin'].item() == pytest.approx(margin)
        assert_close(losses['loss_cls'], loss_of(build(ArcFaceHead, margin=margin), x))

    def test_by_iteration_and_in_steps(self, hub):
        margin = dict(type='step', values=[0.0, 0.5], milestones=[10], by_epoch=False)
        head = build(ArcFaceHead, margin=margin)
        found = []
        for step in (9, 10):
            hub.update_info('iter', step)
            found.append(head.loss(features(), LABELS)['margin'].item())
        assert found == [0.0, 0.5]

    def test_a_number_is_not_logged(self):
        assert list(build(ArcFaceHead).loss(features(), LABELS)) == ['loss_cls']


class TestPrecision:
    @pytest.mark.parametrize('head', HEADS)
    @pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
    def test_half_features(self, head, dtype):
        head, x = build(head), features(dtype)
        found, expected = loss_of(head, x), loss_of(head, x.detach().float())
        assert found.dtype == torch.float32
        assert_close(found, expected, rtol=1e-5, atol=1e-6)
        assert gradients(head, x)[0].isfinite().all()

    @pytest.mark.parametrize('head', HEADS[1:])
    @pytest.mark.parametrize('options', [{}, dict(loss=SMOOTH)])
    def test_autocast_changes_nothing(self, head, options):
        head, x = build(head, **options), features()
        with torch.autocast('cpu', dtype=torch.bfloat16):
            found = loss_of(head, x)
        assert_close(found, loss_of(head, x), rtol=1e-6, atol=1e-6)

    def test_on_a_class_and_opposite_of_it(self):
        head = build(ArcFaceHead)
        for sign in (1, -1):
            x = (sign * head.weight[LABELS].detach()).requires_grad_()
            for gradient in gradients(head, x):
                assert gradient.isfinite().all()


@pytest.mark.parametrize('head', HEADS)
def test_resumed(head):
    trained, fresh = build(head), head(4, 7)
    assert not torch.equal(trained.weight, fresh.weight)
    fresh.load_state_dict(copy.deepcopy(trained.state_dict()))
    assert_close(loss_of(fresh, features()), loss_of(trained, features()), rtol=0, atol=0)
    names = {'weight', 'bias'} if head is SoftmaxHead else {'weight'}
    assert set(trained.state_dict()) == names
