"""Cards: their code runs as it is pasted, they say what their sources say, and no text breaks them."""
import functools
import json
import re
import string

import huggingface_hub
import pytest
import timm
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image
from timm.models import save_for_hf

from timm_wavemix.hub import card
from timm_wavemix.hub.card import make_card
from timm_wavemix.hub.files import write_files
from timm_wavemix.hub.metadata import check_text, hub_configs, label_list, read_metadata

NAME = 'wavemix_16_5.fashion_mnist'
CONFIGS = {file.stem: read_metadata(file) for file in sorted(hub_configs().glob('*.yaml'))}
AUTHORS = [name for name in CONFIGS if timm.get_pretrained_cfg(name).hf_hub_filename]


def text_of(markdown):
    """What a reader of the page sees."""
    tokens = MarkdownIt('commonmark').enable('table').parse(markdown)
    return '\n'.join(
        ''.join(token.content for token in block.children if token.type in ('text', 'code_inline'))
        for block in tokens if block.type == 'inline')


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
    'one class': dict(num_classes=1),
    'one channel': dict(num_classes=4, in_chans=1, labels=list('abcd')),
    'two channels': dict(num_classes=4, in_chans=2),
    'four channels': dict(num_classes=4, in_chans=4),
    'five channels': dict(num_classes=4, in_chans=5),
    'oblong': dict(num_classes=7, size=(24, 40)),
    'MLP-Mixer': dict(name='mlp_mixer2d_64_5', num_classes=4, img_size=20, size=(20, 20)),
}


def push_kind(server, push, tmp_path, kind):
    source = kind if isinstance(kind, str) else save(tmp_path / 'model', **kind)
    code, _, err = push(source, '--repo-id', 'org/model')
    assert code == 0, err
    repo = server.repos['org/model']
    return repo.commits[repo.refs['main']]


@pytest.mark.parametrize('kind', KINDS.values(), ids=KINDS)
def test_every_block_of_code_runs_as_it_is_pasted(server, push, kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new('RGBA', (40, 30), 'red').save('image.png')
    files = push_kind(server, push, tmp_path, kind)
    config = json.loads(files['config.json'])
    blocks = re.findall(r'### ([^\n]*)\n\n```python\n(.*?)```', files['README.md'].decode(), re.DOTALL)
    has_images = config['pretrained_cfg']['input_size'][0] in (1, 2, 3, 4)
    assert [title for title, _ in blocks] == [
        'Classify', 'Feature maps', 'Embeddings', *['In transformers'] * has_images]
    for title, code in blocks:
        if title == 'In transformers':
            pytest.importorskip('transformers')
        prefix = 'LABEL_' if title == 'In transformers' else 'class '
        names = config.get('label_names') or [f'{prefix}{i}' for i in range(config['num_classes'])]
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
            assert out.strip() in names


@pytest.mark.parametrize('kind', ['of the package', 'one channel', 'oblong', 'MLP-Mixer'])
def test_pushed_folder_is_the_same_model_in_transformers(server, push, pull, tmp_path, kind):
    transformers = pytest.importorskip('transformers')
    push_kind(server, push, tmp_path, KINDS[kind])
    ours, cache = pull(), dict(cache_dir=str(tmp_path / 'transformers'))
    theirs = transformers.AutoModelForImageClassification.from_pretrained('org/model', **cache).eval()
    images = torch.randn(2, *ours.pretrained_cfg['input_size'])
    with torch.inference_mode():
        assert torch.equal(theirs(images).logits, ours(images))
    labels = ours.pretrained_cfg.get('label_names')
    assert list(theirs.config.id2label.values()) == list(labels or [f'LABEL_{i}' for i in range(ours.num_classes)])
    processor = transformers.AutoImageProcessor.from_pretrained('org/model', **cache)
    picture = Image.effect_noise((50, 40), 80).convert('L' if kind == 'one channel' else 'RGB')
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(ours))
    assert torch.equal(processor(picture)['pixel_values'][0], transform(picture))


# What a card says


def made(metadata, name='wavemix_16_5', **kwargs):
    return make_card(timm.create_model(name, device='meta', **kwargs), 'org/model', metadata)


def read(tmp_path, text):
    (tmp_path / 'metadata.yaml').write_text(text, encoding='utf-8')
    return read_metadata(tmp_path / 'metadata.yaml')


