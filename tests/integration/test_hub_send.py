"""Push to a Hub that runs here through the unmodified huggingface_hub: what arrives, what is said, what is left."""
import errno
import importlib.util
import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading

import huggingface_hub
import pytest
import timm
import torch
from flask import Response, abort
from timm.models import PretrainedCfg, save_for_hf

from conftest import checkpoint, same
from hub_server import HubServer
from timm_wavemix import checkpoints
from timm_wavemix.hub import errors, send
from timm_wavemix.hub import push as command
from timm_wavemix.hub.files import write_files

NAME = 'wavemix_16_5.fashion_mnist'
FILES = {'README.md', 'config.json', 'model.safetensors'}
KINDS = [  # of blocks, channels and image sizes
    NAME, 'wavemix_lite_8_5.fashion_mnist', 'wavemix_lite_256_7_s2', 'fnet2d_64_5', 'mlp_mixer2d_64_5',
    'wavemix_192_16_l3_p4.tiny_imagenet_64']  # those without weights of one block


def tree(server, repo_id='org/model', revision='main'):
    repo = server.repos[repo_id]
    return repo.commits[repo.refs[revision]]


def head(server, revision='main'):
    return server.repos['org/model'].refs[revision]


def commits(server):
    return sum('/commit/' in request for request in server.requests)


@pytest.fixture(scope='session')
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp('written')
    write_files(NAME, 'org/model', folder)
    return folder


@pytest.fixture(autouse=True)
def written_once(monkeypatch, written):
    """The files of one model are the same in each of these tests, and are written once."""
    monkeypatch.setattr(command, 'write_files', lambda source, repo_id, folder, *args, **kwargs: (
        shutil.copytree(written, folder, dirs_exist_ok=True) and [] if (source, repo_id) == (NAME, 'org/model') else
        write_files(source, repo_id, folder, *args, **kwargs)))


@pytest.fixture
def refused(server, push):
    """Push what fails, and return the one line that says why."""
    def run(*args, code=1):
        status, _, err = push(*(args or [NAME]), '--repo-id', 'org/model')
        assert status == code and 'Traceback' not in err
        lines = [line for line in err.splitlines() if line.startswith('push: ')]
        assert len(lines) == 1
        return lines[0]
    return run


# What is pushed comes back


@pytest.mark.parametrize('name', KINDS)
def test_every_kind_of_model_comes_back_bit_for_bit(server, push, pull, tmp_path, name):
    torch.manual_seed(0)
    packaged = timm.is_model_pretrained(name) and timm.get_pretrained_cfg(name).file
    args = {} if packaged else {'depth': 1}
    model, source = timm.create_model(name, pretrained=bool(packaged), **args).eval(), name
    if not packaged:
        source = tmp_path / 'model'
        save_for_hf(model, source, safe_serialization=True, model_args=args)
    code, out, err = push(source, '--repo-id', f'org/{name}')
    assert (code, err) == (0, '') and out.endswith(f"/org/{name}/commit/{server.repos[f'org/{name}'].refs['main']}\n")
    again = pull(f'org/{name}')
    assert same(again, model) and again.state_dict().keys() == model.state_dict().keys()
    for key in 'input_size', 'mean', 'std', 'label_names':
        assert tuple(again.pretrained_cfg.get(key) or ()) == tuple(model.pretrained_cfg.get(key) or ())
    for key in 'architecture', 'crop_pct', 'interpolation', 'num_classes':
        assert again.pretrained_cfg[key] == model.pretrained_cfg[key]
    assert set(tree(server, f'org/{name}')) == FILES | {'.gitattributes'}


def test_branches_pull_requests_and_main_are_kept_apart(server, push, pull, model, folder):
    packaged = timm.create_model(NAME, pretrained=True).eval()
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    first = head(server)
    assert push(folder, '--repo-id', 'org/model', '--revision', 'seven')[0] == 0
    code, out, _ = push(folder, '--repo-id', 'org/model', '--create-pr')
    assert code == 0 and out.endswith(f'{server.url}/org/model/discussions/1\n')
    assert head(server) == first and same(pull('org/model'), packaged)
    assert same(pull('org/model@seven'), model) and same(pull('org/model@refs/pr/1'), model)
    assert same(checkpoints.load_model('hf-hub:org/model@seven'), model)
    assert push(folder, '--repo-id', 'org/model')[0] == 0
    assert same(pull('org/model'), model) and same(pull(f'org/model@{first}'), packaged)


