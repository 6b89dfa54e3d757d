"""What is installed in a site-packages folder, and what is only half installed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path


def read_pins(text: str) -> list[str]:
    """Return the ``name==version`` lines of a requirements file."""
    lines = (line.split('#', 1)[0].strip() for line in text.splitlines())
    return [line for line in lines if '==' in line]


def normalise(pin: str) -> str:
    """Return ``pin`` with the name in the form that pip compares."""
    name, _, version = pin.partition('==')
    return f'{re.sub(r"[-_.]+", "-", name).lower()}=={version}'


def installed(site_packages: Path) -> set[str]:
    """Return ``name==version`` of what is installed completely, names normalised."""
    folders = [folder for folder in site_packages.glob('*.dist-info') if is_complete(folder)]
    pairs = (folder.name[: -len('.dist-info')].rpartition('-') for folder in folders)
    return {normalise(f'{name}=={version}') for name, _, version in pairs}


def is_complete(dist_info: Path) -> bool:
    """Tell whether pip came to the end of an installation: it writes INSTALLER after all files."""
    return (dist_info / 'INSTALLER').is_file()


def drop_partial(site_packages: Path) -> list[Path]:
    """Delete the metadata of half installed packages, which pip would take for installed ones."""
    half = [folder for folder in site_packages.glob('*.dist-info') if not is_complete(folder)]
    # pip renames what it is about to remove to ~NAME; an interruption leaves it.
    half += site_packages.glob('~*')
    for path in half:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return half
