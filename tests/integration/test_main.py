"""`timm-wavemix SCRIPT` is `python SCRIPT` with the models registered; its other commands are those of the package."""
import json
import subprocess
import sys

import pytest
import timm

from timm_wavemix.__main__ import COMMANDS, main

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
TYPED = [('/usr/bin/timm-wavemix', 'timm-wavemix'), ('/lib/timm_wavemix/__main__.py', 'python -m timm_wavemix')]


def python(*args, cwd=None):
    return subprocess.run([sys.executable, *args], cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Call main() as if it had been typed in tmp_path; returns the exit status, the output and what goes to stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', sys.path[:])

    def call(*args, argv0=TYPED[0][0]):
        monkeypatch.setattr(sys, 'argv', [argv0, *args])
        code = 0
        try:
            main()
        except SystemExit as error:
            code = error.code
        out, err = capsys.readouterr()
        return (1, out, f'{code}\n') if isinstance(code, str) else (code or 0, out, err)  # as Python does
    return call


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


def test_exception_ends_in_a_traceback_of_the_script(tmp_path, call):
    (tmp_path / 'script.py').write_text('def train():\n    raise RuntimeError("no luck")\n\ntrain()\n')
    with pytest.raises(RuntimeError, match='^no luck$') as error:
        call('script.py')
    assert [(entry.path.name, entry.lineno + 1) for entry in error.traceback[-2:]] == [
        ('script.py', 4), ('script.py', 2)]


def test_exit_status_is_the_scripts(tmp_path, call):
    (tmp_path / 'script.py').write_text('import sys\nsys.exit(7)\n')
    assert call('script.py') == (7, '', '')


def test_torchrun_starts_processes_through_us(tmp_path):
    (tmp_path / 'all_reduce.py').write_text(ALL_REDUCE)
    result = python(
        '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2',
        '-m', 'timm_wavemix', 'all_reduce.py', 'wavemix_16_5', cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert [(tmp_path / f'{rank}.txt').read_text() for rank in range(2)] == ['3 WaveMix'] * 2


@pytest.mark.parametrize('script', ['train.py', '.', ''])
def test_missing_script_is_one_line_that_names_it_and_what_gets_it(call, script):
    status, out, err = call(script, '--help')
    assert (status, out, err.count('\n')) == (2, '', 1)
    assert f"'{script}'" in err and 'timm-wavemix clone-timm' in err


@pytest.mark.parametrize('argv0, typed', TYPED)
@pytest.mark.parametrize('command', ['', *COMMANDS])
def test_usage_and_errors_name_what_was_typed(call, argv0, typed, command):
    words = [command] if command else []
    status, out, _ = call(*words, '--help', argv0=argv0)
    assert status == 0 and out.startswith(f'usage: {" ".join([typed, *words])} ')
    status, out, err = call(*words, *([] if command in ('', 'push', 'export') else ['--no-option']), argv0=argv0)
    assert status and not out and err.splitlines()[-1].startswith(' '.join([typed, *words]) + ': ')


@pytest.mark.parametrize('command', ['', *COMMANDS])
def test_help_fits_on_one_screen(call, monkeypatch, command):
    monkeypatch.setenv('COLUMNS', '100')
    _, out, _ = call(*([command] if command else []), '--help', argv0=TYPED[1][0])
    assert len(out.splitlines()) <= 24
    assert max(map(len, out.splitlines())) <= 100


# clone-timm


@pytest.fixture
def origin(tmp_path):
    """A repository with the tag of the installed timm between two other commits, in the current folder."""
    folder = tmp_path / 'origin'

    def git(*args):
        subprocess.run(['git', '-C', folder, '-c', 'user.name=a', '-c', 'user.email=a@b', *args], check=True)

    folder.mkdir()
    git('init', '--quiet')
    for version in 'older', timm.__version__, 'newer':
        (folder / 'version').write_text(version)
        git('add', '.')
        git('commit', '--quiet', '-m', version)
        git('tag', f'v{version}')
    return folder


def test_clone_has_the_installed_version_alone(call, origin, tmp_path):
    status, out, err = call('clone-timm', 'my clone', '--url', origin.as_uri())
    folder = tmp_path / 'my clone'
    assert (status, err) == (0, '')
    assert 'my clone' in out.splitlines()[-1]
    assert (folder / 'version').read_text() == timm.__version__
    log = subprocess.run(['git', '-C', folder, 'log', '--format=%s'], capture_output=True, text=True).stdout
    assert log.split() == [timm.__version__]


def test_clone_leaves_an_existing_folder_alone(call, origin, tmp_path):
    (tmp_path / 'mine').mkdir()
    status, _, err = call('clone-timm', 'mine', '--url', origin.as_uri())
    assert status == 1 and "'mine'" in err
    assert not list((tmp_path / 'mine').iterdir())


@pytest.mark.parametrize('url', ['origin', 'https://127.0.0.1:9/timm'], ids=['no tag', 'no network'])
def test_clone_says_that_the_tag_or_the_network_is_missing(call, origin, tmp_path, monkeypatch, url):
    subprocess.run(['git', '-C', origin, 'tag', '-d', f'v{timm.__version__}'], check=True, stdout=subprocess.DEVNULL)
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    status, _, err = call('clone-timm', 'out', '--url', url)
    assert status == 1 and err.count('\n') == 1
    assert f'v{timm.__version__} of {url}' in err and '--url' in err
    assert not (tmp_path / 'out').exists()


def test_clone_says_that_git_is_missing(call, tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    status, _, err = call('clone-timm', str(tmp_path / 'out'))
    assert status == 1 and 'git is not installed' in err