def test_one_commit_replaces_the_files_of_a_push_and_leaves_others(server, push, model, folder, tmp_path):
    assert push(checkpoint(tmp_path / 'last.pth.tar', model), '--repo-id', 'org/model')[0] == 0
    assert 'train_hparams.yaml' in tree(server)
    server.repos['org/model'].commit('main', {'notes.txt': b'mine', 'pytorch_model.bin': b'old weights'})
    made, before = len(server.repos['org/model'].commits), tree(server)
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    assert len(server.repos['org/model'].commits) == made + 1
    changed = {path for path, content in before.items() if tree(server).get(path) != content}
    assert changed == FILES | {'train_hparams.yaml'} and 'train_hparams.yaml' not in tree(server)


@pytest.mark.parametrize('where', [[], ['--revision', 'branch'], ['--create-pr']], ids=str)
def test_a_second_run_sends_nothing(server, push, folder, where):
    first = push(NAME, '--repo-id', 'org/model', *where)[1].splitlines()[-1]
    refs = dict(server.repos['org/model'].refs)
    server.requests.clear()
    code, out, _ = push(NAME, '--repo-id', 'org/model', *where)
    assert code == 0 and commits(server) == 0 and server.repos['org/model'].refs == refs
    assert out.splitlines()[-1] != first  # says that nothing was sent
    assert out.endswith('discussions/1\n' if '--create-pr' in where else f'commit/{head(server, *where[1:])}\n')
    assert push(folder, '--repo-id', 'org/model', *where)[0] == 0  # other content
    assert commits(server) == 1


def test_no_pull_request_of_what_main_has(server, push):
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    code, out, _ = push(NAME, '--repo-id', 'org/model', '--create-pr')
    assert code == 0 and out.endswith(f'commit/{head(server)}\n') and not server.repos['org/model'].titles


def test_names_of_our_weights_pull_from_the_organisation_that_is_set(server, push, tmp_path, monkeypatch):
    ours = timm.create_model(NAME, pretrained=True)
    torch.nn.init.ones_(ours.head.fc.bias)
    save_for_hf(ours, tmp_path / 'changed', safe_serialization=True)
    assert push(tmp_path / 'changed', '--repo-id', f'org/{NAME}')[0] == 0
    code = f"import timm, timm_wavemix; print(timm.create_model('{NAME}', pretrained=True).head.fc.bias.sum().item())"
    env = {**os.environ, 'HF_HOME': str(tmp_path / 'home'), 'TIMM_WAVEMIX_HUB_ORG': 'org'}
    assert subprocess.run([sys.executable, '-c', code], env=env, stdout=subprocess.PIPE).stdout == b'10.0\n'
    monkeypatch.setenv('TIMM_WAVEMIX_HUB_ORG', 'nobody')
    monkeypatch.setattr(checkpoints, 'registered_cfg', lambda name: PretrainedCfg(hf_hub_id=f'nobody/{name}'))
    with pytest.raises(RuntimeError, match='TIMM_WAVEMIX_HUB_ORG'):
        checkpoints.load_source(NAME)


# Tokens


@pytest.mark.parametrize('token', [None, 'hf_wrong', 'hf_read', 'hf_\u200bwrite', 'hf_\x07write'])
def test_push_without_the_right_token(server, refused, monkeypatch, token):
    monkeypatch.delenv('HF_TOKEN') if token is None else monkeypatch.setenv('HF_TOKEN', token)
    line = refused()
    assert server.repos == {} and (token is None or not any(part in line for part in (token, repr(token)[1:-1])))
    if token == 'hf_wrong':
        assert 'HF_TOKEN' in line and 'auth login' not in line and 'Invalid credentials' in line


