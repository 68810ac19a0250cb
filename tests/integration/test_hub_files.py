"""What push refuses, in one sentence and before anything is sent, and what it accepts."""
import argparse
import json
import shutil
import string

import pytest
import timm
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file
from timm.models._hub import save_for_hf

from timm_wavemix import hub
from timm_wavemix.cards import label_list, read_metadata

NAME = 'wavemix_16_5.fashion_mnist'
needs_safe_globals = pytest.mark.skipif(
    not hasattr(torch.serialization, 'safe_globals'), reason='torch before 2.5 reads no argparse.Namespace safely')


@pytest.fixture
def refused(server, push, capsys):
    """Push what is to be refused, as such and with --dry-run, and return the sentence."""
    def run(source, *args):
        errs = set()
        for more in [], ['--dry-run']:
            code, _, err = push(source, '--repo-id', 'org/model', *args, *more)
            assert code == 1 and err.count('\n') == 1 and 'Traceback' not in err, err
            assert err.rstrip()[-1] in '.)' or ':' in err
            errs.add(err.removeprefix('push: ').rstrip('\n'))
        assert server.requests == []
        assert len(errs) == 1
        return errs.pop()
    return run


def tree(server, repo_id='org/model'):
    repo = server.repos[repo_id]
    return repo.commits[repo.refs['main']]


# the source is what is published


def change_config(folder, **changes):
    file = folder / 'config.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def change_weights(folder, change):
    weights = load_file(folder / 'model.safetensors')
    change(weights)
    save_file(weights, folder / 'model.safetensors')


@pytest.mark.parametrize('changes', [
    {'num_classes': 12, 'model_args': {}},
    {'num_classes': 12, 'model_args': {'num_classes': 12}},
    {'model_args': {'num_classes': 7, 'in_chans': 1}},
    {'model_args': {'num_classes': 7, 'levels': 3}},
    {'architecture': 'wavemix_32_5', 'num_features': 32},
    {'architecture': 'fnet2d_64_5', 'num_features': 64},
], ids=str)
def test_config_that_contradicts_the_weights_is_refused(refused, folder, changes):
    change_config(folder, **changes)
    assert f"The weights of '{folder}' do not fit its model: " in refused(folder)


@pytest.mark.parametrize('change', [
    lambda weights: weights.pop('head.fc.weight'),
    lambda weights: weights.update({'head.fc.bias': torch.zeros(12), 'head.fc.weight': torch.zeros(12, 16)}),
    lambda weights: weights.pop('blocks.0.norm.running_mean'),
    lambda weights: weights.update(more=torch.zeros(1)),
], ids=['no classifier', 'other classes', 'missing', 'unknown'])
def test_weights_that_are_not_of_the_model_are_refused(refused, folder, change):
    change_weights(folder, change)
    assert 'do not fit its model' in refused(folder)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('where', ['stem.0.weight', 'blocks.4.norm.running_var', 'head.fc.bias'])
