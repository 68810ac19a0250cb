"""The model card of a published model, and the metadata that the model cannot know."""
import html
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, cast

import timm
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id
from timm.models import PretrainedCfg
from torch import nn

from .mixers import MlpMixer2d
from .wavemix import IsotropicNet, WaveMix

SECTIONS = ('dataset', 'weights', 'preprocessing', 'training', 'metrics', 'use')
SHOWN_SECTIONS = ('dataset', 'preprocessing', 'training', 'metrics', 'use')
ENTRIES = ('base_model', 'base_model_relation', 'label_names', 'label_file')
RELATIONS = ('adapter', 'finetune', 'merge', 'quantized')  # those of the Hub
NULLS = ('', '~', 'null', 'Null', 'NULL')  # those of YAML 1.1
PERCENTAGES = {'top1': 'Top-1', 'top5': 'Top-5'}
MAX_SHOWN_NAMES = 20
IMAGE_MODES = {1: 'L', 2: 'LA', 3: 'RGB', 4: 'RGBA'}  # of Pillow, by channels

LICENSES = frozenset({  # https://huggingface.co/docs/hub/repositories-licenses
    'afl-3.0', 'agpl-3.0', 'apache-2.0', 'apple-amlr', 'apple-ascl', 'artistic-2.0', 'bigcode-openrail-m',
    'bigscience-bloom-rail-1.0', 'bigscience-openrail-m', 'bsd', 'bsd-2-clause', 'bsd-3-clause', 'bsd-3-clause-clear',
    'bsl-1.0', 'c-uda', 'cc', 'cc-by-2.0', 'cc-by-2.5', 'cc-by-3.0', 'cc-by-4.0', 'cc-by-nc-2.0', 'cc-by-nc-3.0',
    'cc-by-nc-4.0', 'cc-by-nc-nd-3.0', 'cc-by-nc-nd-4.0', 'cc-by-nc-sa-2.0', 'cc-by-nc-sa-3.0', 'cc-by-nc-sa-4.0',
    'cc-by-nd-4.0', 'cc-by-sa-3.0', 'cc-by-sa-4.0', 'cc0-1.0', 'cdla-permissive-1.0', 'cdla-permissive-2.0',
    'cdla-sharing-1.0', 'creativeml-openrail-m', 'deepfloyd-if-license', 'ecl-2.0', 'epl-1.0', 'epl-2.0', 'etalab-2.0',
    'eupl-1.1', 'eupl-1.2', 'fair-noncommercial-research-license', 'gemma', 'gfdl', 'gpl', 'gpl-2.0', 'gpl-3.0',
    'h-research', 'intel-research', 'isc', 'lgpl', 'lgpl-2.1', 'lgpl-3.0', 'lgpl-lr', 'llama2', 'llama3', 'llama3.1',
    'llama3.2', 'llama3.3', 'llama4', 'lppl-1.3c', 'mit', 'mpl-2.0', 'ms-pl', 'ncsa', 'odbl', 'odc-by', 'ofl-1.1',
    'open-mdw', 'openrail', 'openrail++', 'osl-3.0', 'other', 'pddl', 'postgresql', 'unknown', 'unlicense', 'wtfpl',
    'zlib',
})

CITATIONS = {  # by the paper_ids of a pretrained_cfg
    'arXiv:2203.03689': """\
@article{jeevan2022wavemix,
  title   = {WaveMix: Resource-efficient Token Mixing for Images},
  author  = {Jeevan P, Pranav and Sethi, Amit},
  journal = {arXiv preprint arXiv:2203.03689},
  year    = {2022}
}""",
    'arXiv:2205.14375': """\
@article{jeevan2022wavemixanalysis,
  title   = {WaveMix: A Resource-efficient Neural Network for Image Analysis},
  author  = {Jeevan, Pranav and Viswanathan, Kavitha and S, Anandu A and Sethi, Amit},
  journal = {arXiv preprint arXiv:2205.14375},
  year    = {2022}
}""",
}

