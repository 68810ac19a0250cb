"""The wheel and the sdist, as they would be released, and what installs them."""
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from email import message_from_string
from pathlib import Path

import onnxruntime
import pytest
import timm

ROOT = Path(__file__).parents[2]
CLASSIFY = """
import timm
import timm_wavemix
import torch

model = timm.create_model('wavemix_lite_256_7', pretrained=True).eval()
assert model(torch.zeros(1, 3, 28, 28)).shape == (1, 10)
print(timm_wavemix.__file__)
"""
RUN_ALL = """
import json, sys
from timm_wavemix.__main__ import main

for args in json.loads(sys.argv[1]):
    sys.argv = ['timm-wavemix', *args]
    main()
"""


def run(*args, cwd, **env):
    env = {**{key: value for key, value in os.environ.items() if key != 'PYTHONPATH'}, **env}
    done = subprocess.run([str(arg) for arg in args], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


@pytest.fixture(scope='module')
def dist(tmp_path_factory):
    """Folder with the sdist, and with the wheel that is built from it."""
    folder = tmp_path_factory.mktemp('dist')
    run(sys.executable, '-m', 'build', '--no-isolation', '--outdir', folder, ROOT, cwd=folder)
    return folder


# The wheel


@pytest.fixture(scope='module')
def unpacked(dist, tmp_path_factory):
    folder = tmp_path_factory.mktemp('unpacked')
    file, = dist.glob('*.whl')
    assert file.stat().st_size < 35 * 2 ** 20
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)
    return folder


def test_wheel_has_all_files_of_the_package_and_the_hub_configs(unpacked):
    sources = {file.relative_to(ROOT).as_posix() for file in (ROOT / 'timm_wavemix').rglob('*') if file.is_file()}
    sources |= {f'timm_wavemix/hub_configs/{file.name}' for file in (ROOT / 'hub_configs').glob('*.[yt]*')}
    packed = {file.relative_to(unpacked).as_posix() for file in (unpacked / 'timm_wavemix').rglob('*')}
    assert {name for name in sources if '__pycache__' not in name} <= packed
    assert 'timm_wavemix/py.typed' in packed


def test_commands_run_from_the_wheel_outside_the_checkout(unpacked, tmp_path):
    origin = tmp_path / 'origin'
    git = 'git', '-c', 'user.name=a', '-c', 'user.email=a@b'
    run(*git, 'init', '--quiet', origin, cwd=tmp_path)
    run(*git, 'commit', '--quiet', '--allow-empty', '-m', 'timm', cwd=origin)
    run(*git, 'tag', f'v{timm.__version__}', cwd=origin)

    (tmp_path / 'where.py').write_text('import timm_wavemix\nprint(timm_wavemix.__file__)\n')
    commands = [
        ['clone-timm', '--url', origin.as_uri()], ['export', 'wavemix_16_5', 'onnx', 'wavemix.onnx'],
        ['push', 'wavemix_16_5', '--repo-id', 'me/wavemix', '--dry-run'], ['where.py']]
    out = run(sys.executable, '-c', RUN_ALL, json.dumps(commands), cwd=tmp_path, PYTHONPATH=str(unpacked))
    assert (tmp_path / 'pytorch-image-models' / '.git').is_dir()
    assert onnxruntime.InferenceSession(tmp_path / 'wavemix.onnx').get_outputs()[0].shape[1] == 10
    assert 'Fashion-MNIST' in out  # from the hub_configs
    assert unpacked in Path(out.splitlines()[-1]).parents


# The README of the package


@pytest.mark.parametrize('url', ['', 'https://example.org/me/repo'])
def test_links_of_the_packages_readme_lead_to_the_repository_or_are_left_out(tmp_path, url):
    for name in 'pyproject.toml', 'setup.py', 'README.md', 'LICENSE', 'timm_wavemix/__init__.py':
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    config = tmp_path / 'pyproject.toml'
    text = re.sub(r'^Repository = .*\n', '', config.read_text(), flags=re.MULTILINE)
    config.write_text(text.replace('[project.urls]\n', f'[project.urls]\nRepository = "{url}"\n' if url else
                                   '[project.urls]\n'))
    for package in re.search(r'^packages = \[(.*)\]', text, re.MULTILINE).group(1).replace('"', '').split(', '):
        (tmp_path / package.replace('.', '/')).mkdir(exist_ok=True)
    (tmp_path / 'hub_configs').mkdir()
    (tmp_path / 'out').mkdir()
    run(sys.executable, '-c',
        "from setuptools.build_meta import prepare_metadata_for_build_wheel as prepare; prepare('out')", cwd=tmp_path)
    file, = tmp_path.glob('out/*/METADATA')
    metadata = message_from_string(file.read_text(encoding='utf-8'))
    readme = metadata.get_payload()
    assert metadata['Description-Content-Type'] == 'text/markdown'
    links = re.findall(r'\]\(([^)]+)\)', readme)
    assert all(re.match('https?://', link) for link in links)
    ours = [link.split('main/')[1].partition('#')[0] for link in links if url and link.startswith(url)]
    assert all((ROOT / path).exists() for path in ours)
    assert bool(ours) == bool(url)
    assert len(readme.splitlines()) >= 100


