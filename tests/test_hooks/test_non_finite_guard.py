"""NonFiniteGuardHook through real Runners: which text, at which iteration, what is left out."""

from __future__ import annotations

import re

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.structures import BaseDataElement
from torch.testing import assert_close

from mmloss_plugins.hooks._guarded_updates import largest
from mmloss_plugins.hooks._non_finite_report import image_paths
from mmloss_plugins.losses import MultiLoss
from tests.test_hooks import toys
from tests.test_hooks.toys import Recorder, ToyModel, scalar, toy_runner


def text_of(model, work_dir, hook=None, **options):
    """Return the text with which training stops."""
    runner = toy_runner(model, work_dir, hook or dict(interval=1), **options)
    with pytest.raises(FloatingPointError) as caught:
        runner.train()
    return str(caught.value), runner


def sample(path):
    return BaseDataElement(metainfo={} if path is None else dict(img_path=path))


@pytest.mark.parametrize(
    ('fault', 'what'),
    [
        (toys.nan_loss, 'loss_a at iteration 3 must be finite, got nan'),
        (toys.constant_nan_loss, 'loss_a at iteration 3 must be finite, got nan'),
        (toys.inf_loss, 'loss_b at iteration 3 must be finite, got inf'),
        (toys.nan_gradient, 'gradient of second at iteration 3 must be finite, got nan'),
    ],
)
@pytest.mark.parametrize(('interval', 'stops_at'), [(1, 3), (2, 4), (50, 6)])
def test_names_the_term_or_the_parameter_and_the_images(tmp_path, fault, what, interval, stops_at):
    text, runner = text_of(ToyModel({3: fault}), tmp_path, dict(interval=interval))
    assert text.startswith(f'NonFiniteGuardHook: {what} for 3a.png, 3b.png. ')
    assert runner.iter + 1 == stops_at
    assert ('backward pass' in text) == (fault is toys.nan_gradient)


def test_both_terms_are_named(tmp_path):
    def both(model, losses):
        toys.nan_loss(model, losses)
        toys.inf_loss(model, losses)

    text, _ = text_of(ToyModel({2: both}), tmp_path)
    assert 'loss_a, loss_b at iteration 2 must be finite, got nan for 2a.png' in text


def test_many_parameters_and_images_are_shortened(tmp_path):
    model = ToyModel({1: lambda model, _: model.more[0].register_hook(lambda g: g * toys.NAN)})
    model.more = torch.nn.ParameterList(torch.ones(2) for _ in range(6))

    def every(model, losses):
        losses['loss_c'] = sum(0 * (p - p).sqrt().sum() for p in model.more)

    model.faults = {1: every}
    text, _ = text_of(model, tmp_path, iterations=1)
    assert 'gradient of more.5, more.4, more.3 and 3 more parameters at iteration 1' in text


def test_a_sound_run_is_not_disturbed(tmp_path):
    states = []
    for name, hook in dict(without=None, stop=dict(interval=2), skip=dict(action='skip')).items():
        recorder = Recorder()
        runner = toy_runner(ToyModel(), tmp_path / name, hook)
        runner.register_hook(recorder)
        runner.train()
        states.append(recorder.states)
        assert not {'step', 'backward'} & set(vars(runner.optim_wrapper))
    assert_close(states[1], states[0], rtol=0, atol=0)
    assert_close(states[2], states[0], rtol=0, atol=0)
    assert scalar(runner, 'skipped_updates') == 0