CARD = """\
# {name}

{description} It runs in [timm](https://github.com/huggingface/pytorch-image-models) with the package `timm_wavemix`,
which registers its architecture.

## Details

{details}

## Usage

The import of `timm_wavemix` comes before the model is created. Each block below runs on its own.

{usage}

## Comparison

{comparison}

## Citation

```bibtex
{citation}
```
"""

CLASSIFY = """\
import timm
import timm_wavemix  # registers the architecture
import torch
{imports}
model = timm.create_model('hf-hub:{repo_id}', pretrained=True).eval()
{image}
with torch.inference_mode():
    probabilities, classes = model(image).softmax(dim=1).topk({top_k})
for probability, index in zip(probabilities[0].tolist(), classes[0].tolist()):
    print({label}, f'{{probability:.3f}}')
"""

FEATURE_MAPS = """\
import timm
import timm_wavemix  # registers the architecture
import torch
{imports}
model = timm.create_model('hf-hub:{repo_id}', pretrained=True, features_only=True).eval()
{image}
with torch.inference_mode():
    for feature_map in model(image):
        print(feature_map.shape)
"""

EMBEDDINGS = """\
import timm
import timm_wavemix  # registers the architecture
import torch
{imports}
model = timm.create_model('hf-hub:{repo_id}', pretrained=True, num_classes=0).eval()
{image}
with torch.inference_mode():
    embedding = model(image)  # (1, {num_features})
"""

OPEN_IMAGE = """\
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
image = transform(Image.open('image.png').convert('{mode}')).unsqueeze(0)
"""

PIPELINE = """\
import timm_wavemix  # registers the architecture
from transformers import pipeline

classifier = pipeline('image-classification', model='{repo_id}')
print(classifier('image.png'))
"""

AUTO_CLASSES = """\
import timm_wavemix  # registers the architecture
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

processor = AutoImageProcessor.from_pretrained('{repo_id}')
model = AutoModelForImageClassification.from_pretrained('{repo_id}').eval()
inputs = processor(Image.open('image.png').convert('{mode}'))

with torch.inference_mode():
    logits = model(**inputs).logits
print(model.config.id2label[logits.argmax().item()])
"""


def hub_configs() -> Path:
    """The folder hub_configs/: the package's copy of it, in a checkout the folder itself."""
    packaged = Path(__file__).parent / 'hub_configs'
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / 'hub_configs'


def registered_cfg(name: str) -> PretrainedCfg:
    """What is registered of a model, by its name with or without tag.

    Raises:
        ValueError: There is no such tag.
    """
    try:
        return cast(PretrainedCfg, timm.get_pretrained_cfg(name))
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def config_of(model: nn.Module) -> Dict[str, Any]:
    """The `pretrained_cfg` that timm gives every model, which can be changed."""
    return cast(Dict[str, Any], model.pretrained_cfg)


