from __future__ import annotations

import io
import os
import tarfile

import pytest

from scripts import faults, mmcv_build
from scripts.runner import Screen

FACTS = {
    'torch': '2.12.1+cu130',
    'cuda': '13.0',
    'gpu': True,
    'arch': '9.0',
    'nvcc': 'Cuda compilation tools, release 13.0, V13.0.88',
    'cuda_home': '/usr/local/cuda',
}


def test_gpu_with_matching_toolkit_builds_cuda_ops():
    target = mmcv_build.choose_target(FACTS)
    assert target.env == {
        'FORCE_CUDA': '1',
        'TORCH_CUDA_ARCH_LIST': '9.0',
        'CUDA_HOME': '/usr/local/cuda',
    }
    assert target.tag.startswith('torch2.12.1+cu130-cp311-')
    assert target.tag.endswith('-cu130-sm9.0')


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'gpu': False}, 'no NVIDIA GPU that torch can use'),
        ({'nvcc': None}, 'no CUDA toolkit (nvcc): compiling the CPU ops'),
        ({'nvcc': 'release 11.8, V11.8.89'}, 'torch is built for CUDA 13.0, nvcc is release 11.8'),
        ({'cuda': None}, 'torch is built for CUDA None'),
    ],
)
def test_otherwise_cpu_ops_are_built_and_it_is_said_why(change, said):
    target = mmcv_build.choose_target({**FACTS, **change})
    assert target.env == {'CUDA_VISIBLE_DEVICES': '', 'FORCE_CUDA': '0'}
    assert target.tag.endswith('-cpu')
    assert said in target.note


def test_a_gpu_without_toolkit_is_told_what_still_works():
    note = mmcv_build.choose_target({**FACTS, 'nvcc': None}).note
    assert 'our configs run on the GPU with them' in note
    assert 'install CUDA toolkit 13.0' in note


def test_toolkit_matters_only_with_a_driver(tmp_path, monkeypatch):
    driver = tmp_path / 'version'
    monkeypatch.delenv('CUDA_HOME', raising=False)
    monkeypatch.delenv('CUDA_PATH', raising=False)
    monkeypatch.setenv('PATH', str(tmp_path))
    assert mmcv_build.fingerprint(driver) == 'no driver'
    driver.write_text('')
    assert mmcv_build.fingerprint(driver) == 'driver, nvcc missing'
    (tmp_path / 'nvcc').write_text('')
    (tmp_path / 'nvcc').chmod(0o755)
    assert mmcv_build.fingerprint(driver) == f'driver, nvcc {tmp_path / "nvcc"}'


def test_jobs_fit_into_cores_and_memory(monkeypatch):
    monkeypatch.delenv('MAX_JOBS', raising=False)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(8)))
    pages = {'SC_PHYS_PAGES': 2**20, 'SC_PAGE_SIZE': 4096}
    monkeypatch.setattr(os, 'sysconf', pages.__getitem__)
    assert mmcv_build.count_jobs() == 2  # 4 GiB at 1.5 GiB each
    monkeypatch.setenv('MAX_JOBS', '5')
    assert mmcv_build.count_jobs() == 5


class FakeBuild(mmcv_build.MmcvBuild):
    """Stands in for the commands: which wheels load, which compilations work."""

    def __init__(self, state, facts):
        super().__init__('python', state, Screen('[5/9]', io.StringIO()), {})
        self.facts, self.tried, self.compiled, self.failing = facts, [], [], []

    def _probe(self):
        return self.facts

    def _install_kept(self, target):
        self.tried.append(target.tag)
        return bool(self.kept_wheels(target.tag))

    def _compile(self, target):
        kind = 'cpu' if target.tag.endswith('cpu') else 'cuda'
        self.compiled.append(kind)
        if kind in self.failing:
            raise faults.SetupError('compile', *faults.NO_CXX20)
        wheel = self.state / 'mmcv-2.1.0-cp311-cp311-linux_x86_64.whl'
        wheel.write_text(kind)
        self._keep(wheel, target.tag)


@pytest.fixture
def build(tmp_path, monkeypatch):
    monkeypatch.delenv(mmcv_build.KEEP_VARIABLE, raising=False)
    return lambda **change: FakeBuild(tmp_path, {**FACTS, **change})


def test_wheel_is_compiled_once_and_kept(build):
    first, second = build(gpu=False), build(gpu=False)
    first.install()
    second.install()
    assert (first.compiled, second.compiled) == (['cpu'], [])


def test_another_torch_is_compiled_for_anew(build):
    build(gpu=False).install()
    other = build(gpu=False, torch='2.13.0')
    other.install()
    assert other.compiled == ['cpu']


def test_cuda_ops_that_do_not_compile_give_way_to_cpu_ops(build):
    attempt = build()
    attempt.failing = ['cuda']
    attempt.install()
    assert attempt.compiled == ['cuda', 'cpu']
    assert 'compiling the CPU ops instead' in attempt.screen.stream.getvalue()


def test_cpu_ops_that_do_not_compile_stop_the_set_up(build):
    attempt = build(gpu=False)
    attempt.failing = ['cpu']
    with pytest.raises(faults.SetupError) as stopped:
        attempt.install()
    assert (stopped.value.why, stopped.value.todo) == faults.NO_CXX20
    assert attempt.compiled == ['cpu']


def test_wheels_can_be_kept_outside_of_the_checkout(build, tmp_path, monkeypatch):
    monkeypatch.setenv(mmcv_build.KEEP_VARIABLE, str(tmp_path / 'shared'))
    build(gpu=False).install()
    kept = list((tmp_path / 'shared').glob('torch2.12.1+cu130-cp311-*-cpu/*.whl'))
    assert [wheel.read_text() for wheel in kept] == ['cpu']


def test_interrupted_unpacking_is_not_taken_for_the_sources(build, tmp_path):
    archive = tmp_path / 'mmcv-2.1.0.tar.gz'
    with tarfile.open(archive, 'w:gz') as tar:
        data = b'setup()'
        member = tarfile.TarInfo('mmcv-2.1.0/setup.py')
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    folder = tmp_path / 'build' / 'tag'
    (tmp_path / 'build' / 'tag.part' / 'mmcv-2.1.0').mkdir(parents=True)
    source = build()._unpack(archive, folder)
    assert [path.name for path in source.iterdir()] == ['setup.py']
    (source / 'half.o').write_text('kept')
    assert build()._unpack(archive, folder) == source
    assert (source / 'half.o').read_text() == 'kept'
