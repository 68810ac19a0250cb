"""Every script can be imported whatever is installed, as one module under one name, and says what it does."""
import ast
import runpy
import subprocess
import sys
from importlib import import_module

import pytest

from scripts.benchmarks.common.command import ROOT

COMMANDS = sorted(
    file.stem for file in (ROOT / 'scripts/benchmarks').glob('[!_]*.py') if 'make_parser' in file.read_text())


@pytest.mark.parametrize('name', COMMANDS)
def test_the_help_of_a_command_is_its_docstring_and_its_usage_can_be_repeated(name, capsys):
    module = import_module(f'scripts.benchmarks.{name}')
    with pytest.raises(SystemExit, match='0'):
        module.main(['--help'])
    out = capsys.readouterr().out
    assert out.startswith(f'usage: python -m scripts.benchmarks.{name} ') and module.__doc__.strip() in out


def test_a_command_runs_by_its_usage_without_optional_packages():
    code = (
        'import runpy, sys; sys.argv = ["", "--help"]; sys.modules.update(dict.fromkeys(["matplotlib", "vit_pytorch", '
        '"nystrom_attention", "pytorch_wavelets", "wavemix", "onnx", "onnxruntime", "openvino", "executorch"])); '
        f'[__import__("scripts.benchmarks.{{}}".format(name), fromlist=["main"]) for name in {COMMANDS}]; '
        'runpy.run_module("scripts.benchmarks.deploy", run_name="__main__")')
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and 'scripts.benchmarks.deploy' in done.stdout, done.stderr


@pytest.mark.parametrize('file', sorted((ROOT / 'scripts').rglob('*.py')), ids=lambda file: file.stem)
def test_a_script_imports_by_absolute_names_from_its_own_room(file):
    imports = [node for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))) if isinstance(
        node, (ast.Import, ast.ImportFrom))]
    assert not any(getattr(node, 'level', 0) for node in imports)
    names = {name.name for node in imports for name in node.names} | {getattr(node, 'module', '') for node in imports}
    if 'benchmarks' not in file.parts:
        assert not any(name.startswith('scripts') for name in names)  # and runs by its path


def test_demo_runs_by_its_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['demo.py', '--help'])
        with pytest.raises(SystemExit, match='0'):
            runpy.run_path(str(ROOT / 'scripts/demo.py'), run_name='__main__')