def read_metadata(file: Path) -> Dict[str, Any]:
    """Read and check a YAML file with what a model can't know, as in hub_configs/.

    Every value is text as it is written there: YAML would make truth values of names like yes and no.

    Args:
        file: The file.

    Returns:
        Its sections, each a dict from entry to text, and its entries: `base_model` and `label_names` are lists.

    Raises:
        OSError: The file cannot be read.
        ValueError: It holds what a card cannot show.
    """
    if not file.exists():
        raise FileNotFoundError(f"There is no file '{file}': write one like those of hub_configs/.")
    try:
        metadata = yaml.load(file.read_text(encoding='utf-8'), yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = ' '.join(str(error).split())
        raise ValueError(f'{file} cannot be read as YAML in UTF-8, correct it: {reason}') from error
    if metadata is None or metadata in NULLS:
        return {}
    try:
        return _check_metadata(metadata, file.parent)
    except ValueError as error:
        raise ValueError(f'{file}: {error}') from error


def _check_metadata(metadata: Any, folder: Path) -> Dict[str, Any]:
    if not isinstance(metadata, dict):
        raise ValueError('the file is no mapping: write sections like those of hub_configs/.')
    unknown = [key for key in metadata if key not in SECTIONS + ENTRIES]
    if unknown:
        raise ValueError(
            f"there is no section or entry '{unknown[0]}': the known ones are {', '.join(SECTIONS + ENTRIES)}.")
    checked: Dict[str, Any] = {key: _section(key, metadata[key]) for key in SECTIONS if key in metadata}
    if 'base_model' in metadata:
        checked['base_model'] = _repo_ids(metadata['base_model'])
    if 'base_model_relation' in metadata:
        if metadata['base_model_relation'] not in RELATIONS:
            raise ValueError(
                f"base_model_relation is '{metadata['base_model_relation']}': the Hub knows {', '.join(RELATIONS)}.")
        checked['base_model_relation'] = metadata['base_model_relation']
    if 'label_file' in metadata:
        if 'label_names' in metadata or not isinstance(metadata['label_file'], str):
            raise ValueError('label_file is the name of one text file, and goes without label_names: keep one of them.')
        checked['label_names'] = read_labels(folder / metadata['label_file'])
    if 'label_names' in metadata:
        checked['label_names'] = label_list(metadata['label_names'])
    _check_metrics(checked)
    _check_license(checked.get('weights', {}))
    hub_id = checked.get('dataset', {}).get('hub_id')
    if hub_id is not None:
        _repo_ids(hub_id)
    return checked


def _section(key: str, section: Any) -> Dict[str, str]:
    if isinstance(section, str) and section in NULLS:
        return {}
    if not isinstance(section, dict):
        raise ValueError(f"{key} is no mapping: write its entries below it, as in '{key}: {{name: text}}'.")
    for name, value in section.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ValueError(f'{key}: {name} is no text: write one text or number.')
    return section


def _repo_ids(given: Any) -> List[str]:
    ids = given if isinstance(given, list) else [given]
    if not ids or not all(isinstance(repo_id, str) for repo_id in ids):
        raise ValueError('base_model names no repository: give one id on the Hub, or a list of them.')
    try:
        for repo_id in ids:
            validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"'{repo_id}' is no id of a repository on the Hub: {error}") from error
    return ids


def _check_metrics(metadata: Dict[str, Any]) -> None:
    metrics = metadata.get('metrics', {})
    if metrics and not metadata.get('dataset', {}).get('name'):
        raise ValueError("there are metrics, but no name of their dataset: add 'dataset: name:'.")
    for key in metrics.keys() & PERCENTAGES.keys():
        try:
            possible = 0 <= float(metrics[key]) <= 100
        except ValueError:
            possible = False
        if not possible:
            raise ValueError(f"metrics: {key} is '{metrics[key]}': give a percentage from 0 to 100, or leave it out.")


def _check_license(metadata: Dict[str, str]) -> None:
    name = metadata.get('license')
    if name is not None and name not in LICENSES:
        raise ValueError(
            f"the Hub knows no license '{name}': take an id of https://huggingface.co/docs/hub/repositories-licenses, "
            "such as mit, or 'other' with a license_name.")
    if name == 'other' and not metadata.get('license_name'):
        raise ValueError("the license is 'other': add its license_name, and best a license_link.")


def read_labels(file: Path) -> List[str]:
    """Read the names of the classes, one a line, in the order of the model's outputs.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not UTF-8, or a line is empty.
    """
    try:
        return label_list(file.read_text(encoding='utf-8').splitlines())
    except UnicodeDecodeError as error:
        raise ValueError(f'{file} is not UTF-8: save it as UTF-8.') from error


