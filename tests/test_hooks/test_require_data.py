from __future__ import annotations

import re

import pytest
from mmengine.registry import HOOKS

import mmloss_plugins.registry  # noqa: F401 (a scope must be known before a bare mmengine build)


def build(root, files=('annotations/a.json',)):
    return HOOKS.build(
        dict(
            type='mmloss_plugins.RequireDataHook',
            data_root=str(root),
            files=list(files),
            next_step='Write it with: make-data',
        )
    )


def test_complete_data_pass(tmp_path):
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations' / 'a.json').write_text('{}')
    assert build(tmp_path).priority == 'NORMAL'


def test_missing_folder_names_path_and_next_step(tmp_path):
    missing = tmp_path / 'nowhere'
    text = (
        f"RequireDataHook: data_root='{missing}' must be a folder with annotations/a.json, "
        f'got no folder {missing}. Write it with: make-data.'
    )
    with pytest.raises(FileNotFoundError, match=re.escape(text)):
        build(missing)


def test_missing_file_is_named(tmp_path):
    (tmp_path / 'b.json').write_text('{}')
    with pytest.raises(FileNotFoundError, match=re.escape(f'got {tmp_path} without c.json')):
        build(tmp_path, ['b.json', 'c.json'])
