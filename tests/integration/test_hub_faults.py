"""What push says when the Hub, its storage or the network fails is so, and nothing is published by half."""
import errno
import json
import os
import signal
import threading
import time
from importlib.util import find_spec

import pytest
from flask import Response, abort

from hub_server import HubServer
from timm_wavemix import hub

NAME = 'wavemix_16_5.fashion_mnist'
FILES = {'README.md', 'config.json', 'model.safetensors'}


def tree(server, revision='main'):
    repo = server.repos['org/model']
    return repo.commits[repo.refs[revision]]


def without(key):
    """The answer lacks an entry."""
    return lambda response: Response(
        json.dumps({k: v for k, v in response.get_json().items() if k != key}), mimetype='application/json')


def status(code):
    return lambda response: Response('{}', code, mimetype='application/json')


LOST_ANSWERS = {
    '500': status(500), '502': status(502), '503': status(503), '504': status(504), '408': status(408),
    'no commitOid': without('commitOid'),
    'no commitUrl': without('commitUrl'),
    'null': lambda response: Response('null', mimetype='application/json'),
    'page': lambda response: Response('<html>Log in</html>'),
    'closed': HubServer.hang_up,
}


# the answer to the commit is lost


@pytest.mark.parametrize('answer', LOST_ANSWERS.values(), ids=LOST_ANSWERS)
@pytest.mark.parametrize(
    'where', [[], ['--revision', 'branch'], ['--create-pr']], ids=['main', 'branch', 'pull request'])
def test_commit_whose_answer_is_lost_is_found_and_read_back(server, push, answer, where):
    server.after_commit = answer
    code, out, err = push(NAME, '--repo-id', 'org/model', *where)
    assert code == 0, err
    revision = {'--revision': 'branch', '--create-pr': 'refs/pr/1'}[where[0]] if where else 'main'
    assert set(tree(server, revision)) == FILES | {'.gitattributes'}
    url = 'discussions/1' if where == ['--create-pr'] else f"commit/{server.repos['org/model'].refs[revision]}"
    assert f'The answer to the commit was lost, but it was made: {server.url}/org/model/{url}\n' in out
    assert out.endswith(f'Done, read back and found the same: {server.url}/org/model/{url}\n')


@pytest.mark.parametrize('code', [500, 502, 503, 504])
@pytest.mark.parametrize('where', [[], ['--create-pr']], ids=['main', 'pull request'])
def test_commit_that_was_not_made_is_told_of_as_such(server, push, code, where):
    server.failures['commit'] = code
    exit_code, out, err = push(NAME, '--repo-id', 'org/model', *where)
    assert exit_code == 1 and 'Done' not in out
    asked = 'org/model has no pull request of this content' if where else "in org/model, 'main' does not have it"
    assert err.splitlines()[-1] == (
        f'push: Nothing was published, {asked}: the Hub fails with HTTP status {code}: run it again later. '
        'It leaves the empty repository org/model, which a second run fills.')
    assert set(tree(server)) == {'.gitattributes'}
    server.failures.clear()
    assert push(NAME, '--repo-id', 'org/model')[0] == 0


def test_commit_that_nobody_can_tell_of(server, push):
    def fail_from_now_on(response):
        server.failures.update(model_info=503)
        return Response('{}', 504, mimetype='application/json')

    server.after_commit = fail_from_now_on
    code, _, err = push(NAME, '--repo-id', 'org/model')
    assert code == 1 and err.splitlines()[-1].startswith(
        'push: It is not known whether org/model got the commit, look at its history and repeat this command with '
        '--verify: the Hub fails with HTTP status 504')
    server.failures.clear()
    code, out, _ = push(NAME, '--repo-id', 'org/model', '--verify')
    assert code == 0 and out == f"org/model at 'main' is the same as {NAME}.\n"


def test_commit_of_somebody_else_is_not_taken_for_ours(server, push):
    def other_commit():
        server.repos['org/model'].commit('main', {'config.json': b'{}'})
        abort(Response('{}', 502, mimetype='application/json'))

    server.before_commit = other_commit
    code, _, err = push(NAME, '--repo-id', 'org/model')
    assert code == 1 and "Nothing was published, in org/model, 'main' does not have it" in err