def label_list(names: Any) -> List[str]:
    """Check the names of the classes, and bring them into order.

    Args:
        names: A list of names, or a mapping from 0 ... n-1, as numbers or text, to them.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(names, dict):
        by_index = {str(index): name for index, name in names.items()}
        if by_index.keys() != {str(i) for i in range(len(names))}:
            raise ValueError(f'label_names has keys other than 0 to {len(names) - 1}: give a list of names.')
        names = [by_index[str(i)] for i in range(len(names))]
    if not isinstance(names, (list, tuple)) or not names:
        raise ValueError('label_names is no list: give the names of all classes in order, as in [cat, dog].')
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f'name {i} of label_names is empty or no text: give one name for each class.')
    return list(names)


def check_card(text: str) -> None:
    """Check a card that somebody wrote for what the Hub would refuse.

    Raises:
        ValueError: Its metadata cannot be read, or has a license that the Hub does not know.
    """
    try:
        data = ModelCard(text).data.to_dict()
    except (ValueError, TypeError, AttributeError, yaml.YAMLError, RecursionError) as error:
        reason = ' '.join(str(error).split())
        raise ValueError(f"its metadata, the YAML between the lines '---', cannot be read: {reason}") from error
    license_id = data.get('license')
    if license_id is not None and not isinstance(license_id, str):
        raise ValueError('its license is no text: give one id, such as mit.')
    _check_license(data)


def make_card(model: IsotropicNet, repo_id: str, metadata: Dict[str, Any]) -> ModelCard:
    """Make the model card.

    Args:
        model: The model, whose `pretrained_cfg` has the names of its classes, if they are known.
        repo_id: Repository that the card is for.
        metadata: What the model can't know, as `read_metadata` gives it.
    """
    name = repo_id.rpartition('/')[2]
    paper = str(registered_cfg(config_of(model)['architecture']).paper_ids)
    text = CARD.format(
        name=name,
        description=_description(model, paper.rpartition(':')[2]),
        details='\n'.join(_details(model, metadata)),
        usage='\n'.join(_usage(model, repo_id)),
        comparison='\n'.join(_comparison(model, name, metadata)),
        citation=CITATIONS[paper],
    )
    return ModelCard(f'---\n{_card_data(model, repo_id, metadata).to_yaml()}\n---\n\n{text}')


def inline(text: str) -> str:
    """Free text on one line, in which no character ends a table cell, starts HTML or opens a code span."""
    text = html.escape(' '.join(text.split()), quote=False)
    return text.replace('|', '&#124;').replace('`', '&#96;')


def _card_data(model: IsotropicNet, repo_id: str, metadata: Dict[str, Any]) -> ModelCardData:
    name = repo_id.rpartition('/')[2]
    dataset, weights = metadata.get('dataset', {}), metadata.get('weights', {})
    base_models = metadata.get('base_model', [])
    results = _results(repo_id, metadata)
    return ModelCardData(
        library_name='timm',
        pipeline_tag='image-classification',
        license=weights.get('license'),
        license_name=weights.get('license_name'),
        license_link=weights.get('license_link'),
        tags=['image-classification', 'timm', 'timm_wavemix', 'wavemix'],
        datasets=[dataset['hub_id']] if 'hub_id' in dataset else None,
        metrics=['accuracy'] if results else None,
        base_model=base_models[0] if len(base_models) == 1 else base_models or None,
        base_model_relation=metadata.get('base_model_relation'),
        model_name=name if results else None,
        eval_results=results or None,
    )


def _results(repo_id: str, metadata: Dict[str, Any]) -> List[EvalResult]:
    """The accuracies for the Hub's leaderboards, with who measured them and when."""
    dataset, metrics = metadata.get('dataset', {}), metadata.get('metrics', {})
    source = metrics.get('source')
    if source and source.startswith('http'):
        link = source
    else:  # the Hub wants a link: theirs where it is their claim, ours where it is our own measurement
        link = f"https://huggingface.co/{metadata['base_model'][0] if source and 'base_model' in metadata else repo_id}"
    return [
        EvalResult(
            task_type='image-classification',
            dataset_type=dataset.get('hub_id', dataset['name']),
            dataset_name=dataset['name'],
            dataset_split=dataset.get('split'),
            dataset_revision=dataset.get('revision'),
            metric_type='accuracy',
            metric_name=f'{metric} accuracy (%)',
            metric_value=float(metrics[key]),
            source_name=', '.join(filter(None, [source or 'own measurement', metrics.get('date')])),
            source_url=link,
        )
        for key, metric in PERCENTAGES.items() if key in metrics]