OPTIMIZERS = {
    'SGD': dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.1),
    'AdamW': dict(type='AdamW', lr=0.1),
    'fused AdamW': dict(type='AdamW', lr=0.1, fused=True),
    'fused Adam': dict(type='Adam', lr=0.1, fused=True),
    'fused SGD': dict(type='SGD', lr=0.1, momentum=0.9, fused=True),
}


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
@pytest.mark.parametrize(
    'fault', [toys.nan_loss, toys.constant_nan_loss, toys.inf_loss, toys.nan_gradient]
)
def test_skip_leaves_parameters_and_optimizer_as_they_are(tmp_path, fault, optimizer):
    recorder = Recorder()
    model = ToyModel({3: fault, 5: fault})
    hook = dict(interval=50, action='skip')
    runner = toy_runner(model, tmp_path, hook, optimizer=OPTIMIZERS[optimizer])
    runner.register_hook(recorder)
    runner.train()
    assert_close(recorder.states[2], recorder.states[1], rtol=0, atol=0)
    assert_close(recorder.states[4], recorder.states[3], rtol=0, atol=0)
    assert recorder.states[3][0]['first'][0] < recorder.states[2][0]['first'][0]
    assert all(p.isfinite().all() for p in model.parameters())
    assert scalar(runner, 'skipped_updates') == 2


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_skip_of_the_first_update_equals_a_run_that_starts_later(tmp_path, optimizer):
    found = []
    for name, model, iterations in (
        ('late', ToyModel(), 2),
        ('bad', ToyModel({1: toys.nan_loss}), 3),
    ):
        options = dict(iterations=iterations, optimizer=OPTIMIZERS[optimizer])
        toy_runner(model, tmp_path / name, dict(action='skip'), **options).train()
        found.append(list(model.parameters()))
    assert_close(found[0], found[1], rtol=0, atol=0)


def test_skip_is_logged_with_the_images(tmp_path):
    runner = toy_runner(ToyModel({2: toys.nan_gradient}), tmp_path, dict(interval=3, action='skip'))
    runner.train()
    log = next(tmp_path.glob('*/*.log')).read_text()
    text = 'gradient of second at iteration 2 must be finite, got nan for 2a.png, 2b.png'
    assert log.count(text) == 1
    assert 'Updates left out so far: 1.' in log
    assert 'skipped_updates: 1' in log


def test_skip_stops_where_nothing_else_happens(tmp_path):
    faults = dict.fromkeys((1, 3, 4, 5, 6), toys.nan_gradient)
    hook = dict(interval=1, action='skip', max_in_a_row=2)
    text, runner = text_of(ToyModel(faults), tmp_path, hook)
    assert 'gradient of second at iteration 5 must be finite' in text
    assert text.endswith('Updates left out in a row: 3.')
    assert runner.iter + 1 == 5


def test_gradient_accumulation_names_all_images_of_the_update(tmp_path):
    model = ToyModel({3: toys.nan_gradient})
    text, _ = text_of(model, tmp_path, accumulate=2)
    assert 'gradient of second at iteration 4 must be finite' in text
    assert 'got nan for 3a.png, 3b.png, 4a.png, 4b.png. ' in text


def test_gradient_accumulation_names_the_images_of_the_loss(tmp_path):
    text, _ = text_of(ToyModel({3: toys.nan_loss}), tmp_path, dict(interval=4), accumulate=2)
    assert 'loss_a at iteration 3 must be finite, got nan for 3a.png, 3b.png. ' in text


def test_skip_leaves_out_the_accumulated_update(tmp_path):
    recorder = Recorder()
    model = ToyModel({3: toys.constant_nan_loss})
    runner = toy_runner(model, tmp_path, dict(interval=50, action='skip'), accumulate=2)
    runner.register_hook(recorder)
    runner.train()
    assert_close(recorder.states[3], recorder.states[1], rtol=0, atol=0)
    assert recorder.states[5][0]['first'][0] < recorder.states[3][0]['first'][0]
    assert scalar(runner, 'skipped_updates') == 1


@pytest.mark.parametrize('action', ['stop', 'skip'])
@pytest.mark.parametrize(
    ('fault', 'name', 'value'),
    [(toys.nan_buffer, 'mean', 'nan'), (toys.nan_parameter, 'first', 'inf')],
)
def test_broken_parameters_and_buffers_stop(tmp_path, action, fault, name, value):
    text, _ = text_of(ToyModel({4: fault}), tmp_path, dict(interval=2, action=action))
    assert f'{name} after iteration 4 must be finite, got {value}. Leaving out' in text


