"""Push to and pull from a Hub that runs here, through the unmodified huggingface_hub and timm."""
import json
import logging
import os
import pickle
import re
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
import yaml
from safetensors.torch import load
from timm.models._hub import save_for_hf

import timm_wavemix  # noqa: F401  registers the models
from conftest import checkpoint
from timm_wavemix import hub
from timm_wavemix.cards import read_metadata

ROOT = Path(__file__).parents[2]
NAME = 'wavemix_16_5.fashion_mnist'
OWN = [name for name in timm.list_models(module='wavemix', include_tags=True)
       if not timm.get_pretrained_cfg(name).hf_hub_id]  # not the official weights, which the Hub has
PUBLISHED = [name for name in OWN if timm.get_pretrained_cfg(name).has_weights]
CONFIGS = {name: read_metadata(ROOT / 'hub_configs' / f'{name}.yaml') for name in PUBLISHED}


def same(model, other):
    images = torch.randn(2, *model.pretrained_cfg['input_size'], generator=torch.Generator().manual_seed(3))
    return torch.equal(model(images), other(images))


def tree(server, repo_id='org/model', revision='main'):
    repo = server.repos[repo_id]
    return repo.commits[repo.refs[revision]]


# what is pushed comes back


@pytest.mark.parametrize('name', [*OWN, 'wavemix_192_16_l3_p4.tiny_imagenet_64'])
def test_every_model_comes_back_bit_for_bit(server, push, pull, tmp_path, name):
    torch.manual_seed(0)
    model, source = timm.create_model(name, pretrained=name in PUBLISHED).eval(), name
    if name not in PUBLISHED:
        source = tmp_path / 'model'
        save_for_hf(model, source, safe_serialization=True)
    code, _, err = push(source, '--repo-id', f'org/{name}')
    assert (code, err) == (0, '')
    again = pull(f'org/{name}')
    assert again.state_dict().keys() == model.state_dict().keys()
    assert same(again, model)
    for key in ('input_size', 'mean', 'std', 'label_names'):
        assert tuple(again.pretrained_cfg.get(key, ())) == tuple(model.pretrained_cfg.get(key, ()))
    for key in ('architecture', 'crop_pct', 'interpolation', 'num_classes'):
        assert again.pretrained_cfg[key] == model.pretrained_cfg[key]
    assert set(tree(server, f'org/{name}')) == {'.gitattributes', 'README.md', 'config.json', 'model.safetensors'}


def test_arguments_that_build_the_model_come_back(server, push, pull, tmp_path):
    args = dict(in_chans=1, num_classes=3, levels=2, global_pool='max')
    model = timm.create_model('wavemix_16_5', **args).eval()
    model.pretrained_cfg.update(
        input_size=(1, 20, 24), num_classes=3, label_names=None, mean=(0.5,), std=(0.5,))
    save_for_hf(model, tmp_path / 'model', model_args=args)  # a pickle, which is not what is sent
    assert push(tmp_path / 'model', '--repo-id', 'org/model')[0] == 0
    assert same(model, pull())


def test_revisions_are_kept_apart(server, push, pull, model, folder):
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    first = server.repos['org/model'].refs['main']
    assert push(folder, '--repo-id', 'org/model', '--revision', 'seven')[0] == 0
    assert same(pull('org/model@seven'), model)
    assert same(pull('org/model'), timm.create_model(NAME, pretrained=True).eval())
    assert push(folder, '--repo-id', 'org/model')[0] == 0
    assert same(pull('org/model'), model)
    assert same(pull(f'org/model@{first}'), timm.create_model(NAME, pretrained=True).eval())


def test_pull_request_leaves_main_alone(server, push, pull, model, folder):
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    main = server.repos['org/model'].refs['main']
    code, out, _ = push(folder, '--repo-id', 'org/model', '--create-pr')
    assert code == 0 and out.endswith(f'{server.url}/org/model/discussions/1\n')
    assert server.repos['org/model'].refs['main'] == main
    assert same(pull('org/model@refs/pr/1'), model)