@pytest.mark.parametrize('break_it', [
    lambda monkeypatch, file: file.mkdir(),
    lambda monkeypatch, file: file.write_bytes(b'hf_\xff'),
    pytest.param(
        lambda monkeypatch, file: monkeypatch.setenv('HF_OIDC_RESOURCE', 'org/model'),
        marks=pytest.mark.skipif(
            importlib.util.find_spec('huggingface_hub._oidc') is None, reason='this huggingface_hub has no OIDC')),
], ids=['folder', 'not UTF-8', 'OIDC without an id'])
def test_token_that_cannot_be_read(server, refused, monkeypatch, tmp_path, break_it):
    monkeypatch.delenv('HF_TOKEN')
    monkeypatch.setattr(huggingface_hub.constants, 'HF_TOKEN_PATH', str(tmp_path / 'token'))
    break_it(monkeypatch, tmp_path / 'token')
    assert 'HF_TOKEN_PATH' in refused() and server.requests == []


def test_the_token_is_never_printed(server, push, caplog):
    huggingface_hub.logging.set_verbosity_debug()
    caplog.set_level(logging.DEBUG)
    try:
        _, out, err = push(NAME, '--repo-id', 'org/model')
        assert 'PUT' in caplog.text and 'hf_write' not in caplog.text
        server.failures['preupload'] = 418, 'who sends Bearer hf_write?'
        _, out_of_failure, err_of_failure = push(NAME, '--repo-id', 'org/other')
    finally:
        huggingface_hub.logging.set_verbosity_warning()
    assert 'who sends Bearer ***?' in err_of_failure
    assert 'hf_write' not in out + err + out_of_failure + err_of_failure


@pytest.mark.parametrize('token', [None, 'hf_stranger', 'hf_wrong'])
def test_private_repository_needs_the_right_token(server, push, pull, model, folder, monkeypatch, token):
    assert push(folder, '--repo-id', 'org/model', '--private')[0] == 0
    assert server.repos['org/model'].private
    monkeypatch.delenv('HF_TOKEN') if token is None else monkeypatch.setenv('HF_TOKEN', token)
    with pytest.raises(OSError):
        pull()
    monkeypatch.setenv('HF_TOKEN', 'hf_read')
    assert same(pull(), model)


def test_private_push_to_a_public_repository_is_refused(server, push, refused):
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    assert '--private' in refused(NAME, '--private') and commits(server) == 1


# The server's own reason, and who failed


@pytest.mark.parametrize('endpoint', ['model_info', 'create', 'preupload', 'validate_yaml', 'commit'])
@pytest.mark.parametrize('status, reason', [
    (403, 'storage limit reached'), (401, 'token expired'), (409, 'name reserved'), (400, 'tags must be an array'),
    (402, 'upgrade your plan'), (404, 'Not here'), (412, 'A commit has happened since'), (429, 'slow down'),
    (500, 'internal trouble')])
def test_the_servers_reason_stands_in_the_message(server, push, refused, endpoint, status, reason):
    if endpoint == 'model_info':
        assert push(NAME, '--repo-id', 'org/model')[0] == 0
    server.failures[endpoint] = status, reason
    line = refused()
    assert 'Nothing was published' in line and reason in line
    if status in (402, 403, 409):  # about which we know no more than the server says
        assert not re.search('token|login|changed|moved|network|check', line.replace(reason, ''))
    server.failures.clear()
    assert push(NAME, '--repo-id', 'org/model')[0] == 0


@pytest.mark.parametrize('endpoint, status', [
    ('lfs_upload', 403), ('lfs_upload', 500), ('lfs_upload', 429), ('lfs_batch', 507), ('lfs_verify', 404)])
def test_a_storage_that_fails_is_not_the_hub(server, push, refused, endpoint, status):
    server.failures[endpoint] = status, 'because of it'
    line = refused()
    assert 'because of it' in line and ('localhost' in line) == (endpoint == 'lfs_upload') and 'HF_TOKEN' not in line
    server.failures.clear()
    assert push(NAME, '--repo-id', 'org/model')[0] == 0


@pytest.mark.parametrize('endpoint', ['model_info', 'create', 'preupload', 'lfs_batch', 'lfs_upload'])
@pytest.mark.parametrize('status', [200, 403, 511])
def test_a_page_of_the_network_is_not_taken_for_the_hub(server, refused, endpoint, status):
    server.pages[endpoint] = status
    line = refused()
    if (endpoint, status) == ('lfs_upload', 200):  # as every storage answers
        return
    assert '127.0.0.1' in line or 'localhost' in line
    assert 'page' in line and 'token' not in line and '<html>' not in line
    assert all(set(tree(server)) == {'.gitattributes'} for _ in server.repos)


