"""What a failed step's output means and what to do about it."""

from __future__ import annotations

import re
from typing import NamedTuple


class Cause(NamedTuple):
    """Probable cause of a failure and the next step for the user."""

    why: str
    todo: str


class SetupError(Exception):
    """A step failed: ``what`` failed, ``why`` probably, and what ``todo``."""

    def __init__(self, what: str, why: str, todo: str, log: str = '') -> None:
        super().__init__(what)
        self.what, self.why, self.todo, self.log = what, why, todo, log

    def text(self, where: str) -> str:
        """Return the message; ``where`` names the step, for example ``step 3/9``."""
        lines = [f'set-up stopped in {where}: {self.what}', f'  why: {self.why}']
        lines.append(f'  do:  {self.todo}')
        if self.log:
            lines.append(f'  log: {self.log}')
        return '\n'.join(lines)


AGAIN = 'then run the same command again: it continues at this step'

NO_COMPILER = Cause(
    'a C++ compiler must be on PATH to compile mmcv, got none',
    'install one (Debian, Ubuntu: sudo apt install g++; Fedora: sudo dnf install gcc-c++), '
    f'{AGAIN}',
)
OLD_COMPILER = Cause(
    'the C++ compiler must know C++17 (g++ 9 or newer), got one that does not',
    f'install a newer g++ or name one with CXX=/path/to/g++, {AGAIN}',
)
NO_HEADERS = Cause(
    "Python's C headers must be installed to compile mmcv, got no Python.h",
    f'install them (Debian, Ubuntu: sudo apt install python3.11-dev; Fedora: python3.11-devel), '
    f'{AGAIN}',
)
NO_ENSUREPIP = Cause(
    "python's venv and ensurepip modules must be there, got a Python without them",
    f'install them (Debian, Ubuntu: sudo apt install python3.11-venv), {AGAIN}',
)
DISK_FULL = Cause(
    'the disk (or a quota on it) must have room left, got "no space left on device"',
    'free about 9 GB in this folder and 3 GB in the temporary folder (or set TMPDIR), and see '
    f'`pip cache purge`, {AGAIN}',
)
NO_NETWORK = Cause(
    'the package index must be reachable, got a connection error',
    'check the network, a proxy (HTTPS_PROXY) and pip settings (`pip config list`, PIP_INDEX_URL), '
    f'{AGAIN}; what was downloaded is kept',
)
BAD_CERTIFICATE = Cause(
    "the package index's certificate must be trusted, got a TLS error",
    f'name the company or mirror certificate with PIP_CERT=/path/to/ca.pem, {AGAIN}',
)
NO_MEMORY = Cause(
    'a compiler process needs up to 1.5 GB of memory, got killed for want of it',
    'run it with fewer processes at a time, for example: make test MAX_JOBS=1',
)
NO_PERMISSION = Cause(
    'the folder must be writable, got a permission error',
    f'give the folder to your user (sudo chown -R $USER .) or clone into another one, {AGAIN}',
)
NO_CXX20 = Cause(
    'torch must be older than 2.14 to compile mmcv 2.1.0, got headers that need C++20',
    'put the pin of requirements/torch.txt back, then run the same command again',
)
NO_RELEASE = Cause(
    'the package index must offer the pinned releases for this platform (Linux x86-64, '
    'Python 3.11), got none that fits',
    'see in the log which one is missing; with a mirror or PIP_INDEX_URL set, try without it, '
    f'{AGAIN}',
)

# First match counts: a full disk or a dead network also makes pip report missing releases.
OUTPUT_CAUSES = (
    (r'No space left on device|Errno 28\b|ENOSPC|[Qq]uota exceeded', DISK_FULL),
    (r'Killed signal|internal compiler error: Killed|Cannot allocate memory|std::bad_alloc|'
     r'virtual memory exhausted|MemoryError', NO_MEMORY),
    (r'CERTIFICATE_VERIFY_FAILED|SSLError|SSLCertVerificationError', BAD_CERTIFICATE),
    (r'NewConnectionError|Max retries exceeded|Temporary failure in name resolution|'
     r'Name or service not known|Connection refused|ConnectionResetError|Network is unreachable|'
     r'ConnectTimeout|ReadTimeout|Read timed out|ProxyError|IncompleteRead|IncompleteDownload|'
     r'[Cc]onnection (?:error|broken|aborted|timed out)', NO_NETWORK),
    (r'Python\.h: No such file', NO_HEADERS),
    (r'(?:\bg\+\+|\bc\+\+|\bgcc|\bcc)\S*(?:: not found|: command not found|. failed: No such file)|'
     r"No such file or directory: '\S*(?:g\+\+|c\+\+|gcc)\S*'", NO_COMPILER),
    (r'requires? C\+\+20|C\+\+20 or later', NO_CXX20),
    (r'No module named .?ensurepip|ensurepip is not available', NO_ENSUREPIP),
    (r'Permission denied|Errno 13\b|Read-only file system', NO_PERMISSION),
    (r'No matching distribution found|is not a supported wheel on this platform', NO_RELEASE),
)  # fmt: skip


def explain(output: str, returncode: int, free_bytes: int | None = None) -> Cause:
    """Return the probable cause of a failed command from its output and exit status."""
    for pattern, cause in OUTPUT_CAUSES:
        if re.search(pattern, output):
            return cause
    if returncode in (-9, 137):
        return NO_MEMORY
    if free_bytes is not None and free_bytes < 200 * 2**20:
        return DISK_FULL
    last = next((line for line in reversed(output.splitlines()) if line.strip()), 'no output')
    return Cause(
        f'the command must exit with status 0, got {returncode} after: {last.strip()[:200]}',
        f'read the end of the log, repair what it names, {AGAIN}',
    )