def test_other_content_of_a_repository_stays(server, push, pull, model, folder):
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    before = server.repos['org/model'].commit('main', {'notes.txt': b'mine', 'pytorch_model.bin': b'old weights'})
    commits = len(server.repos['org/model'].commits)
    assert push(folder, '--repo-id', 'org/model')[0] == 0
    assert len(server.repos['org/model'].commits) == commits + 1
    assert tree(server)['notes.txt'] == b'mine'
    old = server.repos['org/model'].commits[before]
    changed = {path for path, content in tree(server).items() if old[path] != content}
    assert changed == {'README.md', 'config.json', 'model.safetensors'}
    assert same(pull(), model)


def test_the_same_again_changes_nothing(server, push):
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    before = tree(server)
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    assert tree(server) == before


def test_names_of_our_weights_pull_from_the_organisation_that_is_set(
        server, push, model, folder, tmp_path, monkeypatch):
    ours = timm.create_model(NAME, pretrained=True)
    with torch.no_grad():
        ours.head.fc.bias += 1
    save_for_hf(ours, tmp_path / 'changed', safe_serialization=True)
    assert push(tmp_path / 'changed', '--repo-id', f'org/{NAME}')[0] == 0
    server.requests.clear()
    assert not same(timm.create_model(NAME, pretrained=True).eval(), ours.eval())
    assert server.requests == []
    monkeypatch.setenv('TIMM_WAVEMIX_HUB_ORG', 'org')
    for name in (NAME, 'wavemix_16_5'):
        assert same(timm.create_model(name, pretrained=True, cache_dir=tmp_path / 'cache').eval(), ours)
    # what the caller names goes before
    for own in ({'state_dict': model.state_dict()}, {'file': str(folder / 'model.safetensors')}):
        overlay = dict(own, num_classes=7)
        assert same(timm.create_model('wavemix_16_5', pretrained=True, pretrained_cfg_overlay=overlay).eval(), model)


def test_push_of_a_name_takes_the_packages_weights_whatever_the_organisation(server, push, pull, monkeypatch):
    packaged = timm.create_model(NAME, pretrained=True).eval()
    monkeypatch.setenv('TIMM_WAVEMIX_HUB_ORG', 'org')
    code, _, err = push(NAME, '--repo-id', f'org/{NAME}')
    assert (code, err) == (0, '')
    assert same(pull(f'org/{NAME}'), packaged)


# checkpoints of train.py


needs_safe_globals = pytest.mark.skipif(
    not hasattr(torch.serialization, 'safe_globals'), reason='torch before 2.5 reads no argparse.Namespace safely')


@needs_safe_globals
@pytest.mark.parametrize('use_ema', [False, True])
def test_checkpoint_comes_back_with_the_preprocessing_of_its_training(server, push, pull, tmp_path, use_ema):
    raw, ema = (timm.create_model('wavemix_16_5', num_classes=7, in_chans=1, levels=3).eval() for _ in range(2))
    file = checkpoint(
        tmp_path / 'model_best.pth.tar', raw, ema, model_kwargs={'levels': 3, 'proj_drop_rate': 0.25},
        input_size=[1, 40, 48], crop_pct=0.9, mean=[0.1], std=[0.2], interpolation='bilinear')
    code, _, err = push(file, '--repo-id', 'org/model', *['--use-ema'] * use_ema)
    assert (code, err) == (0, '')
    again = pull()
    assert tuple(again.pretrained_cfg['input_size']) == (1, 40, 48)
    assert same(again, ema if use_ema else raw)
    assert again.blocks[0].mlps[0].drop1.p == 0.25
    assert again.pretrained_cfg['crop_pct'] == 0.9 and again.pretrained_cfg['interpolation'] == 'bilinear'
    assert [*again.pretrained_cfg['mean'], *again.pretrained_cfg['std']] == [0.1, 0.2]
    # nothing of the weights that ship under the model's name, nor of the machine that trained
    assert not {'tag', 'label_names', 'license'} & again.pretrained_cfg.keys()
    for name in ('config.json', 'README.md'):
        content = tree(server)[name].decode()
        assert 'Fashion' not in content.partition('## Comparison')[0] and '/home' not in content


