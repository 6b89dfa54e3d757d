"""Creates .venv and installs what `make demo` and `make test` need; says what to do if it fails.

Usage: python3 scripts/bootstrap.py [--dev]
"""

# Only syntax of Python 3.6 here: an older Python has to get as far as the message below.
import os
import shutil
import subprocess
import sys

WANTED = (3, 11)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
FOUND_BY = 'MMLOSS_BOOTSTRAP_PYTHON'


def is_wanted(python):
    """Tell whether the command ``python`` starts a Python of the wanted version."""
    code = 'import sys; sys.exit(sys.version_info[:2] != {!r})'.format(WANTED)
    try:
        # A pyenv shim exists for versions that are not active and fails when it is run.
        result = subprocess.run(
            [python, '-c', code],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    except OSError:
        return False
    return result.returncode == 0


def find_python():
    """Return a command that starts the wanted Python, or None."""
    name = 'python{}.{}'.format(*WANTED)
    for folder in os.environ.get('PATH', '').split(os.pathsep):
        python = shutil.which(name, path=folder)
        if python and is_wanted(python):
            return python
    return None


def refuse(version):
    """Return the message for a machine without the wanted Python."""
    wanted = 'Python {}.{}'.format(*WANTED)
    return (
        'set-up stopped before step 1: the wrong Python\n'
        '  why: python must be {wanted} (the compiled hosts are tested with it), got {got} from '
        '{path}, and no python{short} is on PATH.\n'
        '  do:  install it (Debian, Ubuntu: sudo apt install python{short} python{short}-venv '
        'python{short}-dev; else pyenv, uv or conda), then run the same command again; a Python '
        'off PATH is named like this: make test PYTHON=/path/to/python{short}'
    ).format(wanted=wanted, got=version, path=sys.executable, short='{}.{}'.format(*WANTED))


def main():
    """Start the set-up with the wanted Python."""
    if sys.version_info[:2] == WANTED:
        sys.path.insert(0, ROOT)
        from scripts import environment

        return environment.main(sys.argv[1:])
    python = None if os.environ.get(FOUND_BY) else find_python()
    if python is None:
        print(refuse('.'.join(str(part) for part in sys.version_info[:3])), file=sys.stderr)
        return 1
    os.environ[FOUND_BY] = python
    os.execv(python, [python, os.path.abspath(__file__), *sys.argv[1:]])  # noqa: PTH100
    return 1


if __name__ == '__main__':
    sys.exit(main())