@pytest.mark.parametrize('error, named', [
    (OSError(errno.ENOSPC, 'No space left on device'), 'TMPDIR'),
    (OSError(errno.EMFILE, 'Too many open files'), 'Too many open files'),
    (OSError(errno.EROFS, 'Read-only file system'), 'Read-only file system'),
    (RuntimeError('Data processing error: CAS service error'), 'CAS service error'),
    (RuntimeError('Xet session failed'), 'HF_HUB_DISABLE_XET'),
], ids=str)
def test_an_error_of_this_machine_or_of_xet_is_not_the_networks(error, named):
    line = errors.explain(error)
    assert named in line and str(error.args[-1]) in line and 'network' not in line and 'HF_ENDPOINT' not in line


def test_a_repository_named_like_xet_and_a_bug_of_ours_are_not_blamed_on_others():
    for repo_id in 'org/foxet', 'org/xet':
        assert 'HF_HUB_DISABLE_XET' not in errors.explain(RuntimeError(f'{repo_id} has no config'), repo_id)
    assert huggingface_hub.HfApi().endpoint not in errors.explain(KeyError('oid'))


def test_server_that_nobody_listens_on(refused, monkeypatch):
    defaults = huggingface_hub.HfApi.__init__.__defaults__
    monkeypatch.setattr(huggingface_hub.HfApi.__init__, '__defaults__', ('http://127.0.0.1:9', *defaults[1:]))
    line = refused()
    assert 'Nothing was published' in line and 'http://127.0.0.1:9' in line and 'HF_ENDPOINT' in line


def test_a_proxy_is_named():
    error = vars(sys.modules[huggingface_hub.errors.HTTPError.__module__])['ProxyError']('Connection refused')
    assert 'HTTPS_PROXY' in errors.explain(error) and 'Connection refused' in errors.explain(error)


# The answer to the commit is lost


def without(key):
    """The answer lacks an entry."""
    return lambda response: Response(
        json.dumps({k: v for k, v in response.get_json().items() if k != key}), mimetype='application/json')


LOST_ANSWERS = {
    **{str(code): lambda response, code=code: Response('{}', code, mimetype='application/json')
       for code in (408, 500, 502, 503, 504)},
    'no commitOid': without('commitOid'),
    'no commitUrl': without('commitUrl'),
    'null': lambda response: Response('null', mimetype='application/json'),
    'page': lambda response: Response('<html>Log in</html>'),
    'closed': HubServer.hang_up,
}


@pytest.mark.parametrize('answer, where', [
    *((answer, []) for answer in LOST_ANSWERS), ('502', ['--revision', 'branch']), ('closed', ['--create-pr']),
], ids=str)
def test_commit_whose_answer_is_lost_is_found_and_verified(server, push, answer, where):
    server.after_commit = LOST_ANSWERS[answer]
    code, out, err = push(NAME, '--repo-id', 'org/model', *where)
    assert code == 0, err
    revision = {'--revision': 'branch', '--create-pr': 'refs/pr/1'}[where[0]] if where else 'main'
    assert set(tree(server, revision=revision)) == FILES | {'.gitattributes'} and commits(server) == 1
    assert out.endswith('discussions/1\n' if '--create-pr' in where else f'commit/{head(server, revision)}\n')


def test_commit_whose_answer_is_lost_is_found_below_those_of_others(server, push):
    ours = []

    def commits_on_top(response):
        ours.append(head(server))
        server.repos['org/model'].commit('main', {'config.json': b'{}'})
        return Response('{}', 502, mimetype='application/json')

    server.after_commit = commits_on_top
    code, out, err = push(NAME, '--repo-id', 'org/model')
    assert code == 0 and out.endswith(f'commit/{ours[0]}\n'), err


def test_commit_of_somebody_else_is_not_taken_for_ours(server, refused):
    def other_commit():
        server.repos['org/model'].commit('main', {'config.json': b'{}'})
        abort(Response('{}', 502, mimetype='application/json'))

    server.before_commit = other_commit
    assert 'Nothing was published' in refused()