@pytest.mark.parametrize('name', CONFIGS)
def test_card_has_the_numbers_of_hub_configs_and_of_the_model(name):
    metadata, cfg = CONFIGS[name], timm.get_pretrained_cfg(name)
    model = timm.create_model(name, device='meta')
    model.pretrained_cfg['label_names'] = metadata.get('label_names')
    made_card = make_card(model, f'org/{name}', metadata)
    metrics, text = metadata['metrics'], text_of(made_card.text)
    assert {r.metric_name: r.metric_value for r in made_card.data.eval_results} == {
        f'Top-{k} accuracy (%)': float(metrics[f'top{k}']) for k in (1, 5) if f'top{k}' in metrics}
    for result in made_card.data.eval_results:
        dataset = metadata['dataset']
        assert (result.dataset_name, result.dataset_split) == (dataset['name'], dataset.get('split'))
        assert result.dataset_revision is None  # ours is of other files than the Hub's
        assert metrics.get('date', '') in result.source_name
    assert made_card.data.license == metadata['weights']['license']
    row = re.search(rf'^\| {re.escape(name)} \| (\S+) \| (\S+) \| (\S+) \|', made_card.text, re.MULTILINE).groups()
    params = sum(p.numel() for p in model.parameters())
    assert row == (f'{params / 1e6:#.3g}', 'x'.join(map(str, cfg.input_size)), metrics['top1'])
    assert f'| {name} |' not in make_card(model, 'org/renamed', metadata).text  # beside itself
    for section in 'dataset', 'preprocessing', 'training', 'metrics', 'use':
        assert all(value in text for value in metadata.get(section, {}).values())
    papers = re.findall(r'arXiv:(\d+\.\d+)', made_card.text)
    assert papers == ['2205.14375' if name in AUTHORS else '2203.03689'] and cfg.paper_name in made_card.text


def test_card_has_no_figure_but_those_of_its_sources():
    """Change all figures of a source, and none of the old ones is left."""
    file = hub_configs() / f'{NAME}.yaml'
    figures = set(re.findall(r'(?<![\w.])\d{2}\.\d{2}(?![\w.])', file.read_text()))
    metadata = yaml.safe_load(re.sub(r'(?<![\w.])\d{2}\.\d{2}(?![\w.])', "'12.34'", file.read_text()))
    metadata = {**metadata, 'dataset': {**metadata['dataset'], 'name': 'Another'}, 'metrics': {
        key: str(value) for key, value in metadata['metrics'].items()}}
    metadata['training'] = {key: str(value) for key, value in metadata['training'].items()}
    text = made(metadata).content
    assert figures and text.count('12.34') >= 4 and not any(figure in text for figure in figures)


@pytest.mark.parametrize('facts, link', [
    ("base_model: a/b\nmetrics: {top1: 90, source: the authors' claim}", 'https://huggingface.co/a/b'),
    ('base_model: a/b\nmetrics: {top1: 90, source: https://a.org/paper}', 'https://a.org/paper'),
    ('base_model: a/b\nmetrics: {top1: 90, source: "httpx, run by me"}\nbase_model_relation: finetune', None),
    ('base_model: a/b\nmetrics: {top1: 90}\nbase_model_relation: finetune', None),
    ('base_model: a/b\nmetrics: {top1: 90}', None),
    ('metrics: {top1: 90, source: "http://a b"}', None),
])
def test_results_link_to_those_who_measured_them(tmp_path, facts, link):
    result, = made(read(tmp_path, f'dataset: {{name: x}}\n{facts}')).data.eval_results
    assert result.source_url == (link or 'https://huggingface.co/org/model')


@pytest.mark.parametrize('relation, wording', [
    (None, 'Converted from'), ('finetune', 'Fine-tuned from'), ('quantized', 'Quantized from')])
def test_base_models_and_their_relation(tmp_path, relation, wording):
    made_card = made(read(tmp_path, 'base_model: [a/b, c/d]' + f'\nbase_model_relation: {relation}' * bool(relation)))
    data = made_card.data.to_dict()
    assert (data['base_model'], data.get('base_model_relation')) == (['a/b', 'c/d'], relation)
    assert made_card.text.count(f'**{wording}:**') == 2


def test_license_of_its_own_has_a_name(tmp_path):
    data = made(read(tmp_path, 'weights: {license: other, license_name: mine, license_link: LICENSE}')).data.to_dict()
    assert (data['license'], data['license_name'], data['license_link']) == ('other', 'mine', 'LICENSE')


