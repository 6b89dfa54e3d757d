from __future__ import annotations

from scripts import distributions


def add(site_packages, name, complete=True):
    folder = site_packages / f'{name}.dist-info'
    folder.mkdir(parents=True)
    (folder / 'METADATA').write_text('')
    if complete:
        (folder / 'INSTALLER').write_text('pip\n')
    return folder


def test_names_are_compared_as_pip_does(tmp_path):
    add(tmp_path, 'json_tricks-3.17.3')
    add(tmp_path, 'PyYAML-6.0.3')
    found = distributions.installed(tmp_path)
    assert found == {'json-tricks==3.17.3', 'pyyaml==6.0.3'}
    assert distributions.normalise('json.tricks==3.17.3') in found


def test_half_installed_package_does_not_count_and_is_dropped(tmp_path):
    add(tmp_path, 'numpy-1.26.4')
    half = add(tmp_path, 'torch-2.12.1', complete=False)
    (tmp_path / '~orch').mkdir()
    assert distributions.installed(tmp_path) == {'numpy==1.26.4'}
    dropped = distributions.drop_partial(tmp_path)
    assert sorted(dropped) == [half, tmp_path / '~orch']
    assert [path.name for path in tmp_path.iterdir()] == ['numpy-1.26.4.dist-info']


def test_pins_are_read_without_comments():
    text = '# why\ntorch==2.12.1  # CUDA\n\n-r other.txt\nnumpy==1.26.4\n'
    assert distributions.read_pins(text) == ['torch==2.12.1', 'numpy==1.26.4']
