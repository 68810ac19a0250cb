"""The files of a push: they hold what the source holds, nothing private, and what does not fit is refused."""
import argparse
import errno
import json
from unittest import mock

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf

from conftest import change_config, checkpoint
from timm_wavemix.hub.files import write_files

NAME = 'wavemix_16_5.fashion_mnist'
SURROGATE, OVERRIDE, ESCAPE = '\ud800', '\u202e', '\x1b[2J'


@pytest.fixture
def write(tmp_path):
    """Write the files of a source, and return their folder and what was said."""
    def run(source, **kwargs):
        folder = tmp_path / 'written'
        folder.mkdir()
        notes = write_files(str(source), 'org/model', folder, **kwargs)
        return folder, notes
    return run


@pytest.fixture
def refused(server, push):
    """Push what is to be refused, with --dry-run or without, and return the sentence."""
    def run(source, *args):
        errs = set()
        for more in [], ['--dry-run']:
            code, _, err = push(source, '--repo-id', 'org/model', *args, *more)
            assert code == 1 and err.count('\n') == 1 and 'Traceback' not in err, err
            errs.add(err)
        assert server.requests == [] and len(errs) == 1
        return errs.pop()
    return run


def config(folder):
    return json.loads((folder / 'config.json').read_text())


# What is written


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32])
def test_files_hold_the_tensors_of_the_source(write, folder, dtype):
    weights = load_file(folder / 'model.safetensors')
    weights.update({k: v.to(dtype) for k, v in weights.items() if v.is_floating_point()})
    save_file(weights, folder / 'model.safetensors')
    written = load_file(write(folder)[0] / 'model.safetensors')
    assert written.keys() == weights.keys()
    assert all(torch.equal(written[k], weights[k].to(written[k].dtype)) for k in written)


def test_arguments_that_build_the_model_are_written(write, tmp_path):
    args = dict(in_chans=1, num_classes=3, block_type='lite', levels=1, global_pool='max')
    model = timm.create_model('wavemix_16_5', **args).eval()
    model.pretrained_cfg.update(input_size=(1, 20, 24), label_names=None, mean=(0.5,), std=(0.5,))
    save_for_hf(model, tmp_path / 'model', model_args=args)  # a pickle, which is not what is written
    folder, _ = write(tmp_path / 'model')
    again = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    images = torch.randn(2, 1, 20, 24)
    assert torch.equal(again(images), model(images))
    assert {path.name for path in folder.iterdir()} == {'README.md', 'config.json', 'model.safetensors'}
    written = config(folder)
    assert written['num_classes'] == 3 and 'num_classes' not in written['model_args']  # once, or transformers fails


def test_nothing_of_other_weights_or_of_the_machine_is_written(write, model, tmp_path):
    file = checkpoint(tmp_path / 'last.pth.tar', model)
    folder, _ = write(file)
    assert not {'tag', 'label_names', 'license'} & config(folder)['pretrained_cfg'].keys()
    for path in folder.iterdir():
        content = path.read_bytes().partition(b'## Comparison')[0]
        assert b'Fashion' not in content and b'/home' not in content


def test_arguments_of_a_training_without_secrets_and_places(write, model, tmp_path):
    kept = dict(
        model='wavemix_16_5', num_classes=7, model_kwargs={'proj_drop_rate': 0.1}, opt='adamw', lr=1e-3, lr_noise=None,
        decay_epochs=[10, 20], mean=[0.5], dataset='torch/cifar10', aa='rand-m9-mstd0.5-inc1', naflex_loader=False)
    private = dict(
        data_dir='images', output='out', resume='/home/somebody/last.pth.tar', wandb_project='mine', device='cuda',
        log=str(tmp_path), nested={'where': ['~/images']}, url='https://somebody@example.org', class_map='classes.txt',
        hub_token='a', hf_token='b', api_key='c', password='d', email='e', HF_AUTH='f', my_secret={'g': 'h'},
        note='hf_aBcDeFgHiJ', other='token-in-use', tag='runs/1', windows='C:\\images', extra={'key': 'i'},
        file='a.csv')
    args = argparse.Namespace(**kept, **private)
    torch.save({'args': args, 'state_dict': model.state_dict()}, tmp_path / 'last.pth.tar')
    folder, _ = write(tmp_path / 'last.pth.tar', token='token-in-use')
    assert yaml.safe_load((folder / 'train_hparams.yaml').read_text()) == kept