def test_readme_and_card_cite_alike():
    citation = re.search(r'```bibtex\n.*?```', (hub_configs().parent / 'README.md').read_text(), re.DOTALL).group()
    assert citation in made({}).text


@pytest.mark.parametrize('name', AUTHORS)
def test_authors_weights_have_as_many_names_as_classes_or_say_why_not(name):
    if '.in1k' in name:
        assert 'label_names' not in CONFIGS[name]  # timm and transformers know those of ImageNet
        return
    assert len(set(CONFIGS[name]['label_names'])) == timm.get_pretrained_cfg(name).num_classes
    assert 'class order' in CONFIGS[name]['dataset']


def test_label_files_are_in_the_order_of_their_data():
    cifar10, cifar100, places, tiny = (
        next(CONFIGS[name]['label_names'] for name in AUTHORS if data in name)
        for data in ('cifar10', 'cifar100', 'places365', 'tiny_imagenet'))
    assert (cifar10[0], cifar10[5], cifar10[9]) == ('airplane', 'dog', 'truck')
    assert cifar100 == sorted(cifar100) and places == sorted(places)
    # folders in alphabetical order give the same numbers
    assert [name.replace('/', '-') for name in places] == sorted(name.replace('/', '-') for name in places)
    assert (tiny[0], tiny[22], tiny[199]) == ('Egyptian cat', 'goldfish', 'African elephant')


def test_metadata_of_another_model_may_lack_a_data_set(model, tmp_path, monkeypatch):
    (tmp_path / 'wavemix_32_5.yaml').write_text('use: {input: photos}\n', encoding='utf-8')
    monkeypatch.setattr(card, 'hub_configs', lambda: tmp_path)
    for metadata in {}, {'dataset': {'name': 'photos'}}:
        assert 'wavemix_32_5' not in make_card(model, 'org/model', metadata).text


# Text that could break the page


@pytest.fixture
def no_others(tmp_path, monkeypatch):
    """No models to compare with, which makes a card faster."""
    monkeypatch.setattr(card, 'hub_configs', lambda: tmp_path / 'none')


NASTY = [
    'a | b', '| --- |', '<script>alert(1)</script>', '<!-- ', '```', '`', '# heading', '- item', '---', 'a\n\n# b\n',
    '</li></ul>', '\\', '\\|', '&lt;', '[', '$$', '*', '**', '> quote', '1. item', '~~~', '\t\t', '<details>',
    '__background__', '[x](y)', '![](https://a.org/b.png)', '_a_', '~~a~~', '{{ 7 * 7 }}', '{% raw %}', '[x]: y',
]


@pytest.fixture
def page(no_others):
    """What is on the page, and the text that is read there, with `text` in every place for free text."""
    model = timm.create_model('wavemix_16_5', num_classes=2, device='meta')

    @functools.cache
    def parse(text):
        metadata = {'dataset': {'name': text or 'x', 'more': text}, 'metrics': {'top1': '90', 'source': text or 'x'},
                    'use': {text: text}}
        model.pretrained_cfg['label_names'] = [text, 'other']
        made_card = make_card(model, 'org/model', metadata)
        tokens = MarkdownIt('commonmark').enable('table').enable('strikethrough').parse(made_card.text)
        assert made_card.data.eval_results[0].dataset_name == (text or 'x')
        kinds = [child.type for token in tokens for child in token.children or [] if child.type != 'text']
        return [token.type for token in tokens], kinds, text_of(made_card.text)

    return parse


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.sampled_from(NASTY) | st.lists(st.sampled_from(NASTY)).map(' '.join) | st.text(
    st.characters(codec='utf-8', exclude_categories=['Cc', 'Cs'])))
def test_no_text_breaks_the_page_or_is_read_otherwise(page, text):
    blocks, kinds, shown = page(text)
    assert (blocks, kinds) == page('x')[:2]
    assert f"Class names: {' '.join(text.split())}, other" in shown


# Metadata


