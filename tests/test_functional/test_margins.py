"""Logits on the hypersphere: by hand, against loops, pytorch-metric-learning and insightface."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as torch_F
from pytorch_metric_learning import losses as metric_learning
from torch.testing import assert_close

from mmloss_plugins import functional as F
from tests.test_functional.recognition_oracles import arcface_table

B, D, C = 6, 5, 7
TARGET = torch.tensor([0, 6, 3, -1, 3, 5])
FIRST = torch.tensor([0])
PLAIN = (1.0, 0.0, 0.0)


@pytest.fixture
def sphere():
    generator = torch.Generator().manual_seed(0)
    features = 3 * torch.randn(B, D, dtype=torch.float64, generator=generator)
    weights = torch.randn(C, D, dtype=torch.float64, generator=generator)
    weights[3] = -features[2]  # theta = pi: the rule beyond it
    return features.requires_grad_(), weights.requires_grad_()


def turned(degrees, dtype=torch.float64):
    """Return features at these angles to the class 0, whose direction is the first axis."""
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return (7 * torch.stack((angle.cos(), angle.sin()), 1)).to(dtype)


def test_by_hand():
    # Angles 60 and 30 degrees to two axes; margin 30 degrees: cos 90 = 0. Lengths play no part.
    features, weights = turned([60.0]), torch.diag(torch.tensor([2.0, 0.1], dtype=torch.float64))
    root = math.sqrt(3) / 2
    expected = {
        'cosine': (F.cosine_logits(features, weights, scale=2.0), [1.0, 2 * root]),
        'norm': (F.normface_logits(features, weights), [8.0, 16 * root]),
        'modified': (F.modified_softmax_logits(features, weights), [3.5, 7 * root]),
    }
    target = torch.tensor([0])
    arc = F.arcface_logits(features, weights, target, scale=4.0, margin=math.pi / 6)
    expected['arc'] = arc, [0.0, 4 * root]
    cos = F.cosface_logits(features, weights, target, scale=4.0, margin=0.25)
    expected['cos'] = cos, [1.0, 4 * root]
    # cos(1.5 * 60 + 0) - 0.25 = -0.25
    three = dict(scale=4.0, margins=(1.5, 0.0, 0.25))
    combined = F.combined_margin_logits(features, weights, target, **three)
    expected['combined'] = combined, [-1.0, 4 * root]
    for found, row in expected.values():
        assert_close(found, torch.tensor([row], dtype=torch.float64))


def test_arcface_is_the_paper_at_180_angles():
    """Degrees 0 to 179 and the default rule; float32 within its rounding."""
    degrees = [float(d) for d in range(180)]
    weights = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    target = torch.zeros(180, dtype=torch.long)
    expected = arcface_table(turned(degrees).tolist(), weights.tolist(), target.tolist(), 64.0, 0.5)
    expected = torch.tensor(expected, dtype=torch.float64)
    found = F.arcface_logits(turned(degrees), weights, target)
    assert_close(found, expected, rtol=0, atol=1e-6)  # the arc cosine itself is off by 1e-8 at 0
    single = F.arcface_logits(turned(degrees, torch.float32), weights.float(), target)
    assert_close(single.double(), expected, rtol=0, atol=64 * 4e-7)
    # The logit never rises with the angle; without the rule it does beyond 180 - 28.6 degrees.
    assert (found[1:, 0] < found[:-1, 0]).all()
    off = F.arcface_logits(turned(degrees), weights, target, rule='off')
    assert (off[153:, 0] > off[152:-1, 0]).all()


@pytest.mark.parametrize('rule', ['monotonic', 'easy', 'off'])
@pytest.mark.parametrize('margins', [(1.0, 0.5, 0.0), (1.35, 0.3, 0.1), (4.0, 0.0, 0.0)])
def test_rules_by_their_definition(margins, rule):
    m1, m2, m3 = margins
    degrees = [3.0, 44.0, 89.0, 91.0, 130.0, 149.0, 152.0, 178.0]
    for degree in degrees:
        theta = math.radians(degree)
        angle = m1 * theta + m2
        expected = math.cos(angle)
        if rule == 'easy' and degree > 90:
            expected = math.cos(theta)
        elif rule == 'monotonic' and m1 == 1 and angle > math.pi:
            expected = math.cos(theta) - m2 * math.sin(m2)
        elif rule == 'monotonic' and m1 != 1:  # SphereFace's psi
            k = int(angle / math.pi)
            expected = (-1) ** k * math.cos(angle) - 2 * k
        found = F.combined_margin_logits(
            turned([degree]), torch.eye(2).double(), torch.tensor([0]),
            scale=1.0, margins=margins, rule=rule,
        )  # fmt: skip
        assert found[0, 0].item() == pytest.approx(expected - m3, abs=1e-12), degree


@pytest.mark.parametrize('shape', [(C, D), (C, 3, D)], ids=['classes', 'sub-centres'])
@pytest.mark.parametrize('rule', ['monotonic', 'easy', 'off'])
@pytest.mark.parametrize('margins', [(1.0, 0.5, 0.0), (1.2, 0.3, 0.1), (1.0, 0.0, 0.35)])
def test_gradcheck(shape, rule, margins):
    features = torch.randn(B, D, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def logits(x, w):
        return F.combined_margin_logits(x, w, TARGET, scale=5.0, margins=margins, rule=rule)

    assert torch.autograd.gradcheck(logits, (features, weights))


@pytest.mark.parametrize('shape', [(C, D), (C, 3, D)], ids=['classes', 'sub-centres'])
def test_gradcheck_without_margin(shape):
    inputs = (
        torch.randn(B, D, dtype=torch.float64, requires_grad=True),
        torch.randn(shape, dtype=torch.float64, requires_grad=True),
    )
    assert torch.autograd.gradcheck(lambda x, w: F.cosine_logits(x, w, scale=3.0), inputs)
    assert torch.autograd.gradcheck(F.modified_softmax_logits, inputs)


def test_metric_learning_losses(sphere):
    """Its ArcFace (degrees), CosFace and NormalizedSoftmax: values and gradients."""
    features, weights = sphere
    features, weights = features.detach()[[0, 1, 4, 5]], weights.detach()
    target = TARGET[[0, 1, 4, 5]]
    size = dict(num_classes=C, embedding_size=D)
    pairs = {
        'arc': (
            metric_learning.ArcFaceLoss(**size, margin=math.degrees(0.5), scale=64),
            lambda x, w: F.arcface_logits(x, w, target),
        ),
        'cos': (
            metric_learning.CosFaceLoss(**size, margin=0.35, scale=64),
            lambda x, w: F.cosface_logits(x, w, target),
        ),
        'norm': (
            metric_learning.NormalizedSoftmaxLoss(**size, temperature=1 / 16),
            F.normface_logits,
        ),
        'sub-centres': (
            metric_learning.SubCenterArcFaceLoss(
                **size, margin=math.degrees(0.5), scale=64, sub_centers=3
            ),
            lambda x, w: F.arcface_logits(x, w.unflatten(0, (C, 3)), target),
        ),
    }
    for name, (peer, ours) in pairs.items():
        w = torch.randn(3 * C, D, dtype=torch.float64) if name == 'sub-centres' else weights
        peer.W = torch.nn.Parameter(w.t().clone())
        x_peer, x = (features.clone().requires_grad_() for _ in range(2))
        w = w.clone().requires_grad_()
        expected = peer(x_peer, target)
        expected.backward()
        found = torch_F.cross_entropy(ours(x, w), target)
        found.backward()
        assert_close(found, expected, rtol=1e-6, atol=1e-6, msg=name)
        assert_close(x.grad, x_peer.grad, rtol=1e-5, atol=1e-6, msg=name)
        assert_close(w.grad, peer.W.grad.t(), rtol=1e-5, atol=1e-6, msg=name)


def test_the_form_in_write_ups(sphere):
    """Sine by a root with a floor of 1e-7 and no rule; the weights by renorm."""
    features, weights = sphere
    target = TARGET.clamp(min=0)
    cosine = torch_F.normalize(features).mm(torch_F.normalize(weights.t(), dim=0)).clamp(-1, 1)
    sine = (1 - cosine**2).clamp(min=1e-7).sqrt()
    phi = cosine * math.cos(0.5) - sine * math.sin(0.5)
    one_hot = torch_F.one_hot(target, C)
    expected = 32 * torch.where(one_hot == 1, phi, cosine)
    found = F.arcface_logits(features, weights, target, scale=32.0, rule='off')
    regular = torch.arange(B) != 2  # at theta = pi the floor is off by 3e-4
    assert_close(found[regular], expected[regular])
    assert_close(found[2], expected[2], rtol=0, atol=32 * 3.2e-4 * math.sin(0.5))
    columns = weights.t().detach().renorm(2, 1, 1e-5).mul(1e5)
    assert_close(F.modified_softmax_logits(features, weights), features.mm(columns))


def test_limits_and_ignored_samples(sphere):
    features, weights = sphere
    plain = F.cosine_logits(features, weights, scale=64.0)
    assert_close(F.arcface_logits(features, weights, TARGET, margin=0.0), plain)
    assert_close(F.combined_margin_logits(features, weights, TARGET, margins=PLAIN), plain)
    one = F.combined_margin_logits(features, weights, TARGET, margins=(1.0, 0.5, 0.0))
    assert_close(one, F.arcface_logits(features, weights, TARGET))
    bent = F.combined_margin_logits(
        features, weights, TARGET, margins=(1 + 1e-9, 0.5, 0.0), rule='off'
    )
    assert_close(bent, F.arcface_logits(features, weights, TARGET, rule='off'), atol=1e-6, rtol=0)
    changed = F.arcface_logits(features, weights, TARGET) != plain
    assert changed.sum(1).tolist() == [1, 1, 1, 0, 1, 1]
    assert changed.nonzero()[:, 1].tolist() == [0, 6, 3, 3, 5]
    assert_close(F.cosine_logits(7 * features, 0.1 * weights), F.cosine_logits(features, weights))


def test_margins_per_class(sphere):
    features, weights = sphere
    margins = torch.linspace(0.1, 0.9, C, dtype=torch.float64)
    for function in (F.arcface_logits, F.cosface_logits):
        found = function(features, weights, TARGET, margin=margins)
        for b, label in enumerate(TARGET.tolist()):
            alone = function(features, weights, TARGET, margin=margins[label].item())
            assert_close(found[b], alone[b])


def test_the_nearest_sub_centre_counts(sphere):
    features, weights = sphere
    far = torch.stack((weights.detach() * 0.5, torch.ones(C, D).double()), 1)
    found = F.arcface_logits(features, far, TARGET)
    cosines = torch.stack([F.cosine_logits(features, far[:, k]) for k in range(2)])
    own = torch.stack([F.arcface_logits(features, far[:, k], TARGET) for k in range(2)])
    best = cosines.argmax(0)
    assert best.unique().numel() == 2
    assert_close(found, own.gather(0, best.unsqueeze(0)).squeeze(0))


NEAR = [0.0, 1e-9, 1e-6, 4.5e-4, 1e-2]  # 4.5e-4: cos = 1 - 1e-7


@pytest.mark.parametrize('opposite', [False, True], ids=['at the class', 'opposite'])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.float16], ids=str)
def test_exact_and_finite_at_a_cosine_of_one(dtype, opposite):
    """d phi / d theta = -sin(theta + m), or -sin(theta) beyond pi; a root of 1 - cos^2 has none."""
    for near in NEAR:
        theta = math.pi - near if opposite else near
        features = torch.tensor([[math.cos(theta), math.sin(theta)]], dtype=torch.float64).to(dtype)
        features[0] *= 2
        if dtype != torch.float64:  # what the rounded features have
            theta = math.atan2(features[0, 1].item(), features[0, 0].item())
        features.requires_grad_()
        weights = torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64).to(
            torch.float64 if dtype == torch.float64 else torch.float32
        )
        weights.requires_grad_()
        logit = F.arcface_logits(features, weights, torch.tensor([0]), scale=1.0)[0, 0]
        beyond = theta + 0.5 > math.pi
        exact = math.cos(theta) - 0.5 * math.sin(0.5) if beyond else math.cos(theta + 0.5)
        slope = math.sin(theta) if beyond else math.sin(theta + 0.5)
        # The angle at the rounded pi of float32 is 8.7e-8 away from pi.
        accuracy = 1e-12 if dtype == torch.float64 else 2e-7
        assert logit.item() == pytest.approx(exact, abs=accuracy)
        logit.backward()
        assert features.grad.isfinite().all()
        assert weights.grad.isfinite().all()
        across = features.grad.double()[0]
        if near in (0.0, 1e-9) or dtype == torch.float16:
            assert across.norm() <= slope / 2 + 1e-3  # at most the slope over |x|
            continue
        # Across x, towards smaller angles, by the slope over |x|.
        expected = slope / 2 * torch.tensor([math.sin(theta), -math.cos(theta)])
        assert_close(across, expected.double(), rtol=0, atol=2e-3 if near < 1e-5 else 2e-4)


def test_finite_differences_near_the_class():
    """gradcheck at 1e-3 rad of the class and of its opposite, in float64."""
    for theta in (1e-3, math.pi - 1e-3):
        features = torch.tensor([[math.cos(theta), math.sin(theta), 0.0]], dtype=torch.float64)
        weights = torch.eye(3, dtype=torch.float64)
        inputs = features.requires_grad_(), weights.requires_grad_()
        for rule in ('monotonic', 'off'):
            assert torch.autograd.gradcheck(
                lambda x, w, rule=rule: F.arcface_logits(x, w, FIRST, scale=2.0, rule=rule),
                inputs, eps=1e-8, atol=1e-5,
            )  # fmt: skip


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_half_features(dtype):
    features = torch.randn(B, D).to(dtype)
    weights = torch.randn(C, D)
    for scale in (1.0, 6e-8 / 0.1, 65504 / 4):
        half = (features.double() * scale).to(dtype).requires_grad_()
        single = half.detach().float().requires_grad_()
        found = F.arcface_logits(half, weights, TARGET)
        expected = F.arcface_logits(single, weights, TARGET)
        assert found.dtype == torch.float32
        assert_close(found, expected, rtol=0, atol=0)
        found.sum().backward()
        expected.sum().backward()
        assert half.grad.dtype == dtype
        assert half.grad.isfinite().all()
        limit = 32752 if dtype == torch.float16 else math.inf
        assert_close(half.grad, single.grad.clamp(-limit, limit).to(dtype))


def test_autocast_keeps_float32():
    features, weights = torch.randn(B, D, requires_grad=True), torch.randn(C, D)
    expected = F.arcface_logits(features, weights, TARGET)
    expected.sum().backward()
    slope, features.grad = features.grad, None
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = F.arcface_logits(features, weights, TARGET)
        found.sum().backward()
    assert_close(found, expected, rtol=0, atol=0)
    assert_close(features.grad, slope, rtol=0, atol=0)


def test_vectors_without_direction():
    features = torch.zeros(2, D, requires_grad=True)
    weights = torch.randn(C, D)
    weights[2] = 0
    weights.requires_grad_()
    target = torch.tensor([1, 2])
    logits = F.arcface_logits(features, weights, target)
    # A right angle and the margin: -64 sin 0.5, also where the class has no direction either.
    expected = torch.zeros(2, C)
    expected[0, 1] = -64 * math.sin(0.5)
    assert_close(logits[0], expected[0])
    logits.sum().backward()
    assert features.grad.isfinite().all()
    assert weights.grad.isfinite().all()


def test_a_silenced_sample_does_not_reach_the_classes():
    features = torch.randn(B, D)
    features[3] = math.nan
    features.requires_grad_()
    weights = torch.randn(C, D, requires_grad=True)
    logits = F.arcface_logits(features, weights, TARGET)
    assert logits[3].isnan().all()  # nothing hides it
    kept = torch.arange(B) != 3
    logits[kept].sum().backward()
    found, weights.grad = weights.grad, None
    assert (features.grad[3] == 0).all()
    F.arcface_logits(features.detach()[kept], weights, TARGET[kept]).sum().backward()
    assert_close(found, weights.grad)


def test_nothing_of_the_size_of_the_logits_is_kept():
    features = torch.randn(64, 8, requires_grad=True)
    weights = torch.randn(500, 8, requires_grad=True)
    kept = []

    def pack(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        F.arcface_logits(features, weights, torch.zeros(64, dtype=torch.long))
    assert max(kept) == weights.numel() < 64 * 500


def test_compiles_to_one_graph():
    features, weights = torch.randn(B, D, requires_grad=True), torch.randn(C, D)
    compiled = torch.compile(F.arcface_logits, fullgraph=True, backend='aot_eager')
    found = compiled(features, weights, TARGET)
    assert_close(found, F.arcface_logits(features, weights, TARGET))


@pytest.mark.parametrize(
    ('change', 'error', 'text'),
    [
        (dict(features=torch.ones(2, 3, 3)), ValueError, r'features must have the shape \(B, D\)'),
        (dict(features=torch.ones(2, 3).long()), TypeError, 'features must be a floating-point'),
        (dict(class_weights=torch.ones(4, 5)), ValueError, r'class_weights must .*\(C, 3\).*in_ch'),
        (dict(class_weights=torch.ones(0, 3)), ValueError, r'class_weights must'),
        (dict(class_weights=[1.0]), TypeError, 'class_weights must be a floating-point tensor'),
        (dict(target=torch.tensor([0.0, 1.0])), TypeError, 'target must be a tensor of integers'),
        (dict(target=torch.tensor([0])), ValueError, r'target must have the shape \(2,\)'),
        (dict(target=torch.tensor([0, 4])), ValueError, r'0\.\.\.3 .* got 4 at index \(1,\)'),
        (dict(target=torch.tensor([-2, 1])), ValueError, r'got -2 at index \(0,\)'),
        (dict(scale=0.0), ValueError, 'scale must be a positive number, got 0.0'),
        (dict(margins=(1.0, 28.6, 0.0)), ValueError, r'angular margin .* got 28.6. Radians'),
        (dict(margins=(1.0, 0.0, -0.1)), ValueError, 'cosine margin must be within'),
        (dict(margins=(0.0, 0.5, 0.0)), ValueError, 'm1 must be a positive number'),
        (dict(margins=(0.5,)), ValueError, r'margins must be \(m1, m2, m3\)'),
        (dict(margins=(1.0, torch.ones(5), 0.0)), ValueError, 'one value for each of 4 classes'),
        (dict(rule='monotonous'), ValueError, "Did you mean 'monotonic'"),
    ],
)  # fmt: skip
def test_bad_arguments(change, error, text):
    arguments = dict(
        features=torch.ones(2, 3), class_weights=torch.ones(4, 3), target=torch.tensor([0, 1])
    )
    with pytest.raises(error, match=text):
        F.combined_margin_logits(**{**arguments, **change})
