"""A small generated figure set for the tests that train, made once per session."""

from __future__ import annotations

import pytest

from mmloss_plugins.datasets.figures import generate_figures


@pytest.fixture(scope='session')
def figures(tmp_path_factory):
    """Folder of 32 training and 8 validation figures."""
    folder = tmp_path_factory.mktemp('data') / 'figures'
    generate_figures(folder, num_train=32, num_val=8, progress=False)
    return folder
