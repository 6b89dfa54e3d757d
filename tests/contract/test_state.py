"""Law 9: losses copy, pickle and leave nothing in a checkpoint."""

from __future__ import annotations

import copy
import io
import pickle

import torch
from torch.testing import assert_close

from tests.contract.subject import loss_and_gradients


def assert_equal(subject, copied, loss):
    assert type(copied) is type(loss)
    assert vars(copied).keys() == vars(loss).keys()
    assert copied.extra_repr() == loss.extra_repr()
    arguments = (*subject.make(), subject.weight())
    assert_close(loss_and_gradients(copied, *arguments), loss_and_gradients(loss, *arguments))


def test_deepcopy(subject):
    loss = subject.build(loss_weight=0.5)
    assert_equal(subject, copy.deepcopy(loss), loss)


def test_pickle(subject):
    loss = subject.build(loss_weight=0.5)
    assert_equal(subject, pickle.loads(pickle.dumps(loss)), loss)


def test_pickle_after_use(subject):
    loss = subject.build()
    loss(*subject.make(), subject.weight()).backward()
    assert_equal(subject, pickle.loads(pickle.dumps(loss)), loss)


def test_copies_of_a_loss_that_compiles(plain):
    loss = plain.build(compile=True)
    for copied in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert copied.use_compile
        assert copied.extra_repr() == loss.extra_repr()


def test_nothing_in_the_checkpoint(subject):
    loss = subject.build()
    if subject.variant.state:
        assert loss.state_dict(), f'nothing is kept, so what about: {subject.variant.state}'
        return
    assert not loss.state_dict(), 'constants belong in non-persistent buffers'
    assert not list(loss.parameters()), 'parameters belong in a head'
    assert not any(isinstance(value, torch.Tensor) for value in vars(loss).values()), (
        'a tensor that is no buffer stays behind on .to(device)'
    )


def test_state_dict_round_trip(subject):
    file = io.BytesIO()
    torch.save(subject.build().state_dict(), file)
    file.seek(0)
    loss = subject.build()
    keys = loss.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert not keys.missing_keys
    assert not keys.unexpected_keys
    assert_equal(subject, loss, subject.build())


def test_buffers_follow_the_device(subject):
    loss = subject.build().to('meta')
    assert all(buffer.is_meta for buffer in loss.buffers())
    assert loss.extra_repr().startswith('reduction=')


def test_train_and_eval_give_the_same(subject):
    arguments = (*subject.make(), subject.weight())
    assert_close(
        subject.build().train()(*arguments), subject.build().eval()(*arguments), rtol=0, atol=0
    )