@pytest.mark.parametrize('where', [[], ['--revision', 'branch']], ids=['main', 'branch'])
def test_commit_whose_answer_is_lost_is_found_below_those_of_others(server, push, where):
    ours, revision = [], 'branch' if where else 'main'

    def commits_on_top(response):
        repo = server.repos['org/model']
        ours.append(repo.refs[revision])
        repo.commit(revision, {'config.json': b'{}'})
        repo.commit(revision, {'README.md': b'other'})
        return Response('{}', 502, mimetype='application/json')

    server.after_commit = commits_on_top
    code, out, err = push(NAME, '--repo-id', 'org/model', *where)
    assert code == 0, err
    assert f'The answer to the commit was lost, but it was made: {server.url}/org/model/commit/{ours[0]}\n' in out
    assert out.endswith(f'Done, read back and found the same: {server.url}/org/model/commit/{ours[0]}\n')


def test_second_run_opens_no_second_pull_request_of_the_same_content(server, push, folder):
    assert push(NAME, '--repo-id', 'org/model', '--create-pr')[0] == 0
    code, out, _ = push(NAME, '--repo-id', 'org/model', '--create-pr')
    assert code == 0 and f'There already, nothing was sent: {server.url}/org/model/discussions/1' in out
    assert set(server.repos['org/model'].titles) == {1}
    assert push(folder, '--repo-id', 'org/model', '--create-pr')[0] == 0  # other content
    assert set(server.repos['org/model'].titles) == {1, 2}


def test_no_pull_request_is_opened_of_what_main_has(server, push):
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    code, out, err = push(NAME, '--repo-id', 'org/model', '--create-pr')
    oid = server.repos['org/model'].refs['main']
    assert (code, err) == (0, '')
    assert f'There already, nothing was sent: {server.url}/org/model/commit/{oid}\n' in out
    assert not server.repos['org/model'].titles


# Ctrl-C


