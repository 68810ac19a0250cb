"""`python -m timm_wavemix SCRIPT` is `python SCRIPT` with the models registered."""
import json
import subprocess
import sys

import pytest

from timm_wavemix.__main__ import main

REPORT = """
import json, sys
print(json.dumps([sys.argv, sys.path[0], __name__, vars(sys.modules['__main__']) is globals()]))
"""
ALL_REDUCE = """
import sys
import timm, torch, torch.distributed as dist
dist.init_process_group('gloo')
total = torch.tensor(dist.get_rank() + 1)
dist.all_reduce(total)
model = timm.create_model(sys.argv[1])
with open(f'{dist.get_rank()}.txt', 'w') as f:
    f.write(f'{total} {type(model).__name__}')
dist.destroy_process_group()
"""


def python(*args, cwd=None):
    return subprocess.run([sys.executable, *args], cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize('flags', [
    [],
    pytest.param(['-P'], marks=pytest.mark.skipif(sys.version_info < (3, 11), reason='python -P is of Python 3.11')),
], ids=['default', 'safe path'])
def test_script_sees_its_arguments_and_folder_as_without_us(tmp_path, flags):
    (tmp_path / 'real').mkdir()
    (tmp_path / 'real' / 'report.py').write_text(REPORT)
    (tmp_path / 'linked').symlink_to('real')
    args = ['linked/report.py', '--', '-h', '--model', 'wavemix_16_5', '--', '', 'two words', 'push']
    alone = python(*flags, *args, cwd=tmp_path)
    ours = python(*flags, '-m', 'timm_wavemix', *args, cwd=tmp_path)
    assert json.loads(alone.stdout)[0] == args
    assert ours.stdout == alone.stdout, ours.stderr


def test_models_are_registered(tmp_path):
    (tmp_path / 'script.py').write_text("import timm\nprint(timm.list_models(module='wavemix'))")
    result = python('-m', 'timm_wavemix', 'script.py', cwd=tmp_path)
    assert "'wavemix_16_5'" in result.stdout, result.stderr


@pytest.mark.parametrize('status', ["7", "'a reason'"])
def test_exit_status_is_the_scripts(tmp_path, status):
    (tmp_path / 'script.py').write_text(f'import sys\nsys.exit({status})\n')
    alone = python('script.py', cwd=tmp_path)
    ours = python('-m', 'timm_wavemix', 'script.py', cwd=tmp_path)
    assert alone.returncode != 0
    assert (ours.returncode, ours.stdout, ours.stderr) == (alone.returncode, alone.stdout, alone.stderr)


def test_exception_ends_in_a_traceback_of_the_script(tmp_path):
    (tmp_path / 'script.py').write_text('def train():\n    raise RuntimeError("no luck")\n\ntrain()\n')
    result = python('-m', 'timm_wavemix', 'script.py', cwd=tmp_path)
    assert result.returncode == 1
    assert 'script.py", line 4, in <module>\n    train()\n' in result.stderr
    assert 'script.py", line 2, in train\n    raise RuntimeError("no luck")\n' in result.stderr
    assert result.stderr.endswith('\nRuntimeError: no luck\n')


@pytest.mark.parametrize('script', ['train.py', '.', ''])
def test_missing_script_is_one_line_that_says_what_to_do(tmp_path, monkeypatch, capsys, script):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['__main__.py', script, '--help'])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 2
    out, err = capsys.readouterr()
    assert out == ''
    assert err == (
        f"There is no script '{script}': give the path of one. timm's are in its repository, which "
        "scripts/clone_timm.py clones.\n")


@pytest.mark.parametrize('argv, code', [(['-h'], 0), (['--help'], 0), ([], 2)], ids=str)
def test_usage_names_the_command(monkeypatch, capsys, argv, code):
    monkeypatch.setattr(sys, 'argv', ['__main__.py', *argv])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == code
    out, err = capsys.readouterr()
    assert (out or err).startswith('usage: python -m timm_wavemix [-h] SCRIPT [ARGS ...]\n')


def test_torchrun_starts_processes_through_us(tmp_path):
    (tmp_path / 'all_reduce.py').write_text(ALL_REDUCE)
    result = python(
        '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2',
        '-m', 'timm_wavemix', 'all_reduce.py', 'wavemix_16_5', cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert [(tmp_path / f'{rank}.txt').read_text() for rank in range(2)] == ['3 WaveMix'] * 2
