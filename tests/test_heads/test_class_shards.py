"""Heads with sharded class weights train on 2 and 4 gloo processes as in one, and load anywhere."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from mmengine.logging import MessageHub
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from mmloss_plugins.heads import ArcFaceHead, NormFaceHead
from mmloss_plugins.models import EmbeddingClassifier
from tests.gloo import run_ranks

STEPS = 3
# Samples of each rank, and the classes of each rank out of seven.
SAMPLES = {1: (6,), 2: (4, 2), 4: (3, 0, 2, 1)}
CLASSES = {2: (4, 3), 4: (2, 2, 2, 1)}
LABELS = torch.tensor([[0, 6, 3, -1, 3, 5], [6, 6, 2, 1, 0, 4], [-1, -1, -1, -1, -1, 2]])
SGD = dict(lr=0.1, momentum=0.9, weight_decay=0.01)
CASES = {
    'NormFace': (NormFaceHead, dict(accuracy=True), torch.optim.SGD, SGD),
    'ArcFace in chunks': (ArcFaceHead, dict(chunk_size=2), torch.optim.Adam, dict(lr=0.01)),
    'subcenters': (
        ArcFaceHead,
        dict(num_subcenters=2, margin=[0.1 * c for c in range(7)], accuracy=True, chunk_size=1),
        torch.optim.SGD,
        SGD,
    ),
}


def build(case, **options):
    kind, choices, _, _ = CASES[case]
    torch.manual_seed(1)
    head = kind(in_channels=3, num_classes=7, scale=8.0, shard_classes=True, **choices, **options)
    return EmbeddingClassifier(backbone=nn.Linear(4, 3), head=head)


def inputs():
    return torch.randn(STEPS, 6, 4, generator=torch.Generator().manual_seed(2))


def full(parameter):
    return getattr(parameter, 'full_tensor', lambda: parameter)().detach().clone()


def train(case, world_size=1, rank=0):
    """Return what a rank sees of three steps, and then of a prediction."""
    model = build(case)
    seen = dict(start=full(model.head.weight), losses=[], accuracies=[])
    wrapped = model if world_size == 1 else DistributedDataParallel(model)
    _, _, optimizer, options = CASES[case]
    optimizer = optimizer(wrapped.parameters(), **options)
    sizes = SAMPLES[world_size]
    rows = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    for x, labels in zip(inputs(), LABELS):
        losses = wrapped(x[rows], labels[rows], mode='loss')
        optimizer.zero_grad()
        losses['loss_cls'].backward()
        seen['gradients'] = [full(p.grad) for p in model.parameters()]
        optimizer.step()
        seen['losses'].append(losses['loss_cls'].detach())
        valid = (labels[rows] >= 0).sum()
        seen['accuracies'].append(valid * losses.get('acc_cls', torch.zeros(())))
    seen['end'] = [full(p) for p in model.parameters()]
    with torch.no_grad():
        embeddings = model.backbone(inputs()[0][rows])
        seen['logits'] = model.head.predict(embeddings)
        seen['nearest'] = model.head.nearest(embeddings)
        assert_close(seen['nearest'], seen['logits'].argmax(1))
    return seen


def load_states():
    """Return the weights after states with all classes were loaded: strict, and too large."""
    model = build('subcenters')
    whole = torch.arange(42.0).reshape(7, 2, 3)
    state = {**model.state_dict(), 'head.weight': whole}
    model.load_state_dict(state)
    with pytest.raises(RuntimeError, match='size mismatch'):
        model.load_state_dict({**state, 'head.weight': torch.zeros(8, 2, 3)})
    assert state['head.weight'] is whole
    return full(model.head.weight)


def errors():
    """Return what is said about too few classes, and about a run without the hook."""
    found = []
    with pytest.raises(ValueError, match='must') as caught:
        ArcFaceHead(in_channels=3, num_classes=1, shard_classes=True)
    found.append(str(caught.value))
    head = build('NormFace').head
    head.init_weights()
    hub = MessageHub.get_instance('a run')
    hub.update_info('experiment_name', 'a run')
    with pytest.raises(ValueError, match='must') as caught:
        build('NormFace').init_weights()
    found.append(str(caught.value))
    hub.update_info('ShardedWeightsHook', True)
    build('NormFace').init_weights()
    return found


def run_rank(rank, world_size, folder):
    """Save what one rank sees."""
    found = {case: train(case, world_size, rank) for case in CASES}
    weight = build('NormFace').head.weight
    found['rows'] = len(weight.to_local())
    found['stored'] = weight.to_local().untyped_storage().nbytes()
    found['loaded'] = load_states()
    found['errors'] = errors()
    (Path(folder) / f'{rank}.pkl').write_bytes(pickle.dumps(found))


@pytest.fixture(scope='module', params=[2, 4])
def ranks(request, tmp_path_factory):
    """What each rank sees."""
    folder = tmp_path_factory.mktemp(f'ranks{request.param}')
    run_ranks(run_rank, request.param, folder)
    return [pickle.loads((folder / f'{r}.pkl').read_bytes()) for r in range(request.param)]


@pytest.mark.parametrize('case', CASES)
def test_trains_as_one_process(ranks, case):
    alone, world_size = train(case), len(ranks)
    found = [each[case] for each in ranks]
    losses = torch.tensor([each['losses'] for each in found]).mean(0)
    assert_close(losses, torch.stack(alone['losses']))
    joint = torch.tensor([each['accuracies'] for each in found]).sum(0)
    assert_close(joint, torch.stack(alone['accuracies']))
    assert_close(torch.cat([each['logits'] for each in found]), alone['logits'])
    for each in found:
        assert_close(each['start'], alone['start'], rtol=0, atol=0)
        # The gradient of sharded weights is averaged over ranks, too.
        assert_close(each['gradients'], alone['gradients'], rtol=1e-4, atol=1e-6)
        assert_close(each['end'], alone['end'], rtol=1e-4, atol=1e-6)
    assert not torch.equal(alone['end'][0], alone['start'])
    assert world_size * losses.sum() > 1


def test_a_rank_keeps_its_classes_alone(ranks):
    rows = [each['rows'] for each in ranks]
    assert rows == list(CLASSES[len(ranks)])
    assert [each['stored'] for each in ranks] == [n * 3 * 4 for n in rows]


def test_loads_weights_of_all_classes(ranks):
    for each in ranks:
        assert_close(each['loaded'], torch.arange(42.0).reshape(7, 2, 3), rtol=0, atol=0)


def test_mistakes_are_named(ranks):
    for each in ranks:
        few, hook = each['errors']
        rule = f'num_classes must leave a class for each of {len(ranks)} ranks'
        assert f'ArcFaceHead: {rule} with shard_classes=True, got 1.' in few
        assert hook.startswith('NormFaceHead: shard_classes=True must come with the Sharded')
        assert hook.endswith("Add dict(type='mmloss_plugins.ShardedWeightsHook') to custom_hooks.")


def test_one_process_keeps_a_plain_parameter():
    head = build('NormFace').head
    assert type(head.weight) is nn.Parameter
    torch.manual_seed(1)
    plain = NormFaceHead(in_channels=3, num_classes=7)
    assert_close(head.weight, plain.weight, rtol=0, atol=0)


@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        (dict(loss=dict(type='mmloss_plugins.LabelSmoothLoss')), ValueError, 'loss must be None'),
        (dict(sample_rate=0.5), ValueError, 'sample_rate must be 1 with shard_classes=True'),
        (dict(shard_classes='yes'), TypeError, "shard_classes must be True or False, got 'yes'"),
    ],
)
def test_options_that_do_not_go_together(options, error, text):
    with pytest.raises(error, match=text):
        ArcFaceHead(**{'in_channels': 3, 'num_classes': 7, 'shard_classes': True, **options})


def test_old_pytorch_is_named(monkeypatch):
    monkeypatch.setattr('mmloss_plugins.heads._class_shards.get_world_size', lambda: 2)
    monkeypatch.setattr(torch, '__version__', type(torch.__version__)('2.4.1'))
    with pytest.raises(RuntimeError, match=r'shard_classes must be False before PyTorch 2\.5, got'):
        ArcFaceHead(in_channels=3, num_classes=7, shard_classes=True)