@pytest.fixture(autouse=True)
def ctrl_c_is_handled():
    """A shell that starts the tests in the background tells them to ignore Ctrl-C."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


def interrupt(*_):
    """Ctrl-C, and an answer that comes too late for it."""
    signal.raise_signal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else (
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT))
    threading.Event().wait(1)
    return Response('{}', 500, mimetype='application/json')


def test_ctrl_c_during_the_commit_says_whether_it_was_made(server, push):
    server.after_commit = interrupt
    code, out, err = push(NAME, '--repo-id', 'org/model')
    oid = server.repos['org/model'].refs['main']
    assert code == 130 and 'Done' not in out
    assert err == (
        f'push: Broken off: {server.url}/org/model/commit/{oid} was published, but not read back. Check it by the same '
        f'command with --verify --revision {oid}.\n')
    assert push(NAME, '--repo-id', 'org/model', '--verify', '--revision', oid)[0] == 0


def test_ctrl_c_before_the_commit_says_that_nothing_was_published(server, push):
    def before():
        server.before_commit = lambda: None
        interrupt()
        abort(Response('{}', 500, mimetype='application/json'))

    server.before_commit = before
    code, _, err = push(NAME, '--repo-id', 'org/model')
    assert code == 130 and err == (
        "push: Broken off: Nothing was published, in org/model, 'main' does not have it. It leaves the empty "
        'repository org/model, which a second run fills.\n')


def test_ctrl_c_during_the_upload(server, push, monkeypatch):
    def store(content):
        interrupt()
        return content

    server.store = store
    code, _, err = push(NAME, '--repo-id', 'org/model')
    assert code == 130 and err == (
        'push: Broken off: nothing was published. It leaves the empty repository org/model, which a second run '
        'fills.\n')


def test_ctrl_c_during_the_read_back(server, push, monkeypatch):
    def broken_off(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(hub, 'hf_hub_download', broken_off)
    code, _, err = push(NAME, '--repo-id', 'org/model')
    oid = server.repos['org/model'].refs['main']
    assert code == 130 and err.count('\n') == 1
    assert f'commit/{oid} was published, but not read back. Check it by the same command with --verify' in err


@pytest.mark.parametrize('more', [[], ['--dry-run'], ['--verify']], ids=str)
def test_ctrl_c_while_the_files_are_written_says_that_nothing_was_sent(server, push, monkeypatch, more):
    monkeypatch.setattr(hub, 'build', interrupt)
    code, _, err = push(NAME, '--repo-id', 'org/model', *more)
    assert (code, err) == (130, 'push: Broken off: nothing was sent.\n')
    assert server.requests == []


def test_ctrl_c_after_the_read_back_does_not_deny_the_publication(server, push, monkeypatch):
    monkeypatch.setattr(hub.HfApi, 'create_collection', lambda *args, **kwargs: interrupt())
    code, _, err = push(NAME, '--repo-id', 'org/model', '--collection', 'Zoo')
    assert code == 130 and set(tree(server)) == FILES | {'.gitattributes'}
    assert err == "push: Broken off: org/model was published, but may not be in the collection 'Zoo'.\n"


@pytest.mark.parametrize('dry_run', [False, True])
def test_ctrl_c_between_the_weights_of_the_package_counts_those_that_are_published(
        server, push, monkeypatch, dry_run):
    build, calls = hub.build, []

    def third_is_broken_off(*args):
        calls.append(args)
        return interrupt() if len(calls) == 3 else build(*args)

    monkeypatch.setattr(hub, 'build', third_is_broken_off)
    code, _, err = push('--all', '--org', 'org', *['--dry-run'] * dry_run)
    assert code == 130 and len(server.repos) == (0 if dry_run else 2)
    assert err == (
        f'push: Broken off: {len(server.repos)} of {len(hub.packaged_weights())} are published, run it again to go on: '
        'nothing was sent.\n')


# what a failed push leaves


def test_branch_that_a_failed_push_created_is_named(server, push, folder):
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    server.failures['preupload'] = 429
    code, _, err = push(folder, '--repo-id', 'org/model', '--revision', 'new')
    assert code == 1 and err.endswith(
        "It leaves the branch 'new' of org/model, a copy of main, which a second run fills.\n")
    assert tree(server, 'new') == tree(server)
    code, _, err = push(folder, '--repo-id', 'org/model', '--revision', 'new')
    assert code == 1 and 'leaves' not in err  # it was there before this run


def test_repository_that_may_be_left_is_named_as_such(server, push):
    server.failures['preupload'] = 403
    original = server.repos

    class Forgetful(dict):
        """Fails to tell of the repository once it was created."""
        def __setitem__(self, key, value):
            super().__setitem__(key, value)
            server.failures['model_info'] = 503

    server.repos = Forgetful(original)
    code, _, err = push(NAME, '--repo-id', 'org/model')
    assert code == 1 and err.endswith('It may leave an empty repository in org/model, which a second run fills.\n')


# .gitignore


@pytest.mark.parametrize('content, files', [
    ('*.safetensors', 'model.safetensors'),
    ('# weights\n/model.*', 'model.safetensors'),
    ('*.md\n', 'README.md'),
    ('*', 'README.md and config.json and model.safetensors'),
    ('**/config.json', 'config.json'),
])
def test_gitignore_that_would_drop_files_is_named_before_the_commit(server, push, content, files):
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    server.repos['org/model'].commit('main', {'.gitignore': content.encode(), 'README.md': b'x', 'config.json': b'{}'})
    commits = len(server.repos['org/model'].commits)
    code, _, err = push(NAME, '--repo-id', 'org/model')
    assert code == 1 and err == (
        f'push: Nothing was published: the .gitignore in org/model keeps {files} out of commits: take its rules for '
        'them out.\n')
    assert len(server.repos['org/model'].commits) == commits


def test_gitignore_of_other_files_does_no_harm(server, push):
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    server.repos['org/model'].commit('main', {'.gitignore': b'*\n!*.md\n!*.json\n!*.safetensors\n', 'README.md': b'x'})
    assert push(NAME, '--repo-id', 'org/model')[0] == 0


# read back


@pytest.mark.parametrize('name', sorted(FILES))
@pytest.mark.parametrize('loss', ['missing', 'changed'])
def test_file_that_the_hub_lost_or_changed_is_named(server, push, name, loss):
    def damage(response):
        repo = server.repos['org/model']
        changed = None if loss == 'missing' else b'changed'
        repo.commits[repo.refs['main']] = {
            path: changed if path == name else content for path, content in tree(server).items()
            if not (path == name and loss == 'missing')}
        return response

    server.after_commit = damage
    code, out, err = push(NAME, '--repo-id', 'org/model')
    assert code == 1 and 'Done' not in out and err.count('\n') == 1
    assert f'was published, but {name} is missing or different there: push it again.' in err


def test_bytes_that_do_not_match_their_hash_are_noticed(server, push):
    server.store = lambda content: content[:-1] + bytes([content[-1] ^ 1])
    code, _, err = push(NAME, '--repo-id', 'org/model')
    assert code == 1 and 'was published, but model.safetensors is missing or different there' in err


@pytest.mark.parametrize('fault, message', [
    ({'failures': {'resolve': 503}}, 'the Hub fails with HTTP status 503: run it again later.'),
    ({'failures': {'resolve': 429}}, 'the Hub limits your requests: run it again in some minutes.'),
    ({'failures': {'lfs_download': 503}}, 'fails with HTTP status 503: run it again later.'),
    ({'failures': {'lfs_download': 403}}, 'refuses with HTTP status 403, as it does once a link to it has expired'),
    ({'failures': {'resolve': 403}}, 'your token may not read org/model: take one that may.'),
    ({'failures': {'resolve': 511}}, 'the network wants a login before it lets you through'),
    ({'cuts': {'lfs_download': 1000}}, ''),
    ({'pages': {'resolve': 200}}, 'login page'),
    ({'pages': {'lfs_download': 200}}, ': check the network'),
], ids=['503', '429', 'storage', 'expired link', 'token', 'login', 'cut', 'login page', 'login page of the storage'])
def test_read_back_that_fails_in_passing_lets_the_commit_stand(server, push, fault, message):
    for kind, faults in fault.items():
        getattr(server, kind).update(faults)
    code, out, err = push(NAME, '--repo-id', 'org/model')
    oid = server.repos['org/model'].refs['main']
    last = err.splitlines()[-1]
    assert code == 1 and 'Done' not in out
    assert last.startswith(f'push: {server.url}/org/model/commit/{oid} was published and stands, it only could not be')
    assert message in last and 'revert' not in last
    assert last.endswith(f'Check it by the same command with --verify --revision {oid}.')
    for kind in fault:
        getattr(server, kind).clear()
    assert push(NAME, '--repo-id', 'org/model', '--verify', '--revision', oid)[0] == 0


def test_full_disk_during_the_read_back(server, push, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(hub, 'hf_hub_download', full)
    code, _, err = push(NAME, '--repo-id', 'org/model')
    assert code == 1 and 'was published and stands' in err
    assert 'the disk of this machine is full' in err and 'set TMPDIR to a folder elsewhere' in err


def test_verify_names_what_differs_and_sends_nothing(server, push, folder):
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    commits = len(server.repos['org/model'].commits)
    code, _, err = push(folder, '--repo-id', 'org/model', '--verify')
    assert code == 1 and err == (
        f"push: org/model at 'main' is not {folder}, README.md and config.json and model.safetensors are missing or "
        'different there: push it again.\n')
    code, _, err = push(folder, '--repo-id', 'org/other', '--verify')
    assert code == 1 and "push: org/other at 'main' could not be read: the Hub has no org/other" in err
    code, _, err = push(folder, '--repo-id', 'org/model', '--verify', '--revision', 'new')
    assert code == 1 and err == (
        "push: org/model at 'new' could not be read: org/model has no such revision: give a branch, a commit or "
        'refs/pr/NUMBER.\n')
    assert len(server.repos['org/model'].commits) == commits and set(server.repos) == {'org/model'}


# who failed


@pytest.mark.parametrize('endpoint', ['model_info', 'create', 'preupload', 'lfs_batch'])
@pytest.mark.parametrize('code, message', [
    (200, 'the login page of a network'),
    (403, 'a page of a proxy or firewall answers for 127.0.0.1:PORT with HTTP status 403'),
    (511, 'the network wants a login before it lets you through to 127.0.0.1:PORT (HTTP status 511)'),
])
def test_page_of_a_network_is_not_taken_for_the_hub(server, push, endpoint, code, message):
    server.pages[endpoint] = code
    exit_code, _, err = push(NAME, '--repo-id', 'org/model')
    assert exit_code == 1 and message.replace('PORT', server.url.rpartition(':')[2]) in err.splitlines()[-1]
    assert 'Nothing was published' in err and 'token' not in err
    assert all(set(tree(server)) == {'.gitattributes'} for _ in server.repos)


def test_expired_link_to_the_storage_is_not_the_token(server, push):
    server.failures['lfs_upload'] = 403
    code, _, err = push(NAME, '--repo-id', 'org/model')
    assert code == 1 and 'the storage at localhost' in err and 'expired' in err and 'token' not in err


def test_server_that_nobody_listens_on(push, server, monkeypatch):
    defaults = hub.HfApi.__init__.__defaults__
    monkeypatch.setattr(hub.HfApi.__init__, '__defaults__', ('http://127.0.0.1:9', *defaults[1:]))
    code, _, err = push(NAME, '--repo-id', 'org/model')
    assert code == 1 and err.splitlines()[-1].endswith('check the network, and HF_ENDPOINT if it is set.')


@pytest.mark.skipif(not hasattr(hub.constants, 'HF_HUB_DISABLE_XET') or not find_spec('hf_xet'), reason='needs hf_xet')
@pytest.mark.parametrize('failures, storage, message', [
    ({}, None, 'the Hub gives no access to Xet (HTTP status 404): set HF_HUB_DISABLE_XET=1 to do without it.'),
    ({'xet_token': 503}, None, 'the Hub gives no access to Xet (HTTP status 503): set HF_HUB_DISABLE_XET=1'),
    ({}, 'http://127.0.0.1:9', 'the storage of Xet at http://127.0.0.1:9 cannot be reached ('),
], ids=['no Xet', '503', 'unreachable storage'])
def test_xet_that_is_not_there_is_told_of_at_once(server, python, failures, storage, message):
    server.failures.update(failures)
    server.xet_storage = storage
    command = '-m', 'timm_wavemix', 'push', NAME, '--repo-id', 'org/model'
    start = time.monotonic()
    result = python(*command, HF_HUB_DISABLE_XET='0')
    assert result.returncode == 1 and time.monotonic() - start < 60
    assert f'Nothing was published: {message}' in result.stderr and result.stderr.count('\n') == 1
    assert 'set HF_HUB_DISABLE_XET=1 to do without it.' in result.stderr
    assert python(*command, HF_HUB_DISABLE_XET='1').returncode == 0


def test_slow_xet_is_told_of(monkeypatch, capsys):
    monkeypatch.setattr(hub, '_uses_xet', lambda: True)
    monkeypatch.setattr(hub, 'SLOW_UPLOAD', 0.1)
    with hub._tell_of_slow_xet():
        threading.Event().wait(1)
    assert 'start it again with HF_HUB_DISABLE_XET=1' in capsys.readouterr().err


# every weight of the package


def test_all_goes_on_where_it_failed(server, push):
    names = hub.packaged_weights()

    def fail_at_the_third():
        if len(server.repos) == 3:
            server.failures['lfs_batch'] = 500

    server.before_commit = fail_at_the_third
    code, _, err = push('--all', '--org', 'org', '--collection', 'The zoo')
    assert code == 1 and f'3 of {len(names)} are published, run it again to go on: Nothing was published' in err
    server.failures.clear()
    server.before_commit = lambda: None
    server.requests.clear()
    code, out, _ = push('--all', '--org', 'org', '--collection', 'The zoo')
    assert code == 0 and out.count('There already, nothing was sent') == 3
    assert sum('/commit/' in request for request in server.requests) == len(names) - 3
    assert set(server.repos) == {f'org/{name}' for name in names}
    (about, items), = server.collections.values()
    assert about['title'] == 'The zoo' and items == [f'org/{name}' for name in names]


@pytest.mark.parametrize('args, message', [
    (['--all'], '--all needs --org ORG'),
    (['--all', '--org', 'org', NAME], '--all goes with --org, --private, --collection and --dry-run only'),
    ([NAME, '--org', 'org'], '--org goes with --all'),
    ([NAME, '--repo-id', 'org/model', '--revision', ''], '--revision is empty: name one, or leave it out.'),
    ([NAME, '--repo-id', 'org/model', '--collection', ' '], '--collection is empty'),
    ([NAME, '--repo-id', 'org/model', '--verify', '--create-pr'], '--verify sends nothing'),
    ([NAME, '--repo-id', 'org/model', '--verify', '--dry-run'], 'not allowed with argument'),
])
def test_options_that_do_not_go_together(server, push, args, message):
    code, _, err = push(*args)
    assert code == 2 and message in err
    assert server.requests == []


def test_collection_that_fails_does_not_deny_the_publication(server, push):
    server.failures['create_collection'] = 403
    code, _, err = push(NAME, '--repo-id', 'org/model', '--collection', 'Zoo')
    assert code == 1 and "push: org/model was published, but is not in the collection 'Zoo': " in err