@pytest.mark.parametrize('text, named', [
    ('metrics: 92', 'metrics'), ('metrics: [92, 99]', 'metrics'), ('dataset: Fashion-MNIST', 'dataset'),
    ('training: {hours: [1, 2]}', 'hours'), ('training: {? [1] : 2}', ''), ('- metrics', ''), ('text', ''),
    ('metric: {top1: 92}', 'metric'), ('metrics: {top1: 92}', 'dataset'),
    *((f'dataset: {{name: x}}\nmetrics: {{top1: {value}}}', 'top1')
      for value in ('null', '', 'high', 'nan', '.nan', '101', 'true', '-1', '1.2.3', '²')),
    ('label_names: abc', 'label_names'), ('label_names: 10', 'label_names'), ('label_names: []', 'label_names'),
    ('label_names: [[a], b]', 'class 0'), ('label_names: [a, "", c]', 'class 1'),
    ('label_names: {a: 0, b: 1}', 'label_names'), ('label_names: {1: a, 2: b}', 'label_names'),
    ('label_names: &a [*a]', ''), ('label_names: ["\\uD800", b]', ''), ('label_names: ["\\e[2J", b]', 'U+001B'),
    ('use: {input: "\\u202Etxt"}', 'U+202E'), ('dataset: {"na\\u2066me": x}', 'U+2066'),
    ('base_model: {a: b}', 'base_model'), ('base_model: [a/b, [c]]', 'base_model'), ('base_model: a b', 'base_model'),
    ('base_model_relation: cousin', 'finetune'), ('base_model_relation: [merge]', 'finetune'),
    ('metrics: !!python/object/apply:os.getcwd []', 'metrics'), ('[' * 5000, ''), ('\x00', ''),
    ('use: {a: b}\nuse: {c: d}', 'use'), ('metrics: {top1: 90, top1: 91}\ndataset: {name: x}', 'top1'),
    (b'dataset: {name: B\xe4ume}', ''),
], ids=lambda value: ascii(value)[:40])
def test_metadata_that_is_refused(tmp_path, text, named):
    file = tmp_path / 'metadata.yaml'
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError) as error:
        read_metadata(file)
    assert named in str(error.value) and str(file) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('text', ['', '# nothing', '{}', 'metrics:', 'use: {}'])
def test_empty_metadata_and_sections_are_taken(tmp_path, text):
    assert not any(read(tmp_path, text).values())


def test_names_of_classes_in_a_file(tmp_path):
    (tmp_path / 'names.txt').write_text('yes\nno\n')
    assert read(tmp_path, 'label_names: names.txt')['label_names'] == ['yes', 'no']
    with pytest.raises(OSError, match='missing'):
        read(tmp_path, 'label_names: missing.txt')
    (tmp_path / 'names.txt').write_text('yes\n\nno\n')
    with pytest.raises(ValueError, match='class 1'):
        read(tmp_path, 'label_names: names.txt')


@given(names=st.lists(st.text(st.characters(categories=['L', 'N', 'P']), min_size=1), min_size=1, max_size=12),
       data=st.data())
def test_names_by_index_are_those_in_a_list(names, data):
    order = data.draw(st.permutations(range(len(names))))
    assert label_list({index: names[index] for index in order}, 'it') == label_list(names, 'it') == names


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(string.printable) | st.dates(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(
        st.text(string.ascii_lowercase, max_size=5) | st.integers(0, 3), children, max_size=3),
    max_leaves=8)
entries = st.sampled_from([
    'dataset', 'weights', 'preprocessing', 'training', 'metrics', 'use', 'base_model', 'base_model_relation',
    'label_names'])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    text=(st.dictionaries(entries, yaml_values, max_size=4) | yaml_values).map(yaml.safe_dump)
    | st.text(string.printable, max_size=200))
def test_any_metadata_is_taken_or_refused_in_one_sentence(tmp_path, no_others, text):
    try:
        checked = read(tmp_path, text)
    except (ValueError, OSError) as error:
        assert str(error)
    else:
        assert all(isinstance(name, str) for name in checked.get('label_names', []))
        made(checked)


@pytest.mark.parametrize('char', ['\u202a', '\u202e', '\u2066', '\u2069', '\x00', '\x1b', '\x7f', '\x85', '\udfff'])
def test_characters_that_are_not_shown_as_they_are(char):
    with pytest.raises(ValueError, match=f'U\\+{ord(char):04X}'):
        check_text(f'a{char}b', 'it')
    check_text('a\tb\nक्षि 👩\u200d🔬 مرحبا', 'it')


def test_card_of_a_written_folder_is_read_by_the_hubs_library(tmp_path):
    write_files(NAME, 'org/model', tmp_path)
    data = huggingface_hub.ModelCard.load(tmp_path / 'README.md').data.to_dict()
    assert (data['library_name'], data['pipeline_tag'], data['license']) == ('timm', 'image-classification', 'mit')
    assert data['datasets'] == ['zalando-datasets/fashion_mnist'] and 'base_model' not in data