# Whole environments


@pytest.fixture(scope='module')
def environment(tmp_path_factory):
    """Python of an environment with nothing but pip."""
    folder = tmp_path_factory.mktemp('environment')
    venv.create(folder, with_pip=True)
    return folder / ('Scripts' if os.name == 'nt' else 'bin') / 'python'


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize('kind', ['*.whl', '*.tar.gz'])
def test_package_brings_all_that_it_needs(dist, environment, tmp_path, kind):
    file, = dist.glob(kind)
    run(environment, '-m', 'pip', 'install', '--quiet', file, cwd=tmp_path)
    run(environment, '-m', 'pip', 'install', '--quiet', '--no-deps', '--force-reinstall', file, cwd=tmp_path)
    package = Path(run(environment, '-c', CLASSIFY, cwd=tmp_path).strip()).parent
    assert environment.parents[1] in package.parents
    assert run(environment.with_name('timm-wavemix'), '-h', cwd=tmp_path).startswith('usage: timm-wavemix ')


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_tests_of_the_sdist_run_from_the_sdist(dist, tmp_path):
    sdist, = dist.glob('*.tar.gz')
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter='data')
    folder = tmp_path / sdist.name.removesuffix('.tar.gz')
    imported = run(sys.executable, '-c', 'import timm_wavemix; print(timm_wavemix.__file__)', cwd=folder)
    assert Path(imported.strip()).parents[1] == folder
    collected = run(sys.executable, '-m', 'pytest', '--collect-only', '-q', '-m', '', 'tests', cwd=folder)
    assert 'tests/integration/test_packaging.py' in collected
    run(sys.executable, '-m', 'pytest', '-q', '-m', 'not slow', 'tests/unit', 'tests/integration/test_docs.py',
        cwd=folder)


# What installs and publishes it


def test_lowest_versions_are_those_that_the_package_declares():
    config, lowest = ((ROOT / name).read_text() for name in ('pyproject.toml', 'requirements-lowest.txt'))
    dependencies, = re.findall(r'^dependencies = \[\n(.*?)^\]', config, re.DOTALL | re.MULTILINE)
    floors = dict(re.findall(r'"([\w-]+)>=([\d.]+)', dependencies))
    pinned = dict(re.findall(r'^([\w-]+)==([\d.]+?)(?:\.0)?$', lowest, re.MULTILINE))
    assert all((ROOT / path).is_file() for path in re.findall(r'tests/\S+\.py', (ROOT / 'Makefile').read_text()))
    assert pinned == floors and {'torch', 'torchvision', 'timm', 'huggingface-hub'} == set(floors)


@pytest.mark.skipif(not shutil.which('make') or os.name == 'nt', reason='make or a POSIX shell is not there')
def test_make_shows_pips_own_error(tmp_path):
    python = tmp_path / 'python'
    python.write_text(f'''#!/bin/sh
case "$2" in
    venv) mkdir -p "$3/bin" && cp "$0" "$3/bin/python";;
    pip) echo "ERROR: no space left" >&2; exit 1;;
    *) exec "{sys.executable}" "$@";;
esac
''')
    python.chmod(0o755)
    make = subprocess.run(
        ['make', 'demo', f'VENV={tmp_path}/venv', f'PYTHON={python}'], cwd=ROOT, capture_output=True, text=True)
    assert make.returncode and 'ERROR: no space left' in make.stderr


@pytest.mark.skipif(not (ROOT / '.git').exists(), reason='this is not a checkout')
def test_git_ignores_what_the_commands_of_the_pages_write():
    pages = [*ROOT.glob('*.md'), *ROOT.glob('docs/*.md'), ROOT / 'hub_configs' / 'README.md']
    shell = [block for page in pages for block in re.findall(
        r'^ *```sh\n(.*?)```', page.read_text(encoding='utf-8'), re.DOTALL | re.MULTILINE)]
    files = set(re.findall(r'(?<=\s)[\w./]+\.(?:json|md|onnx|png|pt2|pte|tar|xml)\b', '\n'.join(shell)))
    written = sorted(file for file in files if not (ROOT / file).exists())
    done = subprocess.run(
        ['git', 'check-ignore', '--no-index', *written], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == written and 'wavemix.onnx' in written