@pytest.mark.parametrize('dataset', ['/data/mine', 'mine/images', '../mine', 'wds/../../mine', 'https://a.org/b'])
def test_a_data_set_that_is_a_place_is_not_written(write, model, tmp_path, dataset):
    file = checkpoint(tmp_path / 'last.pth.tar', model, dataset=dataset)
    assert 'dataset' not in yaml.safe_load((write(file)[0] / 'train_hparams.yaml').read_text())


def test_card_that_somebody_wrote_is_kept(write, folder):
    (folder / 'README.md').write_bytes(b'---\r\nlicense: cc-by-4.0\r\n---\r\n\r\n# My model\r\n')
    assert (write(folder)[0] / 'README.md').read_bytes() == (folder / 'README.md').read_bytes()


# Names of the classes


def fine_tuned(folder, **model_config):
    """Ten classes of one's own, on top of weights that know ten others."""
    model = timm.create_model('wavemix_16_5', pretrained=True)
    torch.nn.init.normal_(model.head.fc.weight)
    save_for_hf(model, folder, safe_serialization=True, model_config=model_config)
    return folder


def test_names_of_the_weights_that_a_model_was_tuned_from_are_left_out(write, tmp_path):
    folder, notes = write(fine_tuned(tmp_path / 'model'))
    assert 'label_names' not in config(folder) and 'label_names' not in config(folder)['pretrained_cfg']
    assert 'Trouser' not in (folder / 'README.md').read_text() and len(notes) == 1


@pytest.mark.parametrize('names', [list('abcdefghij'), {str(i): name for i, name in enumerate('abcdefghij')}])
def test_names_that_a_config_states_are_kept_in_order(write, tmp_path, names):
    folder, notes = write(fine_tuned(tmp_path / 'model', label_names=names))
    assert config(folder)['label_names'] == list('abcdefghij') and notes == []


def test_names_of_the_registered_weights_are_kept(write, tmp_path):
    model = timm.create_model('wavemix_16_5', pretrained=True)
    save_for_hf(model, tmp_path / 'model', safe_serialization=True)
    folder, notes = write(tmp_path / 'model')
    assert config(folder)['label_names'][1] == 'Trouser' and notes == []


def test_names_of_a_checkpoint_come_from_the_metadata(write, refused, model, tmp_path):
    file, metadata = checkpoint(tmp_path / 'last.pth.tar', model), tmp_path / 'metadata.yaml'
    metadata.write_text('label_names: [a, b, c]')
    assert str(metadata) in refused(file, '--metadata', metadata)
    metadata.write_text('label_names: [yes, no, 01, 1e3, ~, f, g]')
    folder, _ = write(file, metadata_file=metadata)
    assert config(folder)['label_names'] == ['yes', 'no', '01', '1e3', '~', 'f', 'g']


@pytest.mark.parametrize('names', [
    'abcdefg', 7, [1, 2, 3, 4, 5, 6, 7], {'0': 'a', '2': 'b'}, list('abc'), [*'abcdef', ' '],
    *([*'abcdef', name] for name in (SURROGATE, OVERRIDE, ESCAPE))], ids=ascii)
def test_names_that_are_none_or_cannot_be_shown(refused, folder, names):
    change_config(folder, label_names=names)
    assert 'config.json' in refused(folder)


# What is refused


