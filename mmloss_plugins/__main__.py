"""``python -m mmloss_plugins COMMAND``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

# name: (module with main(arguments) -> exit status, one line of help)
COMMANDS = {
    'doctor': ('mmloss_plugins.doctor', 'versions, what is registered, what does not fit together'),
}


def usage() -> str:
    """Return the list of commands."""
    rows = (f'  {name:<10} {text}' for name, (_, text) in COMMANDS.items())
    return '\n'.join(('usage: python -m mmloss_plugins COMMAND', *rows))


def main(arguments: Sequence[str]) -> int:
    """Run the command that ``arguments`` names and return its exit status."""
    if not arguments or arguments[0] in ('-h', '--help'):
        print(usage())
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in COMMANDS:
        known = ', '.join(COMMANDS)
        print(
            f'mmloss_plugins: command must be one of {known}, got {name!r}. '
            'Run python -m mmloss_plugins --help.',
            file=sys.stderr,
        )
        return 2
    # Imported here, so that the list of commands needs none of their packages.
    return int(importlib.import_module(COMMANDS[name][0]).main(rest))


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
