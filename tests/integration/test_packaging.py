"""The wheel and the sdist, as they would be released, in environments that have nothing else."""
import os
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLASSIFY = """
import timm
import timm_wavemix
import torch
from timm_wavemix.hub.metadata import hub_configs

model = timm.create_model('wavemix_lite_256_7', pretrained=True).eval()
assert model(torch.zeros(1, 3, 28, 28)).shape == (1, 10)
assert (hub_configs() / 'wavemix_lite_256_7.fashion_mnist.yaml').is_file()
print(timm_wavemix.__file__)
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def run(*args, cwd):
    env = {key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}
    done = subprocess.run([str(arg) for arg in args], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


@pytest.fixture(scope='module')
def dist(tmp_path_factory):
    """Folder with the sdist, and with the wheel that is built from it."""
    folder = tmp_path_factory.mktemp('dist')
    run(sys.executable, '-m', 'build', '--outdir', folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope='module')
def environment(tmp_path_factory):
    """Python of an environment with nothing but pip."""
    folder = tmp_path_factory.mktemp('environment')
    venv.create(folder, with_pip=True)
    return folder / ('Scripts' if os.name == 'nt' else 'bin') / 'python'


@pytest.mark.parametrize('kind', ['*.whl', '*.tar.gz'])
def test_package_brings_all_that_it_needs(dist, environment, tmp_path, kind):
    file, = dist.glob(kind)
    assert file.stat().st_size < 35 * 2 ** 20
    run(environment, '-m', 'pip', 'install', '--quiet', file, cwd=tmp_path)
    run(environment, '-m', 'pip', 'install', '--quiet', '--no-deps', '--force-reinstall', file, cwd=tmp_path)
    package = Path(run(environment, '-c', CLASSIFY, cwd=tmp_path).strip()).parent
    assert environment.parents[1] in package.parents
    assert (package / 'py.typed').is_file()
    usage = run(environment.with_name('timm-wavemix'), '-h', cwd=tmp_path)
    assert usage == run(environment, '-m', 'timm_wavemix', '-h', cwd=tmp_path)


def test_tests_of_the_sdist_run_from_the_sdist(dist, tmp_path):
    sdist, = dist.glob('*.tar.gz')
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter='data')
    folder = tmp_path / sdist.name.removesuffix('.tar.gz')
    imported = run(sys.executable, '-c', 'import timm_wavemix; print(timm_wavemix.__file__)', cwd=folder)
    assert Path(imported.strip()).parents[1] == folder
    collected = run(sys.executable, '-m', 'pytest', '--collect-only', '-q', '-m', '', 'tests', cwd=folder)
    assert 'tests/integration/test_packaging.py' in collected
    run(sys.executable, '-m', 'pytest', '-q', '-m', 'not slow and not recent_torch', 'tests/unit',
        'tests/integration/test_docs.py', cwd=folder)
