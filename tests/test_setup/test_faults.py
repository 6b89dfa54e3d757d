from __future__ import annotations

import pytest

from scripts import faults

OUTPUTS = {
    'pip on a full disk': (
        'ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device',
        faults.DISK_FULL,
    ),
    'assembler on a full disk': (
        '/tmp/ccX.s: fatal error: error writing to /tmp/ccX.s: No space left on device',
        faults.DISK_FULL,
    ),
    'quota': ('OSError: [Errno 122] Disk quota exceeded', faults.DISK_FULL),
    'index unreachable': (
        'WARNING: Retrying (Retry(total=0)) after connection broken by '
        "'NewConnectionError: Failed to establish a new connection: [Errno 111] Connection "
        "refused'\nERROR: No matching distribution found for torch==2.12.1",
        faults.NO_NETWORK,
    ),
    'no name server': ('Temporary failure in name resolution', faults.NO_NETWORK),
    'slow index': ('pip._vendor.urllib3.exceptions.ReadTimeoutError: Read timed out.',
                   faults.NO_NETWORK),
    'download cut off': ('IncompleteRead(1000 bytes read, 2000 more expected)', faults.NO_NETWORK),
    'foreign certificate': (
        "SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]'))"
        '\nMax retries exceeded',
        faults.BAD_CERTIFICATE,
    ),
    'no compiler, from distutils': (
        "error: command 'g++' failed: No such file or directory", faults.NO_COMPILER,
    ),
    'no compiler, from ninja': ('/bin/sh: 1: c++: not found', faults.NO_COMPILER),
    'no compiler, from torch': (
        "FileNotFoundError: [Errno 2] No such file or directory: 'x86_64-linux-gnu-g++'",
        faults.NO_COMPILER,
    ),
    'no headers': ('fatal error: Python.h: No such file or directory', faults.NO_HEADERS),
    'compiler killed': ('c++: fatal error: Killed signal terminated program cc1plus',
                        faults.NO_MEMORY),
    'torch too new': ('#error "PyTorch requires C++20 or later"', faults.NO_CXX20),
    'no ensurepip': ('The virtual environment was not created: ensurepip is not available.',
                     faults.NO_ENSUREPIP),
    'foreign folder': ("PermissionError: [Errno 13] Permission denied: '.venv'",
                       faults.NO_PERMISSION),
    'wrong platform': ('ERROR: No matching distribution found for torch==2.12.1',
                       faults.NO_RELEASE),
}  # fmt: skip


@pytest.mark.parametrize('case', OUTPUTS)
def test_output_of_a_failed_command_gives_its_cause(case):
    output, cause = OUTPUTS[case]
    assert faults.explain(f'some lines before\n{output}\nsome after', 1) == cause


def test_killed_without_output_is_for_want_of_memory():
    assert faults.explain('', -9) == faults.NO_MEMORY


def test_unknown_failure_with_no_room_left_is_a_full_disk():
    assert faults.explain('strange', 1, free_bytes=10 * 2**20) == faults.DISK_FULL


def test_unknown_failure_quotes_status_and_last_line():
    cause = faults.explain('first\nerror: the moon is full\n\n', 3, free_bytes=2**40)
    assert 'status 0, got 3 after: error: the moon is full' in cause.why
    assert 'run the same command again' in cause.todo


def test_message_says_what_why_and_what_to_do():
    error = faults.SetupError('install torch', *faults.NO_NETWORK, log='.venv/.setup/torch.log')
    first, why, todo, log = error.text('step 3/9 (torch)').splitlines()
    assert first == 'set-up stopped in step 3/9 (torch): install torch'
    assert why == '  why: the package index must be reachable, got a connection error'
    assert todo.startswith('  do:  check the network, a proxy (HTTPS_PROXY)')
    assert log == '  log: .venv/.setup/torch.log'


@pytest.mark.parametrize('cause', [cause for _, cause in faults.OUTPUT_CAUSES])
def test_every_cause_states_the_rule_and_what_was_found(cause):
    assert ' must ' in cause.why or 'needs' in cause.why
    assert ', got ' in cause.why
    assert 'same command again' in cause.todo or 'make test' in cause.todo