def test_a_parameter_broken_before_training_stops_at_once(tmp_path):
    model = ToyModel()
    model.first.data[0] = toys.NAN
    text, _ = text_of(model, tmp_path)
    assert text == (
        'NonFiniteGuardHook: first before training must be finite, got nan. '
        'Check load_from and init_cfg.'
    )
    assert model.calls == 0


def test_a_buffer_of_inf_is_a_mask(tmp_path):
    model = ToyModel()
    model.mean.fill_(-toys.INF)
    toy_runner(model, tmp_path, dict(interval=1)).train()
    assert model.calls == 6


@pytest.mark.parametrize('by_epoch', [False, True])
def test_nothing_broken_is_saved(tmp_path, by_epoch):
    """Checkpoints every iteration or epoch, a check every 100: it comes before each of them."""
    model = ToyModel({3: toys.nan_gradient})
    options = dict(
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=by_epoch))
    )
    if by_epoch:
        options.update(train_cfg=dict(by_epoch=True, max_epochs=3), iterations=2)
    text, _ = text_of(model, tmp_path, dict(interval=100), **options)
    saved = sorted(path.name for path in tmp_path.glob('*.pth'))
    assert saved == (['epoch_1.pth'] if by_epoch else ['iter_1.pth', 'iter_2.pth'])
    assert 'second at iteration 3' in text


def test_nothing_broken_is_validated(tmp_path):
    model = ToyModel({3: toys.nan_gradient})
    runner = toy_runner(
        model,
        tmp_path,
        dict(interval=100),
        train_cfg=dict(by_epoch=False, max_iters=6, val_interval=4),
        val_dataloader=dict(
            batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False), dataset=[]
        ),
        val_cfg=dict(),
        val_evaluator=[],
    )
    with pytest.raises(FloatingPointError, match='second at iteration 3'):
        runner.train()
    assert runner.iter == 4


@pytest.mark.parametrize(
    ('hook', 'optimizer'),
    [
        (dict(interval=3), 'SGD'),
        (dict(interval=3), 'AdamW'),
        (dict(interval=3, action='skip'), 'fused AdamW'),
    ],
)
def test_syncs_at_the_interval_alone(tmp_path, monkeypatch, hook, optimizer):
    """MMEngine itself reads each term back in each iteration: the hook adds nothing to that."""
    counts = []
    for name, used in (('without', None), ('with', hook)):
        model = ToyModel({4: toys.nan_gradient} if hook.get('action') else None)
        runner = toy_runner(model, tmp_path / name, used, optimizer=OPTIMIZERS[optimizer])
        with monkeypatch.context() as patch, toys.Syncs(runner, patch) as syncs:
            runner.train()
        counts.append(syncs.counts)
    added = [counts[1][n] - counts[0][n] for n in range(1, 7)]
    assert added[2] > 0
    assert added[5] > 0
    assert added[:2] + added[3:5] == [added[0], 0, 0, 0]
    assert added[0] <= 2  # the state before training


def test_the_term_inside_of_multi_loss_is_named(tmp_path):
    """The head logs ``loss_kpt`` alone; a zero weight is no reason to be named."""
    loss = MultiLoss(
        dict(l1=dict(type='mmloss_plugins.L1Loss'), bad=torch.nn.MSELoss(), off=torch.nn.MSELoss()),
        weights=dict(off=0.0),
    )

    def term(model, losses):
        huge = torch.full((1,), 1e30)
        losses['loss_kpt'] = model.loss_module(model.second * huge, torch.zeros(1))

    model = ToyModel({2: term})
    model.loss_module = loss
    text, _ = text_of(model, tmp_path)
    assert 'loss_kpt (loss_module.terms.bad) at iteration 2 must be finite, got inf' in text


def test_a_value_that_no_loss_contains_is_nobodys_business(tmp_path):
    def unused(model, losses):
        model.loss_module(model.second * 1e30, torch.zeros(1))

    model = ToyModel({2: unused})
    model.loss_module = torch.nn.MSELoss()
    toy_runner(model, tmp_path, dict(interval=1)).train()
    assert model.calls == 6


