"""The scope from both hosts, one host alone, and what an import of the package costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCK = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {blocked!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Block())
"""
# What a runner does with a config: custom imports, default scope, build through the host.
BUILD = """
from mmengine.config import Config
from mmengine.registry import DefaultScope, MODELS, init_default_scope
config = Config(dict(default_scope={host!r}, {imports}
                     model=dict(type='mmloss_plugins.KLDiscretLoss')))
if config.get('custom_imports'):
    from mmengine.utils import import_modules_from_strings
    import_modules_from_strings(**config.custom_imports)
init_default_scope(config.default_scope)
import {host}.registry
for registry in (MODELS, {host}.registry.MODELS):
    built = registry.build(config.model)
    print(type(built).__module__.split('.')[0], type(built).__name__)
print('other host imported:', {other!r} in sys.modules)
"""
CUSTOM = "custom_imports=dict(imports=['mmloss_plugins'], allow_failed_imports=False),"


def run_python(code):
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


BUILT = ['mmloss_plugins KLDiscretLoss'] * 2


@pytest.mark.parametrize('imports', ['', CUSTOM], ids=['without', 'with'])
@pytest.mark.parametrize(('host', 'other'), [('mmpose', 'mmdet'), ('mmdet', 'mmpose')])
def test_scope_resolves_from_a_config_of_each_host(host, other, imports):
    code = 'import sys\n' + BUILD.format(host=host, other=other, imports=imports)
    assert run_python(code).splitlines()[:2] == BUILT


@pytest.mark.parametrize('imports', ['', CUSTOM], ids=['without', 'with'])
def test_mmdet_alone_is_enough(imports):
    build = BUILD.format(host='mmdet', other='mmpose', imports=imports)
    lines = run_python(BLOCK.format(blocked={'mmpose'}) + build).splitlines()
    assert lines == [*BUILT, 'other host imported: False']


# MMPose 1.3 imports mmdet.utils in its RTMO head, and with it in mmpose.models. Older ones do not:
# the two names stand for the rest of an MMPose that is alone.
OLDER_MMPOSE = """
import types
mmdet = types.ModuleType('mmdet.utils')
mmdet.ConfigType, mmdet.reduce_mean = dict, None
sys.modules['mmdet.utils'] = mmdet
"""


@pytest.mark.parametrize('imports', ['', CUSTOM], ids=['without', 'with'])
def test_mmpose_alone_is_enough(imports):
    build = BUILD.format(host='mmpose', other='mmdet', imports=imports)
    code = BLOCK.format(blocked={'mmdet'}) + OLDER_MMPOSE + build
    assert run_python(code).splitlines() == [*BUILT, 'other host imported: False']


def test_codec_resolves_with_mmpose_alone():
    code = BLOCK.format(blocked={'mmdet'}) + (
        'from mmengine.registry import init_default_scope\n'
        'from mmpose.registry import KEYPOINT_CODECS\n'
        'init_default_scope("mmpose")\n'
        'codec = KEYPOINT_CODECS.get("mmloss_plugins.SimCCLabel")\n'
        'print(codec.__module__.split(".")[0], "mmdet" in sys.modules)\n'
    )
    assert run_python(code) == 'mmloss_plugins False\n'


def test_losses_work_without_any_host():
    code = BLOCK.format(blocked={'mmpose', 'mmdet'}) + (
        'from mmloss_plugins.registry import MODELS, KEYPOINT_CODECS\n'
        'print(MODELS.get("mmloss_plugins.KLDiscretLoss").__module__)\n'
        'print(KEYPOINT_CODECS.parent)\n'
    )
    assert run_python(code).splitlines() == ['mmloss_plugins.losses.simcc', 'None']


def test_broken_mmpose_is_not_taken_for_a_missing_one(tmp_path):
    (tmp_path / 'mmpose').mkdir()
    (tmp_path / 'mmpose' / '__init__.py').write_text('import a_package_that_is_missing\n')
    code = (
        f'import sys; sys.path.insert(0, {str(tmp_path)!r})\n'
        'try:\n'
        '    import mmloss_plugins.registry\n'
        'except ModuleNotFoundError as error:\n'
        '    print(error.name)\n'
    )
    assert run_python(code) == 'a_package_that_is_missing\n'


def test_bare_names_keep_their_host_class():
    code = BUILD.format(host='mmpose', other='mmdet', imports=CUSTOM) + (
        'bare = mmpose.registry.MODELS.build(dict(type="KLDiscretLoss"))\n'
        'print(type(bare).__module__)\n'
    )
    last = run_python('import sys\n' + code).splitlines()[-1]
    assert last == 'mmpose.models.losses.classification_loss'


def test_registered_names_have_no_host_among_their_owners():
    code = (
        'from mmengine.registry import MODELS as ROOT, HOOKS as ROOT_HOOKS\n'
        'from mmloss_plugins.registry import HOOKS, MODELS\n'
        'MODELS.import_from_location(); HOOKS.import_from_location()\n'
        'print(set(MODELS.module_dict) & set(ROOT.module_dict) |\n'
        '      set(HOOKS.module_dict) & set(ROOT_HOOKS.module_dict))\n'
    )
    assert run_python(code) == 'set()\n'


def test_importing_the_package_is_cheap_and_imports_no_torch():
    code = (
        'import mmloss_plugins, sys; print(sorted({"torch", "numpy", "mmengine"} & {*sys.modules}))'
    )
    assert run_python(code) == '[]\n'
    # Time of the process, which other processes of the machine do not add to.
    code = (
        'import time; start = time.process_time()\n'
        'import mmloss_plugins\n'
        'print(time.process_time() - start)\n'
    )
    assert min(float(run_python(code)) for _ in range(3)) < 0.1
