"""Installs this checkout for development so that ``mim`` finds its configs and tools.

``mim`` looks for ``site-packages/mmloss_plugins/.mim``; an editable install has no such folder.
Here it is made of links to the checkout. It has no ``__init__.py``, so Python passes over it and
imports the package from the checkout; it is listed in the install's RECORD, so pip removes it.

Usage: python scripts/develop.py, with the Python of the environment to install into.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = 'mmloss_plugins'
MIM_ITEMS = ('configs', 'tools', 'model-index.yml')
INSTALL = ('-m', 'pip', 'install', '--no-deps', '--no-build-isolation', '--editable', str(ROOT))


def link_mim(site_packages: Path, root: Path = ROOT) -> list[Path]:
    """Link configs, tools and model-index.yml of ``root`` to where mim looks for them.

    Raises:
        FileNotFoundError: the package is not installed in ``site_packages``.
        FileExistsError: a wheel is installed there, whose files must not be replaced by links.
    """
    record = _find_record(site_packages)
    links = mim_links(site_packages)
    folder = links[0].parent
    if (folder.parent / '__init__.py').exists():
        raise FileExistsError(
            f'develop: {folder.parent} must not hold an installed wheel, got one. '
            'Run pip uninstall mmloss-plugins first.'
        )
    folder.mkdir(parents=True, exist_ok=True)
    for link in links:
        if link.is_symlink():
            link.unlink()
        link.symlink_to(root / link.name)
    known = record.read_text(encoding='utf-8')
    rows = (f'{link.relative_to(site_packages).as_posix()},,\n' for link in links)
    record.write_text(known + ''.join(row for row in rows if row not in known), encoding='utf-8')
    return links


def mim_links(site_packages: Path) -> list[Path]:
    """Return the links that mim needs in ``site_packages``."""
    return [site_packages / PACKAGE / '.mim' / name for name in MIM_ITEMS]


def develop(python: Path, site_packages: Path, call: Callable[[Sequence[str]], object]) -> None:
    """Install the checkout with ``python`` through ``call`` and link what mim needs."""
    call([str(python), *INSTALL])
    link_mim(site_packages)


def _find_record(site_packages: Path) -> Path:
    for record in site_packages.glob(f'{PACKAGE}-*.dist-info/RECORD'):
        return record
    raise FileNotFoundError(
        f'develop: {PACKAGE} must be installed in {site_packages}, got no {PACKAGE}-*.dist-info. '
        'Run python -m pip install -e . first.'
    )


if __name__ == '__main__':
    develop(Path(sys.executable), Path(sysconfig.get_path('purelib')), subprocess.check_call)
    print(f'{PACKAGE} is installed from {ROOT}; try: mim list')