def test_a_loss_called_for_each_level_is_named(tmp_path):
    def levels(model, losses):
        levels = [model.loss_module(model.second * factor, torch.zeros(1)) for factor in (1e30, 1)]
        losses['loss_levels'] = sum(levels)

    model = ToyModel({2: levels})
    model.loss_module = torch.nn.MSELoss()
    text, _ = text_of(model, tmp_path)
    assert 'loss_levels (loss_module) at iteration 2' in text


def test_largest_of_each_tensor():
    """Exact: no sum of squares that overflows, no minimum that forgets NaN."""
    tensors = [
        torch.tensor([1.0, -3.0]),
        torch.tensor([1.0, toys.NAN, toys.INF]),
        torch.tensor(-toys.INF),
        torch.full((3,), 6e4, dtype=torch.float16),
        torch.full((2,), 1e38),
        torch.zeros(0),
    ]
    expected = torch.tensor([3.0, toys.NAN, toys.INF, 6e4, 1e38, 0.0])
    expected[3] = tensors[3][0]
    assert_close(largest(tensors), expected, equal_nan=True)
    assert largest([]).shape == (0,)


def test_several_optimizers(tmp_path):
    """A model with an OptimWrapperDict takes each step itself."""

    class TwoSteps(ToyModel):
        def train_step(self, data, optim_wrapper):
            losses = self(**self.data_preprocessor(data, True), mode='loss')
            optim_wrapper['a'].update_params(losses['loss_a'])
            optim_wrapper['b'].update_params(losses['loss_b'])
            return losses

    model = TwoSteps({3: toys.nan_gradient})
    before = model.second.item()
    wrappers = {
        name: OptimWrapper(torch.optim.SGD([parameter], lr=0.1))
        for name, parameter in (('a', model.first), ('b', model.second))
    }
    wrapper = OptimWrapperDict(**wrappers)
    hook = dict(interval=1, action='skip')
    runner = toy_runner(model, tmp_path, hook, iterations=3, optim_wrapper=wrapper)
    runner.train()
    assert_close(model.second.item(), before * 0.8**2)
    assert_close(model.first.detach(), torch.tensor([1.0, 2.0]) * 0.9**3)
    assert scalar(runner, 'skipped_updates') == 1


@pytest.mark.parametrize(
    'batch',
    [
        dict(inputs=[torch.zeros(1)], data_samples=[sample('a'), sample('b')]),
        dict(sup=dict(data_samples=[sample('a')]), unsup=dict(data_samples=[sample('b')])),
        [dict(img_path='a'), dict(img_path='b')],
        dict(img_path=['a', 'b'], img=torch.zeros(2)),
        (torch.zeros(1), [sample('a'), sample('b'), sample(None)]),
    ],
)
def test_image_paths_of_any_batch(batch):
    assert image_paths(batch) == ['a', 'b']


def test_a_batch_without_paths(tmp_path):
    assert image_paths([torch.zeros(2), 3, None]) == []
    options = dict(
        train_dataloader=dict(
            batch_size=1,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=[dict(inputs=torch.zeros(1))],
        )
    )
    text, _ = text_of(ToyModel({1: toys.nan_loss}), tmp_path, iterations=1, **options)
    assert 'got nan for a batch without img_path. ' in text


@pytest.mark.parametrize('name', ['interval', 'max_in_a_row'])
@pytest.mark.parametrize('value', [0, -1, 1.5, 'ten'])
def test_numbers_must_be_positive(name, value):
    text = f'NonFiniteGuardHook: {name} must be a positive integer, got {value!r}.'
    with pytest.raises(ValueError, match=re.escape(text)):
        HOOKS.build(dict(type='mmloss_plugins.NonFiniteGuardHook', **{name: value}))


def test_action_must_be_known():
    with pytest.raises(ValueError, match="action must be one of 'stop', 'skip', got 'skp'"):
        HOOKS.build(dict(type='mmloss_plugins.NonFiniteGuardHook', action='skp'))