def _description(model: IsotropicNet, arxiv: str) -> str:
    if isinstance(model, WaveMix):
        return (
            f'A [WaveMix](https://arxiv.org/abs/{arxiv}) image classifier: a fixed 2-D wavelet transform mixes the '
            'tokens, in place of attention.')
    mixer = (
        'MLPs along height, width and channels mix' if isinstance(model, MlpMixer2d) else
        'a Fourier transform over height, width and channels mixes')
    return (
        f'A baseline of [WaveMix](https://arxiv.org/abs/{arxiv}), with its stem and head, in whose blocks {mixer} the '
        'tokens.')


def _details(model: IsotropicNet, metadata: Dict[str, Any]) -> List[str]:
    cfg = config_of(model)
    lines = [
        f"- **Architecture:** `{cfg['architecture']}`",
        f'- **Channels:** {cfg["input_size"][0]}',
        f'- **Classes:** {model.num_classes}',
    ]
    names: Optional[Sequence[str]] = cfg.get('label_names')
    if names:
        more = len(names) - MAX_SHOWN_NAMES
        shown = ', '.join(map(inline, names[:MAX_SHOWN_NAMES]))
        lines.append(f'- **Names of the classes:** {shown}{f", and {more} more in config.json" if more > 0 else ""}')
    lines += [f'- **Weights:** from [{base}](https://huggingface.co/{base})' for base in metadata.get('base_model', [])]
    for section in SHOWN_SECTIONS:
        lines += [
            f'- **{section.capitalize()}, {inline(key)}:** {inline(value)}'
            for key, value in metadata.get(section, {}).items()]
    return lines


def _usage(model: IsotropicNet, repo_id: str) -> List[str]:
    """Code that runs as it is pasted, for the channels and the class names of this model."""
    channels, *size = config_of(model)['input_size']
    mode = IMAGE_MODES.get(channels)
    if mode:
        imports, image = 'from PIL import Image\n', OPEN_IMAGE.format(mode=mode)
    else:  # Pillow has no such images
        imports, image = '', f'image = torch.rand(1, {channels}, {size[0]}, {size[1]})  # yours, normalised\n'
    named = config_of(model).get('label_names')
    label = "model.pretrained_cfg['label_names'][index]" if named else "f'class {index}'"
    blocks = {
        'Classify': CLASSIFY.format(
            imports=imports, repo_id=repo_id, image=image, top_k=min(5, model.num_classes), label=label),
        'Feature maps': FEATURE_MAPS.format(imports=imports, repo_id=repo_id, image=image),
        'Embeddings': EMBEDDINGS.format(
            imports=imports, repo_id=repo_id, image=image, num_features=model.num_features),
    }
    if mode:  # a pipeline reads all images as RGB
        blocks['In transformers'] = (PIPELINE if mode == 'RGB' else AUTO_CLASSES).format(repo_id=repo_id, mode=mode)
    return [f'### {title}\n\n```python\n{code}```\n' for title, code in blocks.items()]


def _comparison(model: IsotropicNet, name: str, metadata: Dict[str, Any]) -> List[str]:
    """Table of the model and of the published ones of the same dataset."""
    rows: List[Tuple[str, nn.Module, Dict[str, Any]]] = [(name, model, metadata)]
    dataset = metadata.get('dataset', {}).get('name')
    for file in sorted(hub_configs().glob('*.yaml')):
        others = read_metadata(file)
        if file.stem != name and dataset and others.get('dataset', {}).get('name') == dataset:
            rows.append((file.stem, timm.create_model(file.stem, device='meta'), others))
    lines = ['| model | params (M) | image size | top-1 (%) | top-1 by |', '|---|---|---|---|---|']
    for row_name, row_model, row_metadata in rows:
        metrics = row_metadata.get('metrics', {})
        params = sum(p.numel() for p in row_model.parameters()) / 1e6
        size = 'x'.join(map(str, config_of(row_model)['input_size']))
        by = inline(metrics.get('source', 'own measurement')) if metrics else ''
        lines.append(f"| {row_name} | {params:.2f} | {size} | {metrics.get('top1', 'unknown')} | {by} |")
    return lines