@needs_safe_globals
def test_checkpoint_of_a_model_that_was_pulled(server, push, pull, model, folder, tmp_path):
    assert push(folder, '--repo-id', 'org/model')[0] == 0
    file = checkpoint(tmp_path / 'last.pth.tar', model, model='hf-hub:org/model')
    assert push(file, '--repo-id', 'org/again')[0] == 0
    assert same(pull('org/again'), model)


@needs_safe_globals
@pytest.mark.parametrize('change, args, message', [
    ({}, ['--use-ema'], 'has no EMA weights: leave out --use-ema, or train with --model-ema.'),
    ({'args': None}, [], "lacks weights or the arguments of its training: give a checkpoint of timm's train.py"),
    ({'state_dict': {'fc.weight': torch.zeros(1)}}, [], 'The weights are not of this model'),
], ids=['no EMA', 'no arguments', 'other weights'])
def test_checkpoint_that_cannot_be_pushed(server, push, model, tmp_path, change, args, message):
    file = checkpoint(tmp_path / 'last.pth.tar', model)
    content = dict(torch.load(file, weights_only=False), **change)
    torch.save({k: v for k, v in content.items() if v is not None}, file)
    code, _, err = push(file, '--repo-id', 'org/model', *args)
    assert code == 1 and message in err and err.count('\n') == 1
    assert server.requests == []


@needs_safe_globals
def test_checkpoint_of_another_architecture_is_not_pushed(server, push, tmp_path):
    file = checkpoint(tmp_path / 'last.pth.tar', timm.create_model('resnet18', num_classes=7), model='resnet18')
    code, _, err = push(file, '--repo-id', 'org/model')
    assert code == 1 and err.count('\n') == 1
    assert "The model 'resnet18' of " in err and 'is no model of this version' in err
    assert server.requests == []


# what must not be sent


class Hostile:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (self.file,)


@pytest.fixture
def evil(tmp_path):
    """A folder that a pickle makes when it is unpickled, and that pickle."""
    return tmp_path / 'evil', pickle.dumps({'state_dict': Hostile(str(tmp_path / 'evil')), 'args': 1}, protocol=2)


def test_hostile_pickle_is_not_unpickled_to_push_it(server, push, folder, tmp_path, evil):
    (folder / 'model.safetensors').unlink()
    (folder / 'pytorch_model.bin').write_bytes(evil[1])
    (tmp_path / 'last.pth.tar').write_bytes(evil[1])
    for source in (folder, tmp_path / 'last.pth.tar'):
        code, _, err = push(source, '--repo-id', 'org/model')
        assert code == 1 and err.count('\n') == 1, err
        assert not evil[0].exists()
    assert server.requests == []


def test_hostile_pickle_in_a_repository_is_never_unpickled(server, push, pull, model, folder, evil):
    assert push(folder, '--repo-id', 'org/model')[0] == 0
    server.repos['org/model'].commit('main', {'pytorch_model.bin': evil[1]})
    assert same(pull(), model)  # safetensors go before
    assert not any('pytorch_model.bin' in request for request in server.requests)
    del tree(server)['model.safetensors']
    with pytest.raises((RuntimeError, pickle.UnpicklingError)):
        pull()
    assert not evil[0].exists()


@pytest.mark.parametrize('source, message', [
    ('wavemix_16_6', 'is no model, file or folder: give a name of timm.list_models'),
    ('wavemix_16_5.cifar', 'Invalid pretrained tag (cifar) for wavemix_16_5.'),
    ('wavemix_lite_256_7_s2', "'wavemix_lite_256_7_s2' has no weights: train it and push the checkpoint."),
    ('resnet18', "'resnet18' is no model of this version of timm_wavemix"),
    ('.', "'.' has no config.json: write the folder with timm.models.save_for_hf."),
])
def test_source_that_is_none(server, push, tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = push(source, '--repo-id', 'org/model')
    assert code == 1 and message in err and err.count('\n') == 1
    assert server.requests == []


def test_folder_of_an_unknown_architecture_says_what_to_import(server, push, folder):
    config = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps(dict(config, architecture='wavemix_17_5')))
    code, _, err = push(folder, '--repo-id', 'org/model')
    assert code == 1 and "the architecture 'wavemix_17_5'" in err and 'import a timm_wavemix that has it' in err
    assert server.requests == []


