"""Fixtures for every test: one thread, fixed seeds, value checks on."""

from __future__ import annotations

import gc
import random

import numpy as np
import pytest
import torch

from mmloss_plugins.functional import value_checks
from tests.digits import digits  # noqa: F401 (a fixture)
from tests.figures import figures  # noqa: F401 (a fixture)
from tests.wheel import installed_wheel, wheel  # noqa: F401 (fixtures)


@pytest.fixture(scope='session', autouse=True)
def one_thread():
    """Two OpenMP threads on a shared machine can be ten times slower than one."""
    torch.set_num_threads(1)


@pytest.fixture(scope='module', autouse=True)
def frozen_survivors():
    """MMEngine collects garbage for every data set, two seconds beside the compiled graphs."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeds():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (the hosts draw from the global generator)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def checked_values():
    """Labels that are NaN or negative raise in every test that does not switch this off."""
    with value_checks():
        yield


@pytest.fixture
def mmdet_scope():
    """MMDetection's heads build their parts in the scope of the run, which other tests leave."""
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmdet'):
        yield
