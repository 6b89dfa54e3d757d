"""A small generated detection set for the tests that train, made once per session."""

from __future__ import annotations

import pytest

from mmloss_plugins.datasets.digits import generate_digits


@pytest.fixture(scope='session')
def digits(tmp_path_factory):
    """Folder of 16 training and 8 validation images at 128x128."""
    folder = tmp_path_factory.mktemp('data') / 'digits'
    return generate_digits(folder, num_train=16, num_val=8, progress=False)