@pytest.mark.parametrize(
    'damage', [lambda data: data[:len(data) // 2], lambda data: b'', lambda data: b'\xff' + data[1:]],
    ids=['truncated', 'empty', 'header'])
def test_damaged_folder_is_not_sent(server, push, folder, damage):
    file = folder / 'model.safetensors'
    file.write_bytes(damage(file.read_bytes()))
    code, _, err = push(folder, '--repo-id', 'org/model')
    assert code == 1 and 'cannot be read, their file is damaged' in err and err.count('\n') == 1
    assert server.requests == []


# what the Hub may do


@pytest.mark.parametrize('token, fix', [
    (None, 'log in with|logged in'), ('hf_wrong', 'log in with .* HF_TOKEN'), ('hf_read', 'token'),
])
def test_push_without_the_right_token(server, push, monkeypatch, token, fix):
    monkeypatch.delenv('HF_TOKEN') if token is None else monkeypatch.setenv('HF_TOKEN', token)
    code, _, err = push(NAME, '--repo-id', 'org/model')
    assert code == 1 and re.fullmatch(rf'push: Nothing was published: .*({fix}).*\n', err), err
    assert not token or token not in err
    assert server.repos == {}


@pytest.mark.parametrize('token', [None, 'hf_stranger', 'hf_wrong'])
def test_private_repository_needs_the_right_token(server, push, pull, model, folder, monkeypatch, token):
    assert push(folder, '--repo-id', 'org/model', '--private')[0] == 0
    assert server.repos['org/model'].private
    monkeypatch.delenv('HF_TOKEN') if token is None else monkeypatch.setenv('HF_TOKEN', token)
    with pytest.raises(OSError) as error:
        pull()
    assert not token or token not in str(error.value)
    monkeypatch.setenv('HF_TOKEN', 'hf_read')
    assert same(pull(), model)


def test_private_push_to_a_public_repository_is_refused(server, push):
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    commits = len(server.repos['org/model'].commits)
    code, _, err = push(NAME, '--repo-id', 'org/model', '--private')
    assert code == 1 and 'org/model exists and is public: make it private in its settings' in err
    assert len(server.repos['org/model'].commits) == commits


@pytest.mark.parametrize('endpoint, status, message', [
    ('create', 429, 'the Hub limits your requests: run it again in some minutes.'),
    ('model_info', 500, 'the Hub fails with HTTP status 500: run it again later.'),
    ('preupload', 404,
     'the Hub has no org/model, or not for you: check the name, and the token with `hf auth whoami`.'),
    ('lfs_batch', 401, 'the Hub does not know you: log in with `hf auth login`, or set HF_TOKEN to a valid token.'),
    ('lfs_upload', 500, 'the storage at localhost:PORT fails with HTTP status 500: run it again later.'),
    ('lfs_upload', 429, 'the storage at localhost:PORT limits your requests: run it again in some minutes.'),
    ('lfs_upload', 403,
     'the storage at localhost:PORT refuses with HTTP status 403, as it does once a link to it has expired: run it '
     'again.'),
    ('lfs_verify', 404, 'the Hub could not confirm the upload of the weights (HTTP status 404): run it again.'),
    ('preupload', 407, 'the proxy wants a login (HTTP status 407): put it into HTTPS_PROXY.'),
    ('preupload', 511,
     'the network wants a login before it lets you through to 127.0.0.1:PORT (HTTP status 511): open a page in a '
     'browser, then run it again.'),
    ('commit', 403, 'your token may not write to org/model: take one that may.'),
    ('commit', 409, 'org/model changed meanwhile: run it again.'),
    ('commit', 412, 'org/model changed meanwhile: run it again.'),
])
def test_hub_that_fails_publishes_nothing(server, push, endpoint, status, message):
    server.failures[endpoint] = status
    code, _, err = push(NAME, '--repo-id', 'org/model')
    message = re.sub(r'PORT', server.url.rpartition(':')[2], message)
    left = ' It leaves the empty repository org/model, which a second run fills.' if server.repos else ''
    assert code == 1 and err.splitlines()[-1] == f'push: Nothing was published: {message}{left}'
    assert all(set(tree(server, repo)) == {'.gitattributes'} for repo in server.repos)
    server.failures.clear()
    assert push(NAME, '--repo-id', 'org/model')[0] == 0


def test_upload_that_is_cut_publishes_nothing_and_a_second_run_finishes(server, push, pull):
    server.cuts['lfs_upload'] = 100_000
    code, _, err = push(NAME, '--repo-id', 'org/model')
    assert code == 1 and 'Nothing was published' in err and 'check the network' in err
    assert server.objects == {} and set(tree(server)) == {'.gitattributes'}
    server.cuts.clear()
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    assert same(pull(), timm.create_model(NAME, pretrained=True).eval())


def test_download_that_is_cut_leaves_no_broken_file_and_a_second_run_finishes(server, push, pull):
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    server.cuts['lfs_download'] = 1000
    with pytest.raises(Exception, match=r'.'):  # each version of huggingface_hub has its own
        pull()
    server.cuts.clear()
    assert same(pull(), timm.create_model(NAME, pretrained=True).eval())


@pytest.mark.parametrize('damage', [
    lambda data: data[:len(data) // 2],
    lambda data: b'\xff' + data[1:],
    lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
], ids=['truncated', 'header', 'one bit of a weight'])
def test_weights_that_the_hub_damages_do_not_pass_for_done(server, push, pull, damage):
    server.store = damage
    code, out, err = push(NAME, '--repo-id', 'org/model')
    assert code == 1 and 'was published' in err and 'Done' not in out
    assert err.count('\n') == 1


@pytest.mark.parametrize('damage', [lambda data: data[:len(data) // 2], lambda data: b'\xff' + data[1:]],
                         ids=['truncated', 'header'])
def test_damaged_weights_of_a_repository_name_the_model(server, push, pull, damage):
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    server.objects = {oid: damage(content) for oid, content in server.objects.items()}
    with pytest.raises(RuntimeError, match='weights of wavemix_16_5 cannot be read, their file is damaged'):
        pull()


def test_two_pushes_at_once_do_not_mix(server, push, pull, model, folder):
    assert push(NAME, '--repo-id', 'org/model')[0] == 0

    def other_push():
        server.before_commit = lambda: None
        hub.push(str(folder), 'org/model')

    server.before_commit = other_push
    changed = timm.create_model(NAME, pretrained=True).eval()
    torch.nn.init.zeros_(changed.head.fc.bias)
    save_for_hf(changed, folder.parent / 'changed', safe_serialization=True)
    code, _, err = push(folder.parent / 'changed', '--repo-id', 'org/model')
    assert (code, err) == (1, 'push: Nothing was published: org/model changed meanwhile: run it again.\n')
    assert same(pull(), model)
    assert push(folder.parent / 'changed', '--repo-id', 'org/model')[0] == 0
    assert same(pull(), changed)


def test_no_token_in_what_is_logged(server, push, caplog):
    huggingface_hub.logging.set_verbosity_debug()
    caplog.set_level(logging.DEBUG)
    try:
        code, out, err = push(NAME, '--repo-id', 'org/model')
    finally:
        huggingface_hub.logging.set_verbosity_warning()
    assert code == 0 and 'PUT' in caplog.text
    assert 'hf_write' not in out + err + caplog.text


def test_no_token_in_an_error_that_quotes_it(server, push):
    server.failures['create'] = 418  # as all failures of this server, its text has the Authorization header
    code, out, err = push(NAME, '--repo-id', 'org/model')
    assert code == 1 and 'Bearer ***' in err
    assert 'hf_write' not in out + err


# offline


PULL = """
import timm, timm_wavemix, torch
model = timm.create_model('hf-hub:org/model', pretrained=True).eval()
print(model(torch.ones(1, 3, 28, 28)).tolist())
"""


def test_offline_takes_what_the_cache_has(server, push, python):
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    cold = python('-c', PULL, HF_HUB_OFFLINE='1')
    assert cold.returncode == 1 and 'LocalEntryNotFoundError' in cold.stderr
    online = python('-c', PULL)
    server.requests.clear()
    warm = python('-c', PULL, HF_HUB_OFFLINE='1')
    assert (warm.returncode, warm.stdout) == (0, online.stdout), warm.stderr
    assert server.requests == []


def test_push_offline_says_what_to_unset(server, python):
    result = python('-m', 'timm_wavemix', 'push', NAME, '--repo-id', 'org/model', HF_HUB_OFFLINE='1')
    assert result.returncode == 1 and 'HF_HUB_OFFLINE' in result.stderr and result.stderr.count('\n') == 1
    assert server.requests == []


# the command


def test_command_pushes_and_says_where(server, python):
    command = '-m', 'timm_wavemix', 'push'
    result = python(*command, NAME, '--repo-id', 'org/model', NO_COLOR='1')
    assert (result.returncode, result.stderr) == (0, '')  # no bar, this is no terminal
    commit = server.repos['org/model'].refs['main']
    assert result.stdout.splitlines()[0] == f'{NAME} to org/model:'
    assert result.stdout.endswith(f'\nDone, read back and found the same: {server.url}/org/model/commit/{commit}\n')
    result = python(*command, NAME, '--repo-id', 'model')
    assert result.returncode == 2
    assert result.stderr.endswith("error: --repo-id: 'model' has no owner: write ORG/model.\n")
    assert python(*command, NAME, '--repo-id', 'org/other', HF_TOKEN='hf_read').returncode == 1


@pytest.mark.parametrize('args, code, message', [
    (['--help'], 0, 'usage: push [-h] [--repo-id ORG/NAME]'),
    ([], 2, 'the following arguments are required: NAME_OR_CHECKPOINT, --repo-id'),
    ([NAME, '--repo-id', 'org/a b'], 2, '--repo-id: '),
    ([NAME, '--repo-id', 'org/model', '--create-pr', '--revision', 'x'], 2, 'not allowed with argument'),
    ([NAME, '--repo-id', 'org/model', '--config', 'missing.yaml'], 1, "There is no file 'missing.yaml': write one"),
    ([NAME, '--repo-id', 'org/model', '--config', 'LICENSE'], 1, 'mapping values are not allowed here'),
], ids=str)
def test_usage(server, push, args, code, message):
    status, out, err = push(*args)
    assert status == code and message in (err if code else out)
    assert server.requests == []


def test_dry_run_shows_all_and_sends_nothing(server, push):
    code, out, err = push(NAME, '--repo-id', 'org/model', '--dry-run')
    assert (code, err) == (0, '')
    assert server.requests == []
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    for name in ('README.md', 'config.json'):
        assert tree(server)[name].decode() in out
    size = len(server.objects[tree(server)['model.safetensors']])
    assert re.search(rf'model.safetensors +{size:,} bytes', out)


def test_config_without_an_architecture_is_named(push, folder):
    (folder / 'config.json').write_text('{}')
    code, _, err = push(folder, '--repo-id', 'org/model')
    assert code == 1 and "has no 'architecture': write the folder with timm.models.save_for_hf" in err


# the card


def card(server, repo_id='org/model'):
    return huggingface_hub.ModelCard(tree(server, repo_id)['README.md'].decode())


@pytest.mark.parametrize('name', CONFIGS)
def test_card_has_the_numbers_of_hub_configs_and_of_the_model(server, push, name):
    assert push(name, '--repo-id', f'org/{name}')[0] == 0
    made, metadata = card(server, f'org/{name}'), CONFIGS[name]
    weights = load(server.objects[tree(server, f'org/{name}')['model.safetensors']])
    params = sum(v.numel() for k, v in weights.items() if not re.search('running_|num_batches', k))
    metrics = metadata['metrics']
    assert {r.metric_name: r.metric_value for r in made.data.eval_results} == {
        f'Top-{k} accuracy (%)': float(metrics[f'top{k}']) for k in (1, 5) if f'top{k}' in metrics}
    assert {r.dataset_name for r in made.data.eval_results} == {metadata['dataset']['name']}
    row = re.search(rf'^\| {re.escape(name)} \| (\S+) \| (\S+) \| (\S+) \|', made.text, re.MULTILINE).groups()
    size = timm.get_pretrained_cfg(name).input_size
    assert row == (f'{params / 1e6:.2f}', 'x'.join(map(str, size)), str(metadata['metrics']['top1']))
    assert f'**Classes:** {weights["head.fc.bias"].numel()}\n' in made.text
    for section in ('dataset', 'training', 'metrics', 'use'):
        for value in metadata[section].values():
            assert f':** {value}\n' in made.text


def test_card_has_no_number_but_those_of_its_sources(server, push, tmp_path):
    metadata = yaml.safe_load(re.sub(r'\d+(\.\d+)?', '77', (ROOT / 'hub_configs' / f'{NAME}.yaml').read_text()))
    metadata['dataset']['name'] = 'Another'
    (tmp_path / 'metadata.yaml').write_text(yaml.safe_dump(metadata))
    assert push(NAME, '--repo-id', 'org/model', '--config', tmp_path / 'metadata.yaml')[0] == 0
    text = card(server).content
    assert '92.16' not in text and '99.82' not in text and 'epoch 16' not in text
    assert text.count('77') > 10


def test_card_metadata_is_what_the_hub_knows(server, push):
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    made = card(server)
    data = made.data.to_dict()
    assert (data['library_name'], data['pipeline_tag'], data['license']) == ('timm', 'image-classification', 'mit')
    assert data['datasets'] == ['zalando-datasets/fashion_mnist'] and data['metrics'] == ['accuracy']
    assert 'timm' in data['tags'] and 'base_model' not in data
    assert data['model-index'][0]['name'] == 'model'


def test_card_of_converted_weights_tells_whose_claim_the_accuracy_is(server, push, folder, tmp_path):
    metadata = {
        'dataset': {'name': 'ImageNet-1k', 'hub_id': 'ILSVRC/imagenet-1k'}, 'base_model': 'authors/weights',
        'weights': {'license': 'mit'}, 'metrics': {'source': 'https://example.org/paper', 'top1': 74.5}}
    (tmp_path / 'metadata.yaml').write_text(yaml.safe_dump(metadata))
    assert push(folder, '--repo-id', 'org/model', '--config', tmp_path / 'metadata.yaml')[0] == 0
    made = card(server)
    assert made.data.base_model == 'authors/weights'
    assert [(r.metric_value, r.source_url) for r in made.data.eval_results] == [(74.5, 'https://example.org/paper')]
    assert '| 74.5 | https://example.org/paper |' in made.text


def test_card_cites_as_the_readme_does(server, push, folder):
    assert push(folder, '--repo-id', 'org/model')[0] == 0
    citation = re.search(r'```bibtex\n.*?```', (ROOT / 'README.md').read_text(), re.DOTALL).group()
    assert citation in card(server).text


def test_card_that_somebody_wrote_is_kept(server, push, folder):
    written = '---\nlicense: cc-by-4.0\n---\n\n# My model\n'
    (folder / 'README.md').write_text(written)
    assert push(folder, '--repo-id', 'org/model')[0] == 0
    assert tree(server)['README.md'].decode() == written


@needs_safe_globals
def test_labels_of_a_checkpoint_come_from_the_facts(server, push, pull, model, tmp_path):
    file, metadata = checkpoint(tmp_path / 'last.pth.tar', model), tmp_path / 'metadata.yaml'
    metadata.write_text(yaml.safe_dump({'label_names': list('abcdefg')}))
    assert push(file, '--repo-id', 'org/model', '--config', metadata)[0] == 0
    assert json.loads(tree(server)['config.json'])['label_names'] == list('abcdefg')
    assert pull().pretrained_cfg['label_names'] == list('abcdefg')
    metadata.write_text(yaml.safe_dump({'label_names': list('abc')}))
    code, _, err = push(file, '--repo-id', 'org/model', '--config', metadata)
    assert code == 1 and 'has 3 label_names, the model 7 classes: name all.' in err
