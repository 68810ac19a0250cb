"""Every script runs from where it lies, and can be imported whatever is installed."""
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import demo
from lib import report

SCRIPTS = sorted((report.ROOT / 'scripts').glob('*.py')) + sorted((report.ROOT / 'scripts/benchmarks').glob('[!_]*.py'))


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda script: script.stem)
def test_importing_never_exits(script, monkeypatch):
    for package in ('matplotlib', 'vit_pytorch', 'nystrom_attention', 'pytorch_wavelets', 'wavemix'):
        monkeypatch.setitem(sys.modules, package, None)
    runpy.run_path(str(script))


@pytest.mark.parametrize('script', ['scripts/export_weights.py', 'scripts/benchmarks/efficiency.py'])
def test_scripts_find_each_other_when_they_are_run(script, tmp_path):
    done = subprocess.run([sys.executable, report.ROOT / script, '-h'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f'usage: {Path(script).name}')


def test_missing_matplotlib_is_an_error_before_anything_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    monkeypatch.setattr(sys, 'argv', ['demo.py'])
    with pytest.raises(SystemExit) as error:
        demo.main()
    assert error.value.code == 'demo.py draws with matplotlib: install it with `pip install --group demo`.'
