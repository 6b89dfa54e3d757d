"""The switch of the value checks."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from mmloss_plugins.functional import debug, value_checks, value_checks_enabled


def test_on_and_off_and_back():
    assert value_checks_enabled(), 'tests run with the checks on'
    with value_checks(False):
        assert not value_checks_enabled()
        with value_checks():
            assert value_checks_enabled()
        assert not value_checks_enabled()
    assert value_checks_enabled()


def test_back_after_an_error():
    with pytest.raises(RuntimeError, match='inside'), value_checks(False):
        raise RuntimeError('inside')
    assert value_checks_enabled()


@pytest.mark.parametrize(
    ('setting', 'expected'), [(None, False), ('', False), ('0', False), ('1', True)]
)
def test_environment_variable(monkeypatch, setting, expected):
    monkeypatch.delenv('MMLOSS_DEBUG', raising=False)
    if setting is not None:
        monkeypatch.setenv('MMLOSS_DEBUG', setting)
    spec = importlib.util.spec_from_file_location('debug_again', debug.__file__)
    again = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    assert again.value_checks_enabled() is expected


def test_never_inside_a_compiled_graph():
    seen = []

    def look(x):
        return x + 1 if value_checks_enabled() else x

    seen.append(float(torch.compile(look, fullgraph=True, backend='eager')(torch.zeros(()))))
    assert seen == [0.0]
    assert look(torch.zeros(())) == 1
