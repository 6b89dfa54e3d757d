"""The wheel: what is in it, what it asks for, and that mim can use it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope='module')
def metadata(wheel, names):
    path = next(name for name in names if name.endswith('.dist-info/METADATA'))
    with zipfile.ZipFile(wheel) as archive:
        return Parser().parsestr(archive.read(path).decode())


def test_wheel_is_pure_and_named_as_mim_expects(wheel):
    assert re.fullmatch(r'mmloss_plugins-[\d.]+-py3-none-any\.whl', wheel.name)


def test_wheel_carries_every_config_tool_and_the_index(names):
    carried = {name for name in names if name.startswith('mmloss_plugins/.mim/')}
    files = [path for folder in ('configs', 'tools') for path in (ROOT / folder).rglob('*')]
    expected = {
        f'mmloss_plugins/.mim/{path.relative_to(ROOT).as_posix()}'
        for path in files
        if path.is_file() and '__pycache__' not in path.parts
    }
    assert len(expected) > 5
    assert carried == expected | {'mmloss_plugins/.mim/model-index.yml'}


def test_wheel_carries_every_module_and_nothing_else(names):
    modules = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / 'mmloss_plugins').rglob('*.py')
    }
    others = {name for name in names if '/.mim/' not in name and '.dist-info/' not in name}
    assert modules <= others
    assert {name.split('/')[0] for name in others} == {'mmloss_plugins'}


def test_top_level_names_the_module(wheel, names):
    path = next(name for name in names if name.endswith('top_level.txt'))
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(path).decode().split() == ['mmloss_plugins']


def test_installing_changes_no_version_of_an_openmmlab_environment(metadata):
    requirements = metadata.get_all('Requires-Dist')
    needed = [line for line in requirements if 'extra ==' not in line]
    assert sorted(needed) == ['mmengine<1.0,>=0.10', 'numpy', 'torch>=2.0']
    assert not any('==' in line.split(';')[0] for line in requirements)
    assert {'mmpose', 'mmdet', 'claims', 'dev'} <= set(metadata.get_all('Provides-Extra'))


def test_index_lists_metafiles_that_exist_and_models_that_mim_can_find():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    seen = set()
    for name in index['Import']:
        for model in yaml.safe_load((ROOT / name).read_text())['Models']:
            # mim lowers what the user typed and compares it with the name as it stands.
            assert model['Name'] == model['Name'].lower()
            assert (ROOT / model['Config']).is_file(), model['Config']
            assert model['Name'] not in seen
            seen.add(model['Name'])
    assert seen


def test_every_metafile_is_in_the_index():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    metafiles = {path.relative_to(ROOT).as_posix() for path in ROOT.glob('configs/**/metafile.yml')}
    assert set(index['Import']) == metafiles


def test_base_names_of_configs_are_unique():
    # mim looks a config up by its base name over all that is installed of the package.
    configs = [path.name for path in (ROOT / 'configs').rglob('*.py')]
    assert sorted(configs) == sorted(set(configs))


def mim(arguments, folder, first_on_path=''):
    return subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'mim', *arguments],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(first_on_path)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize('kind', ['wheel', 'development'])
def test_mim_search_lists_our_models(kind, installed_wheel, tmp_path):
    path = installed_wheel if kind == 'wheel' else ''
    result = mim(['search', 'mmloss_plugins'], tmp_path, path)
    assert result.returncode == 0, result.stderr
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    for name in index['Import']:
        for model in yaml.safe_load((ROOT / name).read_text())['Models']:
            assert model['Name'] in result.stdout


@pytest.mark.parametrize('kind', ['wheel', 'development'])
def test_mim_train_finds_a_config_by_its_name_and_our_script(kind, installed_wheel, tmp_path):
    path = installed_wheel if kind == 'wheel' else ''
    config = next(p for p in (ROOT / 'configs').rglob('*.py') if '_base_' not in p.parts)
    result = mim(['train', 'mmloss_plugins', config.name, '--no-such-option'], tmp_path, path)
    where = installed_wheel if kind == 'wheel' else ROOT
    assert f'will use {where}' in result.stdout, result.stdout + result.stderr
    assert '.mim/tools/train.py' in result.stdout
    # Our script refuses the option: it was started, with the config that mim found.
    assert 'unrecognized arguments: --no-such-option' in result.stderr
