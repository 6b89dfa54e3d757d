"""Bad arguments: each message names the argument, the rule, what was found and the next step."""

from __future__ import annotations

import functools
import re

import pytest
import torch

FORM = re.compile(r'^[\w.]+: [\w ]+ must [^,].*, got .+\. .+[.?]$', re.DOTALL)


def message_of(function, *args, **kwargs):
    with pytest.raises((TypeError, ValueError)) as caught:
        function(*args, **kwargs)
    text = str(caught.value)
    assert FORM.match(text), text
    return text


def test_bad_options_are_refused_by_the_constructor(plain):
    assert {'unknown argument', 'reduction', 'mean_over'} <= set(plain.case.bad_options)
    for options in plain.case.bad_options.values():
        text = message_of(type(plain.build()), **{**plain.variant.options, **options})
        assert text.startswith(f'{plain.name}: ')
        assert any(argument in text for argument in options), text


def test_a_typo_gets_the_right_word(plain):
    cls = functools.partial(type(plain.build()), **plain.variant.options)
    with pytest.raises(TypeError, match=r"got 'loss_wieght'\. Did you mean 'loss_weight'\?"):
        cls(loss_wieght=2.0)
    with pytest.raises(ValueError, match=r"got 'meen'\. Did you mean 'mean'\?"):
        cls(reduction='meen')


def test_a_typo_in_a_config_says_so(subject):
    with pytest.raises(TypeError, match="got 'redction'"):
        subject.build(redction='sum')


def test_unknown_reduction_override_is_refused(subject):
    text = message_of(subject.build(), *subject.make(), reduction_override='average')
    assert 'reduction_override must be one of' in text


@pytest.mark.parametrize('argument', ['weight', 'mask'])
def test_wrong_shape_of_weight_and_mask(subject, argument):
    shape = subject.shape()
    wrong = [(shape[0] + 1, *shape[1:]), (*shape, 2), (*shape[:-1], shape[-1] + 1)]
    if len(shape) > 1:
        wrong.append(shape[1:])
    for size in wrong:
        text = message_of(subject.build(), *subject.make(), **{argument: torch.ones(size)})
        assert f'{argument} must have the shape' in text
        assert f'got {tuple(size)}' in text
        assert str(tuple(shape)) in text


def test_wrong_shape_of_target(subject):
    assert len(subject.case.bad_targets) >= 1
    pred, target = subject.make()
    for bad in subject.case.bad_targets.values():
        assert 'target' in message_of(subject.build(), pred, bad(target))


def test_own_name_in_messages(subject):
    loss = subject.build(loss_name='loss_of_the_left_hand')
    text = message_of(loss, *subject.make(), torch.ones(99))
    assert text.startswith('loss_of_the_left_hand: weight must')


def test_diagnostics_do_not_add_to_the_total(subject):
    """MMEngine adds up every key that contains the word."""
    loss = subject.build()
    diagnostics = getattr(loss, 'diagnostics', None)
    if diagnostics is None:
        return
    none = torch.zeros(subject.shape())
    for weight in (None, subject.weight(), none):
        values = diagnostics(*subject.make(), weight)
        assert values
        assert not any('loss' in key for key in values)
        assert all(value.shape == () and value.isfinite() for value in values.values())
        assert not any(value.requires_grad for value in values.values())