def test_weights_that_are_not_finite_are_refused_as_such(refused, folder, where, value):
    change_weights(folder, lambda weights: weights[where].view(-1)[-1:].fill_(value))
    assert refused(folder) == (
        f"The weights of '{folder}' are not all finite, first in {where}: take a checkpoint from before the training "
        'diverged.')


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(seed=st.integers(0, 2**32), dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32]))
def test_what_is_written_is_what_the_source_holds(tmp_path, seed, dtype):
    torch.manual_seed(seed)
    model = timm.create_model('wavemix_16_5', num_classes=3)
    for p in model.parameters():
        torch.nn.init.normal_(p)
    source, target = tmp_path / f'source_{seed}_{dtype}', tmp_path / f'target_{seed}_{dtype}'
    save_for_hf(model, source, safe_serialization=True)
    weights = {k: v.to(dtype) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    save_file(weights, source / 'model.safetensors')
    target.mkdir(exist_ok=True)
    hub.build(str(source), 'org/model', target)
    written = load((target / 'model.safetensors').read_bytes())
    assert written.keys() == weights.keys()
    assert all(torch.equal(written[k], weights[k].to(written[k].dtype)) for k in written)
    shutil.rmtree(source)
    shutil.rmtree(target)


# config.json


@pytest.mark.parametrize('config', [
    'null', '[]', '"wavemix_16_5"', '3', '{', '', '{"architecture": null}', '{"architecture": ["wavemix_16_5"]}',
    '[' * 100_000,
], ids=lambda config: config[:40] or 'empty')
def test_config_that_is_no_mapping_is_refused(refused, folder, config):
    (folder / 'config.json').write_text(config)
    assert 'config.json of' in refused(folder) and 'timm.models.save_for_hf' in refused(folder)


def test_config_in_other_bytes_than_utf_8_is_refused(refused, folder):
    (folder / 'config.json').write_bytes('{"architecture": "wavemix_16_5", "who": "Jürgen"}'.encode('latin-1'))
    assert 'is no JSON in UTF-8' in refused(folder)


@pytest.mark.parametrize('changes', [
    {'pretrained_cfg': None}, {'pretrained_cfg': []}, {'model_args': 'levels=3'}, {'model_args': [1]},
    {'pretrained_cfg': {'num_clases': 7}}, {'model_args': {'lewels': 3}}, {'num_classes': '7'}, {'num_classes': [7]},
    {'num_classes': -1}, {'num_classes': 0}, {'model_args': {'num_classes': 7, 'global_pool': 3}},
    {'model_args': {'num_classes': 7, 'block': 'WaveMixLiteBlock'}}, {'model_args': {'features_only': True}},
    {'pretrained_cfg': {'input_size': '3, 28, 28'}}, {'pretrained_cfg': {'input_size': [3]}},
    {'num_classes': 12}, {'pretrained_cfg': {'mean': 'grey'}}, {'pretrained_cfg': {'std': [0, 'a', 1]}},
    {'pretrained_cfg': {'crop_pct': 'all'}}, {'pretrained_cfg': {'interpolation': 'bicubique'}},
    {'label_names': 'abcdefg'}, {'label_names': 7}, {'label_names': [1, 2, 3, 4, 5, 6, 7]},
    {'label_names': {'0': 'a', '2': 'b'}}, {'label_descriptions': 3}, {'num_clases': 7}, {'labels': list('abcdefg')},
    {'global_pool': 'max'}, {'global_pool': 3}, {'num_features': 32},
], ids=str)
def test_config_with_unknown_or_mistyped_entries_is_refused(refused, folder, changes):
    change_config(folder, **changes)
    refused(folder)


def test_preprocessing_that_makes_no_numbers_is_refused(refused, folder):
    cfg = json.loads((folder / 'config.json').read_text())['pretrained_cfg']
    change_config(folder, pretrained_cfg={**cfg, 'mean': [float('nan')] * 3})
    assert 'correct input_size, mean, std and so on in its config: its logits are not finite' in refused(folder)


def test_a_path_that_is_a_name_too_is_refused(refused, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'wavemix_16_5.pth.tar').touch()  # to timm, the model with the tag pth.tar
    assert "write './wavemix_16_5.pth.tar' for the path" in refused('wavemix_16_5.pth.tar')


def test_folder_that_lacks_an_argument_of_its_model_is_refused(refused, tmp_path):
    model = timm.create_model('wavemix_16_5', num_classes=7, global_pool='max')
    save_for_hf(model, tmp_path / 'model', safe_serialization=True)
    config = json.loads((tmp_path / 'model' / 'config.json').read_text())
    config.get('model_args', {}).pop('global_pool', None)  # timm before 1.0.31 did not write it by itself
    change_config(tmp_path / 'model', model_args=config.get('model_args', {}), global_pool='max')
    assert 'says global_pool max and builds a model of avg' in refused(tmp_path / 'model')


def test_label_names_by_index_are_put_in_order(server, push, folder):
    change_config(folder, label_names={str(i): f'class {i}' for i in reversed(range(7))})
    assert push(folder, '--repo-id', 'org/model')[0] == 0
    assert json.loads(tree(server)['config.json'])['label_names'] == [f'class {i}' for i in range(7)]


@pytest.mark.parametrize('text, message', [
    (b'---\nlicense: mit\n---\nJ\xfcrgen', 'README.md of'),
    (b'---\nlicense: [\n---\n', "the YAML between the lines '---', cannot be read"),
    (b'---\n- license\n---\n', "the YAML between the lines '---', cannot be read"),
    (b'---\nlicense: my-license\n---\n', "the Hub knows no license 'my-license'"),
    (b'---\nlicense: [mit]\n---\n', 'its license is no text'),
    (b'---\nmodel-index: 3\n---\n', "the YAML between the lines '---', cannot be read"),
])
def test_readme_that_the_hub_would_refuse(refused, folder, text, message):
    (folder / 'README.md').write_bytes(text)
    assert message in refused(folder)


# weights that cannot be read


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(share=st.floats(0, 1, exclude_max=True), kind=st.sampled_from(['safetensors', 'zip', 'legacy']))
def test_file_that_is_cut_at_any_length_is_refused(folder, model, tmp_path, share, kind):
    if kind == 'safetensors':
        source = file = folder / 'model.safetensors'
        source, content = folder, whole(folder, file)
    else:
        source = file = tmp_path / 'last.pth.tar'
        torch.save(
            {'args': {'model': 'wavemix_16_5', 'num_classes': 7}, 'state_dict': model.state_dict()}, file,
            _use_new_zipfile_serialization=kind == 'zip')
        content = file.read_bytes()
    file.write_bytes(content[:int(share * len(content))])
    with pytest.raises(ValueError, match='cannot be read, their file is damaged'):
        hub.load_source(str(source))


def whole(folder, file):
    """The content of a file as it was before it was cut."""
    kept = folder / 'kept'
    if not kept.exists():
        shutil.copy(file, kept)
    return kept.read_bytes()


@needs_safe_globals
@pytest.mark.parametrize('content', [
    [1, 2], 3, None, 'text', {}, {'state_dict': {}}, {'args': None, 'state_dict': {}},
    {'args': {'num_classes': 7}, 'state_dict': {}}, {'args': {'model': 5}, 'state_dict': {}},
    {'args': [1], 'state_dict': {}}, {'args': {'model': 'wavemix_16_5'}},
    {'args': {'model': 'wavemix_16_5', 'num_classes': 7}, 'state_dict': [1]},
    {'args': {'model': 'wavemix_16_5', 'num_classes': 7}, 'state_dict': {'stem.0.weight': 5}},
    {'args': {'model': 'wavemix_16_5', 'num_classes': 7}, 'state_dict': {5: torch.zeros(1)}},
    {'args': {'model': 'wavemix_16_5', 'model_kwargs': ['levels']}, 'state_dict': {}},
    {'args': {'model': 'wavemix_16_5', 'input_size': 'large'}, 'state_dict': {}},
    {'args': {'model': 'wavemix_16_5', 'mean': [0.5, 0.5]}, 'state_dict': {}},
    {'args': {'model': 'wavemix_16_5', 'num_classes': 'ten'}, 'state_dict': {}},
    {'args': {'model': 'unknown'}, 'state_dict': {}},
], ids=lambda content: str(content)[:60])
def test_checkpoint_that_is_none(refused, tmp_path, content):
    torch.save(content, tmp_path / 'last.pth.tar')
    assert str(tmp_path / 'last.pth.tar') in refused(tmp_path / 'last.pth.tar')


@needs_safe_globals
@pytest.mark.parametrize('kind', [dict, argparse.Namespace], ids=['dict', 'namespace'])
def test_checkpoint_of_older_timm_is_taken(server, push, pull, model, tmp_path, kind):
    content = {'args': kind(model='wavemix_16_5', num_classes=7), 'state_dict': model.state_dict()}
    torch.save(content, tmp_path / 'last.pth.tar')
    code, _, err = push(tmp_path / 'last.pth.tar', '--repo-id', 'org/model')
    assert code == 0, err
    assert all(torch.equal(v, pull().state_dict()[k]) for k, v in model.state_dict().items())


def test_full_disk_is_told_of(refused, monkeypatch):
    def full(*args, **kwargs):
        raise SafetensorError('Error while serializing: I/O error: No space left on device (os error 28)')

    def full_for_all(*args, **kwargs):
        raise OSError(28, 'No space left on device')

    for error in full, full_for_all:
        monkeypatch.setattr('safetensors.torch.save_file', error)
        assert refused(NAME) == (
            'the disk of this machine is full ([Errno 28] No space left on device): free some space, or set TMPDIR to '
            'a folder elsewhere.')


def test_files_that_cannot_be_written_for_another_reason_are_told_of(server, python):
    code = (
        'import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n'
        f"from timm_wavemix import hub; hub.main(['{NAME}', '--repo-id', 'org/model'], prog='push')")
    result = python('-c', code)
    assert result.returncode == 1 and result.stderr.count('\n') == 1
    assert f"push: The files of '{NAME}' cannot be written: " in result.stderr and 'too large' in result.stderr
    assert server.requests == []


# --config


@pytest.mark.parametrize('text, message', [
    ('metrics: 92', 'metrics is no mapping'),
    ('metrics: [92, 99]', 'metrics is no mapping'),
    ('dataset: Fashion-MNIST', 'dataset is no mapping'),
    ('training: {hours: [1, 2]}', 'training: hours is no text'),
    ('training: {? [1] : 2}', 'cannot be read as YAML'),
    ('- metrics', 'the file is no mapping'),
    ('text', 'the file is no mapping'),
    ('metric: {top1: 92}', "there is no section or entry 'metric'"),
    ('metrics: {top1: 92}', "add 'dataset: name:'"),
    ('dataset: {name: x}\nmetrics: {top1: null}', "metrics: top1 is 'null': give a percentage from 0 to 100"),
    ('dataset: {name: x}\nmetrics: {top1: }', "metrics: top1 is '': give a percentage"),
    ('dataset: {name: x}\nmetrics: {top1: high}', "metrics: top1 is 'high': give a percentage"),
    ('dataset: {name: x}\nmetrics: {top5: .nan}', "metrics: top5 is '.nan': give a percentage"),
    ('dataset: {name: x}\nmetrics: {top1: nan}', "metrics: top1 is 'nan': give a percentage"),
    ('dataset: {name: x}\nmetrics: {top1: 101}', "metrics: top1 is '101': give a percentage"),
    ('dataset: {name: x}\nmetrics: {top1: true}', "metrics: top1 is 'true': give a percentage"),
    ('label_names: abc', 'label_names is no list'),
    ('label_names: 10', 'label_names is no list'),
    ('label_names: []', 'label_names is no list'),
    ('label_names: [[a], b]', 'name 0 of label_names is empty or no text'),
    ('label_names: [a, "", c]', 'name 1 of label_names is empty'),
    ('label_names: {a: 0, b: 1}', 'label_names has keys other than 0 to 1'),
    ('label_names: {1: a, 2: b}', 'label_names has keys other than 0 to 1'),
    ('label_names: [a, b]', 'has 2 label_names, the model 10 classes: name all.'),
    ('label_names: [a]\nlabel_file: x.txt', 'label_file is the name of one text file'),
    ('label_file: missing.txt', 'missing.txt'),
    ('base_model: {a: b}', 'base_model names no repository'),
    ('base_model: [a/b, [c]]', 'base_model names no repository'),
    ('base_model: []', 'base_model names no repository'),
    ('base_model: a b', "'a b' is no id of a repository on the Hub"),
    ('base_model_relation: cousin', 'the Hub knows adapter, finetune, merge, quantized'),
    ('dataset: {hub_id: a/b/c}', "'a/b/c' is no id of a repository"),
    ('weights: {license: my own}', "the Hub knows no license 'my own'"),
    ('weights: {license: MIT}', "the Hub knows no license 'MIT'"),
    ('weights: {license: other}', 'add its license_name'),
    ('label_names: &a [*a]', 'cannot be read as YAML'),
    ('metrics: !!python/object/apply:os.getcwd []', 'metrics is no mapping'),
    ('[' * 5000, 'cannot be read as YAML'),
    ('\x00', 'cannot be read as YAML'),
], ids=lambda value: value[:40])
def test_config_that_is_refused(refused, tmp_path, text, message):
    (tmp_path / 'metadata.yaml').write_text(text)
    assert message in refused(NAME, '--config', tmp_path / 'metadata.yaml')


def test_config_that_is_not_there_is_refused(refused, tmp_path):
    assert f"There is no file '{tmp_path / 'metadata.yaml'}'" in refused(NAME, '--config', tmp_path / 'metadata.yaml')


def test_config_that_is_not_utf_8_is_refused(refused, tmp_path):
    (tmp_path / 'metadata.yaml').write_bytes('dataset: {name: Bäume}'.encode('latin-1'))
    assert 'cannot be read as YAML in UTF-8' in refused(NAME, '--config', tmp_path / 'metadata.yaml')


@pytest.mark.parametrize('text', ['', '# nothing', '~', 'metrics:', 'metrics: null\ndataset: ~\n', 'use: {}'])
def test_empty_config_and_sections_are_taken(push, server, tmp_path, text):
    (tmp_path / 'metadata.yaml').write_text(text)
    code, _, err = push(NAME, '--repo-id', 'org/model', '--config', tmp_path / 'metadata.yaml')
    assert code == 0, err


@pytest.mark.parametrize('text, names', [
    ('[yes, no]', ['yes', 'no']),
    ('[01, 010]', ['01', '010']),
    ('[2020-01-01, 2020-99-99]', ['2020-01-01', '2020-99-99']),
    ('[1e3, .inf, null, ~, =]', ['1e3', '.inf', 'null', '~', '=']),
    ('{1: on, 0: off}', ['off', 'on']),
    ('\n- "a: b"\n- c', ['a: b', 'c']),
])
def test_names_of_classes_are_text_as_it_is_written(tmp_path, text, names):
    (tmp_path / 'metadata.yaml').write_text(f'label_names: {text}')
    assert read_metadata(tmp_path / 'metadata.yaml')['label_names'] == names


@given(names=st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=12), data=st.data())
def test_names_by_index_are_those_in_a_list(names, data):
    order = data.draw(st.permutations(range(len(names))))
    assert label_list({index: names[index] for index in order}) == label_list(names) == names


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(string.printable) | st.dates(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(
        st.text(string.ascii_lowercase, max_size=5) | st.integers(0, 3), children, max_size=3),
    max_leaves=8)
entries = st.sampled_from([
    'dataset', 'weights', 'preprocessing', 'training', 'metrics', 'use', 'base_model', 'base_model_relation',
    'label_names', 'label_file'])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(metadata=st.dictionaries(entries, yaml_values, max_size=4) | yaml_values)
def test_any_config_is_taken_or_refused_in_one_sentence(tmp_path, metadata):
    (tmp_path / 'metadata.yaml').write_text(yaml.safe_dump(metadata), encoding='utf-8')
    try:
        checked = read_metadata(tmp_path / 'metadata.yaml')
    except (ValueError, OSError) as error:
        assert str(error)
    else:
        assert all(isinstance(name, str) for name in checked.get('label_names', []))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200) | st.text(string.printable, max_size=200).map(str.encode))
def test_any_bytes_are_taken_or_refused_as_config(tmp_path, content):
    (tmp_path / 'metadata.yaml').write_bytes(content)
    try:
        read_metadata(tmp_path / 'metadata.yaml')
    except (ValueError, OSError) as error:
        assert str(error)