def test_arguments_of_a_training_that_are_none(refused, model, tmp_path):
    args = {'model': 'wavemix_16_5', 'num_classes': 7, 5: 'x', (1, 2): 'y', 'nested': {(1, 2): 'z'}}
    torch.save({'args': args, 'state_dict': model.state_dict()}, tmp_path / 'last.pth.tar')
    assert 'last.pth.tar' in refused(tmp_path / 'last.pth.tar')


@pytest.mark.parametrize('changes', [
    {'input_size': [3]}, {'mean': 'grey'}, {'std': [0, 'a', 1]}, {'crop_pct': 'all'}, {'interpolation': 'bicubique'},
    {'mean': [float('nan')] * 3}, {'std': [0, 0, 0]}], ids=str)
def test_preprocessing_that_cannot_be_used(refused, folder, changes):
    change_config(folder, pretrained_cfg={**config(folder)['pretrained_cfg'], **changes})
    assert str(folder) in refused(folder)


@pytest.mark.parametrize('text', [
    b'---\nlicense: mit\n---\nJ\xfcrgen', b'---\nlicense: [\n---\n', b'---\n- license\n---\n',
    b'---\nmodel-index: 3\n---\n', OVERRIDE.encode(), ESCAPE.encode()])
def test_card_that_cannot_be_sent(refused, folder, text):
    (folder / 'README.md').write_bytes(text)
    assert str(folder / 'README.md') in refused(folder)


def test_other_architectures_and_models_without_classifier(refused, tmp_path):
    save_for_hf(timm.create_model('resnet18', num_classes=2), tmp_path / 'resnet', safe_serialization=True)
    save_for_hf(timm.create_model('wavemix_16_5', num_classes=0), tmp_path / 'headless', safe_serialization=True)
    for source, named in (tmp_path / 'resnet', 'resnet18'), (tmp_path / 'headless', 'classifier'), ('resnet18', ''):
        assert named in refused(source)


def test_full_disk_is_told_of(refused, monkeypatch):
    full = OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr('safetensors.torch.save_file', mock.Mock(side_effect=full))
    assert 'TMPDIR' in refused(NAME)


def test_weights_of_the_cache_that_the_hub_has_otherwise(server, push, tmp_path, monkeypatch):
    repo_id = f'org/{NAME}'
    assert push(NAME, '--repo-id', repo_id)[0] == 0
    registered = timm.get_pretrained_cfg(NAME)
    registered.file, registered.hf_hub_id = None, repo_id
    monkeypatch.setattr('timm_wavemix.checkpoints.registered_cfg', lambda name: registered)
    monkeypatch.setattr('timm_wavemix.hub.files.get_pretrained_cfg_value', lambda name, key: getattr(registered, key))
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr('huggingface_hub.file_download.constants.HF_HUB_CACHE', str(tmp_path))
    assert push(NAME, '--repo-id', 'org/copy', '--dry-run')[0] == 0
    cached = next(tmp_path.rglob('snapshots/*/model.safetensors'))
    content = cached.read_bytes()
    cached.resolve().write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    code, _, err = push(NAME, '--repo-id', 'org/copy', '--dry-run')
    assert code == 1 and str(cached) in err and f'hf cache rm model/{repo_id}' in err


def test_a_folder_of_the_trainer_of_transformers(write, push, server, tmp_path, monkeypatch):
    transformers = pytest.importorskip('transformers')
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    cache = dict(cache_dir=str(tmp_path / 'cache'))
    model = transformers.AutoModelForImageClassification.from_pretrained('org/model', **cache)
    model.config.label_names = own = list('abcdefghij')  # as the card says
    torch.nn.init.normal_(model.timm_model.head.fc.weight)
    model.save_pretrained(tmp_path / 'saved')
    folder, _ = write(tmp_path / 'saved')
    assert config(folder)['label_names'] == own
    again = timm.create_model(f'local-dir:{folder}', pretrained=True)
    assert torch.equal(again.head.fc.weight, model.timm_model.head.fc.weight)
