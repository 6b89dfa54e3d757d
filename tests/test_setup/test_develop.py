from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from scripts import develop, relocate


@pytest.fixture
def site_packages(tmp_path):
    info = tmp_path / 'site-packages' / 'mmloss_plugins-0.1.0.dist-info'
    info.mkdir(parents=True)
    (info / 'RECORD').write_text('mmloss_plugins-0.1.0.dist-info/RECORD,,\n')
    return info.parent


@pytest.fixture
def checkout(tmp_path):
    root = tmp_path / 'checkout'
    (root / 'configs' / 'pose').mkdir(parents=True)
    (root / 'configs' / 'pose' / 'a.py').write_text('a = 1\n')
    (root / 'tools').mkdir()
    (root / 'tools' / 'train.py').write_text('')
    (root / 'model-index.yml').write_text('Import: []\n')
    (root / 'mmloss_plugins').mkdir()
    (root / 'mmloss_plugins' / '__init__.py').write_text('here = __file__\n')
    return root


def test_mim_finds_configs_tools_and_index_of_the_checkout(site_packages, checkout):
    develop.link_mim(site_packages, checkout)
    mim = site_packages / 'mmloss_plugins' / '.mim'
    assert (mim / 'configs' / 'pose' / 'a.py').read_text() == 'a = 1\n'
    assert (mim / 'tools' / 'train.py').is_file()
    assert (mim / 'model-index.yml').read_text() == 'Import: []\n'


def test_python_still_imports_the_checkout(site_packages, checkout):
    develop.link_mim(site_packages, checkout)
    (site_packages / '__editable__.pth').write_text(f'{checkout}\n')
    code = (
        f'import site; site.addsitedir({str(site_packages)!r})\n'
        'import mmloss_plugins; print(mmloss_plugins.here)'
    )
    # -I -S: without the editable install of the environment that runs the tests.
    result = subprocess.run(
        [sys.executable, '-I', '-S', '-c', code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == str(checkout / 'mmloss_plugins' / '__init__.py')


def test_links_are_listed_so_that_pip_removes_them(site_packages, checkout):
    develop.link_mim(site_packages, checkout)
    develop.link_mim(site_packages, checkout)
    record = (site_packages / 'mmloss_plugins-0.1.0.dist-info' / 'RECORD').read_text()
    assert record.splitlines()[1:] == [
        'mmloss_plugins/.mim/configs,,',
        'mmloss_plugins/.mim/tools,,',
        'mmloss_plugins/.mim/model-index.yml,,',
    ]


def test_moved_checkout_is_linked_anew(site_packages, checkout, tmp_path):
    develop.link_mim(site_packages, checkout)
    moved = checkout.rename(tmp_path / 'moved')
    develop.link_mim(site_packages, moved)
    mim = site_packages / 'mmloss_plugins' / '.mim'
    assert (mim / 'configs').resolve() == moved / 'configs'


def test_an_installed_wheel_is_left_alone(site_packages, checkout):
    package = site_packages / 'mmloss_plugins'
    package.mkdir()
    (package / '__init__.py').write_text('')
    with pytest.raises(FileExistsError, match='must not hold an installed wheel'):
        develop.link_mim(site_packages, checkout)
    assert [path.name for path in package.iterdir()] == ['__init__.py']


def test_package_that_is_not_installed_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='pip install -e'):
        develop.link_mim(tmp_path)


def test_moved_environment_is_repaired(tmp_path):
    old = tmp_path / 'old place' / '.venv'
    venv.create(old, with_pip=False)
    script = old / 'bin' / 'mim'
    script.write_text(f'#!{old}/bin/python\nprint("mim runs")\n')
    new = tmp_path / 'new' / '.venv'
    new.parent.mkdir()
    shutil.move(old, new)
    settings = new / 'pyvenv.cfg'
    command = f'command = {sys.executable} -m venv {old}\n'
    kept = [line for line in settings.read_text().splitlines(True) if 'command' not in line]
    settings.write_text(''.join(kept) + command)

    changed = relocate.relocate(new)

    assert {new / 'bin' / 'mim', settings} <= set(changed)
    assert (new / 'bin' / 'mim').read_text().startswith(f'#!{new}/bin/python\n')
    assert str(old) not in (new / 'bin' / 'activate').read_text()
    assert relocate.relocate(new) == []


def test_scripts_start_from_a_place_with_a_space_in_its_name(tmp_path):
    place = tmp_path / 'new place'
    (place / 'bin').mkdir(parents=True)
    (place / 'bin' / 'python').symlink_to(sys.executable)
    script = place / 'bin' / 'mim'
    script.write_text('#!/old/.venv/bin/python\nimport sys\nprint("mim", *sys.argv[1:])\n')
    script.chmod(0o755)
    (place / 'pyvenv.cfg').write_text('command = /usr/bin/python3.11 -m venv /old/.venv\n')
    relocate.relocate(place)
    result = subprocess.run([script, 'list', 'a b'], capture_output=True, text=True, check=True)
    assert result.stdout == 'mim list a b\n'


def test_environment_in_its_place_is_not_touched(tmp_path):
    place = tmp_path / '.venv'
    place.mkdir()
    (place / 'pyvenv.cfg').write_text(f'command = /usr/bin/python3.11 -m venv {place}\n')
    assert relocate.relocate(place) == []
    assert relocate.relocate(Path(tmp_path, 'missing')) == []
