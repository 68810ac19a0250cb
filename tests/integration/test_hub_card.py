"""Cards: their code runs as it is pasted, their metadata is what the Hub knows, and no text breaks the page."""
import argparse
import json
import re

import huggingface_hub
import pytest
import timm
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image
from timm.models._hub import save_for_hf

from timm_wavemix import cards
from timm_wavemix.cards import LICENSES, hub_configs, inline, make_card, read_labels, read_metadata

NAME = 'wavemix_16_5.fashion_mnist'
AUTHORS = [name for name in timm.list_models(module='wavemix', pretrained=True)
           if timm.get_pretrained_cfg(name).hf_hub_id]
needs_safe_globals = pytest.mark.skipif(
    not hasattr(torch.serialization, 'safe_globals'), reason='torch before 2.5 reads no argparse.Namespace safely')
OLD_TIMM = tuple(map(int, timm.__version__.split('.')[:3])) < (1, 0, 31)


def tree(server, repo_id='org/model'):
    repo = server.repos[repo_id]
    return repo.commits[repo.refs['main']]


def card(server, repo_id='org/model'):
    return huggingface_hub.ModelCard(tree(server, repo_id)['README.md'].decode())


def save(folder, name='wavemix_16_5', labels=None, size=None, **kwargs):
    """A folder of timm, of a model that nobody trained."""
    torch.manual_seed(0)
    model = timm.create_model(name, **kwargs).eval()
    channels = kwargs.get('in_chans', 3)
    model.pretrained_cfg.update(
        input_size=(channels, *(size or model.pretrained_cfg['input_size'][1:])), num_classes=model.num_classes,
        mean=(0.5,) * channels, std=(0.5,) * channels, label_names=None, tag=None)
    args = {key: value for key, value in kwargs.items() if key != 'num_classes'}
    save_for_hf(model, folder, safe_serialization=True, model_args=args, model_config=dict(label_names=labels))
    return folder