def test_commit_that_nobody_can_tell_of_is_verified_by_a_second_run(server, push, refused):
    def fail_from_now_on(response):
        server.failures.update(history=(503, 'down'))
        return Response('{}', 504, mimetype='application/json')

    server.after_commit = fail_from_now_on
    line = refused()
    assert 'not known' in line and 'Nothing was published' not in line
    server.failures.clear()
    assert push(NAME, '--repo-id', 'org/model')[0] == 0 and commits(server) == 1


# Ctrl-C


@pytest.fixture
def ctrl_c():
    """Ctrl-C while the server is silent, and an answer that comes too late for it."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have told us to ignore it

    def press(*_, **__):
        if threading.current_thread() is threading.main_thread():
            signal.raise_signal(signal.SIGINT)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        threading.Event().wait(1)
        return Response('{}', 500, mimetype='application/json')

    yield press
    signal.signal(signal.SIGINT, handler)


def test_ctrl_c_while_files_are_written(server, refused, ctrl_c, monkeypatch):
    monkeypatch.setattr(command, 'write_files', ctrl_c)
    assert 'Nothing was sent' in refused(code=130) and server.requests == []


@pytest.mark.parametrize('moment', ['store', 'before_commit'])
def test_ctrl_c_before_the_commit_names_the_repository_that_is_left(server, refused, ctrl_c, moment):
    setattr(server, moment, lambda *_: abort(ctrl_c()))
    line = refused(code=130)
    assert 'Nothing was published' in line and 'repository' in line and set(tree(server)) == {'.gitattributes'}


@pytest.mark.parametrize('moment, verified', [
    (None, False), ('huggingface_hub.HfApi.verify_repo_checksums', False),
    ('tempfile.TemporaryDirectory.cleanup', True)])
def test_ctrl_c_after_the_commit_does_not_deny_it(server, refused, ctrl_c, monkeypatch, moment, verified):
    if moment:
        monkeypatch.setattr(moment, ctrl_c)
    else:
        server.after_commit = ctrl_c
    line = refused(code=130)
    assert f'commit/{head(server)}' in line and ('not verified' in line) != verified


def test_ctrl_c_twice_does_not_say_what_is_not_known(server, refused, ctrl_c, monkeypatch):
    server.after_commit = ctrl_c
    monkeypatch.setattr(huggingface_hub.HfApi, 'list_repo_commits', ctrl_c)
    line = refused(code=130)
    assert 'not known' in line and 'Nothing' not in line


def test_ctrl_c_while_the_repository_is_created(server, refused, ctrl_c, monkeypatch):
    create_repo = huggingface_hub.HfApi.create_repo

    def create_and_press(self, *args, **kwargs):
        create_repo(self, *args, **kwargs)
        ctrl_c()

    monkeypatch.setattr(huggingface_hub.HfApi, 'create_repo', create_and_press)
    line = refused(code=130)
    assert 'repository may have been created' in line and server.repos


# What a failed push leaves, and what does not arrive


def test_branch_that_a_failed_push_created_is_named(server, push, refused, folder):
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    server.failures['preupload'] = 429, 'slow down'
    assert "the branch 'new' was created" in refused(folder, '--revision', 'new')
    assert tree(server, revision='new') == tree(server)
    assert 'created' not in refused(folder, '--revision', 'new')  # it was there before this run


def test_two_pushes_at_once_do_not_mix(server, push, refused, pull, model, folder):
    assert push(NAME, '--repo-id', 'org/model')[0] == 0

    def other_push():
        server.before_commit = lambda: None
        command.push(str(folder), send.Target('org/model'), token='hf_write')

    server.before_commit = other_push
    server.repos['org/model'].commit('main', {'README.md': b'changed'})
    assert 'A commit has happened since' in refused()
    assert same(pull(), model)


def test_upload_that_is_cut_publishes_nothing_and_a_second_run_finishes(server, push, refused):
    server.upload_limit = 100_000
    assert 'Nothing was published' in refused() and server.objects == {} and set(tree(server)) == {'.gitattributes'}
    server.upload_limit = None
    assert push(NAME, '--repo-id', 'org/model')[0] == 0


@pytest.mark.parametrize('content, files', [
    ('*.safetensors', {'model.safetensors'}), ('*.md', {'README.md'}),
    ('*\n!*.md', {'config.json', 'model.safetensors'})])
def test_files_that_gitignore_drops_are_named(server, push, refused, content, files):
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    repo = server.repos['org/model']
    repo.commit('main', {'.gitignore': content.encode(), **dict.fromkeys(FILES)})
    line = refused()
    assert '.gitignore' in line and {name for name in FILES if name in line} == files


@pytest.mark.parametrize('name', sorted(FILES))
@pytest.mark.parametrize('content', [None, b'changed'])
def test_file_that_the_hub_lost_or_changed_is_named(server, refused, name, content):
    def damage(response):
        server.repos['org/model'].commits[head(server)].update({name: content})
        if content is None:
            del server.repos['org/model'].commits[head(server)][name]
        return response

    server.after_commit = damage
    line = refused()
    assert 'was published' in line and {file for file in FILES if file in line} == {name}


@pytest.mark.parametrize('fault', [(503, 'down'), (403, 'who are you')])
def test_verification_that_fails_lets_the_commit_stand(server, push, refused, fault):
    server.failures['tree'] = fault
    line = refused()
    assert f'commit/{head(server)} was published, but not verified' in line and fault[1] in line
    server.failures.clear()
    assert push(NAME, '--repo-id', 'org/model')[0] == 0 and commits(server) == 1


# The command


@pytest.mark.parametrize('leaves', ['before', 'after'])
def test_reader_of_the_output_that_leaves(server, push, monkeypatch, leaves):
    reader, writer = os.pipe()
    with os.fdopen(writer, 'w') as stdout:
        monkeypatch.setattr('sys.stdout', stdout)
        if leaves == 'before':
            os.close(reader)
        server.before_commit = lambda: os.close(reader)
        code, _, err = push(NAME, '--repo-id', 'org/model')
    if leaves == 'before':
        assert code == 1 and server.requests == [] and 'HF_ENDPOINT' not in err
    else:
        assert code == 0 and head(server) in err


def test_dry_run_shows_everything_the_card_last_and_sends_nothing(server, push, tmp_path, model):
    file = checkpoint(tmp_path / 'last.pth.tar', model)
    code, out, err = push(file, '--repo-id', 'org/model', '--dry-run')
    assert (code, err, server.requests) == (0, '', [])
    assert push(file, '--repo-id', 'org/model')[0] == 0
    places = [out.index(tree(server)[name].decode()) for name in ('config.json', 'train_hparams.yaml', 'README.md')]
    assert places == sorted(places)
    assert f"{len(server.objects[tree(server)['model.safetensors']]):,} bytes" in out


def test_dry_run_prints_on_any_console(push, folder, monkeypatch):
    (folder / 'README.md').write_text('# Fußgänger → 歩行者\n', encoding='utf-8')
    monkeypatch.setattr('sys.stdout', io.TextIOWrapper(io.BytesIO(), encoding='ascii'))
    assert push(folder, '--repo-id', 'a/b', '--dry-run')[0] == 0
    assert b'\\u6b69' in sys.stdout.buffer.getvalue()


def test_push_offline_says_what_to_unset(server, refused, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    assert 'HF_HUB_OFFLINE' in refused() and server.requests == []


@pytest.mark.parametrize('args, code, named', [
    ([], 2, '--repo-id'),
    ([NAME, '--repo-id', 'org/a b'], 2, '--repo-id'),
    ([NAME, '--repo-id', 'model'], 2, 'ORG/model'),
    ([NAME, '--repo-id', 'org/model', '--create-pr', '--revision', 'x'], 2, '--revision'),
    ([NAME, '--repo-id', 'org/model', '--revision', ' '], 2, '--revision'),
    ([NAME, '--repo-id', 'org/other', '--use-ema'], 1, '--use-ema'),
    ([NAME, '--repo-id', 'org/other', '--metadata', 'missing.yaml'], 1, 'missing.yaml'),
], ids=str)
def test_usage(server, push, args, code, named):
    status, _, err = push(*args)
    assert status == code and named in err and server.requests == []


def test_waits_are_short():
    assert sum(send.WAITS) <= 10