KINDS = {
    'of the package': NAME,
    'names of its own': dict(num_classes=3, labels=['a "quoted" one', "b's", 'c|d']),
    'no names': dict(num_classes=7),
    'two classes': dict(num_classes=2),
    'one class': dict(num_classes=1),
    'one channel': dict(num_classes=4, in_chans=1, labels=list('abcd')),
    'two channels': dict(num_classes=4, in_chans=2),
    'four channels': dict(num_classes=4, in_chans=4),
    'five channels': dict(num_classes=4, in_chans=5),
    'oblong': dict(num_classes=4, size=(24, 40)),
    'Lite': dict(name='wavemix_lite_128_7', num_classes=4),
    'FNet': dict(name='fnet2d_64_5', num_classes=4),
    'MLP-Mixer': dict(name='mlp_mixer2d_64_5', num_classes=4, img_size=20, size=(20, 20)),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def source(request, tmp_path):
    if 'channels' in request.node.callspec.id and OLD_TIMM:
        pytest.skip('this timm loads weights of one or three channels only')
    return request.param if isinstance(request.param, str) else save(tmp_path / 'model', **request.param)


# the code


def test_every_block_of_code_runs_as_it_is_pasted(server, push, source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new('RGBA', (40, 30), 'red').save('image.png')
    code, _, err = push(source, '--repo-id', 'org/model')
    assert code == 0, err
    config = json.loads(tree(server)['config.json'])
    blocks = re.findall(r'### ([^\n]*)\n\n```python\n(.*?)```', card(server).text, re.DOTALL)
    has_images = config['pretrained_cfg']['input_size'][0] in (1, 2, 3, 4)
    assert [title for title, _ in blocks] == [
        'Classify', 'Feature maps', 'Embeddings', *['In transformers'] * has_images]
    names = config.get('label_names') or [f'class {i}' for i in range(config['num_classes'])]
    for title, code in blocks:
        if title == 'In transformers':
            pytest.importorskip('transformers', exc_type=ImportError)  # with an old huggingface_hub
            names = config.get('label_names') or [f'LABEL_{i}' for i in range(config['num_classes'])]
        namespace = {}
        capsys.readouterr()
        exec(compile(code, title, 'exec'), namespace)
        out = capsys.readouterr().out
        if title == 'Classify':
            lines = [line.rsplit(' ', 1) for line in out.splitlines()]
            assert len(lines) == min(5, config['num_classes']) and {name for name, _ in lines} <= set(names)
            assert all(0 <= float(probability) <= 1 for _, probability in lines)
        elif title == 'Embeddings':
            assert namespace['embedding'].shape == (1, config['num_features'])
        elif title == 'Feature maps':
            assert out.count('torch.Size([1, ') == 3
        else:
            assert any(name in out or repr(name) in out for name in names)


# transformers


@pytest.mark.parametrize(
    'kind', ['of the package', 'names of its own', 'one channel', 'oblong', 'Lite', 'FNet', 'MLP-Mixer'])
def test_pushed_folder_is_the_same_model_in_transformers(server, push, pull, tmp_path, kind):
    transformers = pytest.importorskip('transformers', exc_type=ImportError)
    source = KINDS[kind] if isinstance(KINDS[kind], str) else save(tmp_path / 'model', **KINDS[kind])
    code, _, err = push(source, '--repo-id', 'org/model')
    assert code == 0, err
    ours = pull()
    cache = dict(cache_dir=str(tmp_path / 'transformers'))
    theirs = transformers.AutoModelForImageClassification.from_pretrained('org/model', **cache).eval()
    images = torch.randn(2, *ours.pretrained_cfg['input_size'])
    with torch.inference_mode():
        assert torch.equal(theirs(images).logits, ours(images))
    labels = ours.pretrained_cfg.get('label_names')
    assert list(theirs.config.id2label.values()) == list(labels or [f'LABEL_{i}' for i in range(ours.num_classes)])
    processor = transformers.AutoImageProcessor.from_pretrained('org/model', **cache)
    mode = 'L' if kind == 'one channel' else 'RGB'
    picture = Image.effect_noise((50, 40), 80).convert(mode)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(ours))
    assert torch.equal(processor(picture)['pixel_values'][0], transform(picture))


def test_config_says_the_number_of_classes_once(server, push, folder):
    assert push(folder, '--repo-id', 'org/model')[0] == 0
    config = json.loads(tree(server)['config.json'])
    assert config['num_classes'] == 7 and 'num_classes' not in config['model_args']


# Metadata


def push_with(push, tmp_path, metadata, source=NAME):
    (tmp_path / 'metadata.yaml').write_text(metadata)
    code, _, err = push(source, '--repo-id', 'org/model', '--config', tmp_path / 'metadata.yaml')
    assert code == 0, err


def test_results_have_split_revision_and_date(server, push):
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    for result in card(server).data.eval_results:
        assert (result.dataset_type, result.dataset_split) == ('zalando-datasets/fashion_mnist', 'test')
        assert result.dataset_revision.startswith('55506a9')
        assert result.source_name == 'own measurement, 2026-11-26'
        assert result.source_url == 'https://huggingface.co/org/model'


def test_results_of_others_are_theirs(server, push, tmp_path):
    push_with(push, tmp_path, "dataset: {name: x}\nbase_model: a/b\nmetrics: {top1: 90.10, source: the authors' claim}")
    result, = card(server).data.eval_results
    assert (result.source_name, result.source_url) == ("the authors' claim", 'https://huggingface.co/a/b')
    assert '| 90.10 | the authors\' claim |' in card(server).text  # as it is written


def test_base_models_and_their_relation(server, push, tmp_path):
    push_with(push, tmp_path, 'base_model: [a/b, c/d]\nbase_model_relation: merge')
    data = card(server).data.to_dict()
    assert (data['base_model'], data['base_model_relation']) == (['a/b', 'c/d'], 'merge')
    push_with(push, tmp_path, 'base_model: a/b')
    assert card(server).data.to_dict()['base_model'] == 'a/b'


def test_license_of_its_own_has_a_name(server, push, tmp_path):
    push_with(push, tmp_path, 'weights: {license: other, license_name: mine, license_link: LICENSE}')
    data = card(server).data.to_dict()
    assert (data['license'], data['license_name'], data['license_link']) == ('other', 'mine', 'LICENSE')


def test_licenses_of_our_cards_are_known():
    for file in hub_configs().glob('*.yaml'):
        assert read_metadata(file)['weights']['license'] in LICENSES


@pytest.mark.parametrize('name', AUTHORS)
def test_authors_weights_have_as_many_names_as_classes_or_say_why_not(name):
    metadata, cfg = read_metadata(hub_configs() / f'{name}.yaml'), timm.get_pretrained_cfg(name)
    if '.in1k' in name:
        assert 'label_names' not in metadata  # timm and transformers know those of ImageNet
        return
    assert len(set(metadata['label_names'])) == cfg.num_classes
    assert 'class order' in metadata['dataset']


def test_label_files_are_in_the_order_of_their_data():
    cifar10, cifar100, places, tiny = (
        read_labels(hub_configs() / f'{data}.txt') for data in ('cifar10', 'cifar100', 'places365', 'tiny_imagenet'))
    assert (cifar10[0], cifar10[5], cifar10[9]) == ('airplane', 'dog', 'truck')
    assert cifar100 == sorted(cifar100) and places == sorted(places)
    # folders in alphabetical order give the same numbers
    assert [name.replace('/', '-') for name in places] == sorted(name.replace('/', '-') for name in places)
    assert (tiny[0], tiny[22], tiny[199]) == ('Egyptian cat', 'goldfish', 'African elephant')


def test_names_of_the_authors_classes_come_with_a_converted_folder(server, push, tmp_path):
    metadata = hub_configs() / 'wavemix_lite_144_7.cifar10.yaml'
    source = save(tmp_path / 'model', num_classes=10)
    assert push(source, '--repo-id', 'org/model', '--config', metadata)[0] == 0
    assert json.loads(tree(server)['config.json'])['label_names'][3] == 'cat'
    assert '- **Names of the classes:** airplane, automobile, bird,' in card(server).text


# the arguments of a training


@needs_safe_globals
def test_arguments_of_the_training_lie_beside_the_weights(server, push, model, tmp_path):
    args = argparse.Namespace(
        model='wavemix_16_5', num_classes=7, model_kwargs={'proj_drop_rate': 0.1}, opt='adamw', lr=1e-3, sched='cosine',
        lr_noise=None, decay_epochs=(10, 20), mean=[0.5], dataset='torch/cifar10', data_dir='images', output='out',
        resume='/home/somebody/last.pth.tar', naflex_loader=False, wandb_project='secret', device='cuda',
        log=str(tmp_path), nested={'where': ['~/images']}, url='https://somebody@example.org')
    torch.save({'args': args, 'state_dict': model.state_dict()}, tmp_path / 'last.pth.tar')
    assert push(tmp_path / 'last.pth.tar', '--repo-id', 'org/model')[0] == 0
    hparams = yaml.safe_load(tree(server)['train_hparams.yaml'])
    assert hparams == {
        'model': 'wavemix_16_5', 'num_classes': 7, 'model_kwargs': {'proj_drop_rate': 0.1}, 'opt': 'adamw', 'lr': 1e-3,
        'sched': 'cosine', 'lr_noise': None, 'decay_epochs': [10, 20], 'mean': [0.5], 'dataset': 'torch/cifar10',
        'naflex_loader': False}


@needs_safe_globals
def test_arguments_of_another_training_do_not_stay(server, push, model, tmp_path):
    torch.save(
        {'args': {'model': 'wavemix_16_5', 'num_classes': 7}, 'state_dict': model.state_dict()},
        tmp_path / 'last.pth.tar')
    assert push(tmp_path / 'last.pth.tar', '--repo-id', 'org/model')[0] == 0
    assert 'train_hparams.yaml' in tree(server)
    assert push(NAME, '--repo-id', 'org/model')[0] == 0
    assert 'train_hparams.yaml' not in tree(server)


# text that could break the page


NASTY = [
    'a | b', '| --- |', '<script>alert(1)</script>', '<!-- ', '```', '`', '# heading', '- item', '---', 'a\n\n# b\n',
    '</li></ul>', '\\', '\\|', '&lt;', '[', '$$', '*', '**', '> quote', '1. item', '~~~', '\t\t', '<details>',
]


@pytest.mark.parametrize('text', NASTY)
def test_free_text_breaks_neither_list_table_nor_page(text):
    check_page(text)


@settings(deadline=None)
@given(text=st.text(st.characters(codec='utf-8', exclude_categories=['Cc', 'Cs'])) | st.lists(
    st.sampled_from(NASTY)).map(' '.join))
def test_no_text_breaks_the_page(text):
    check_page(text)


def check_page(text):
    """The page has the same parts as with harmless text in the same places."""
    def shape(text):
        metadata = {'dataset': {'name': text or 'x', 'more': text}, 'metrics': {'top1': '90', 'source': text or 'x'},
                 'use': {text: text}}
        model = timm.create_model('wavemix_16_5', num_classes=2)
        model.pretrained_cfg['label_names'] = [text, 'other']
        made = make_card(model, 'org/model', metadata)
        tokens = MarkdownIt('commonmark').enable('table').parse(made.text)
        assert not any(token.type == 'html_inline' for block in tokens for token in block.children or [])
        assert made.data.eval_results[0].dataset_name == (text or 'x')
        return [token.type for token in tokens]

    assert shape(text) == shape('x')


@given(text=st.text())
def test_inline_text_is_one_line(text):
    assert len(inline(text).splitlines()) <= 1 and '|' not in inline(text)


def test_metadata_of_another_model_may_lack_a_data_set(model, tmp_path, monkeypatch):
    (tmp_path / 'wavemix_32_5.yaml').write_text('use: {input: photos}\n', encoding='utf-8')
    monkeypatch.setattr(cards, 'hub_configs', lambda: tmp_path)
    model.pretrained_cfg['label_names'] = list('abcdefg')
    for metadata in {}, {'dataset': {'name': 'photos'}}:
        assert 'wavemix_32_5' not in make_card(model, 'org/model', metadata).text
