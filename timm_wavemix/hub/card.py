"""The model card of a published model."""
import re
from typing import Any, Dict, List

import timm
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..checkpoints import config_of, registered_cfg
from ..mixers import FNet2dBlock, MlpMixer2dBlock
from ..wavemix import WaveMix
from .metadata import RELATIONS, hub_configs, read_metadata

SHOWN_SECTIONS = 'dataset', 'preprocessing', 'training', 'metrics', 'use'
PERCENTAGES = {'top1': 'Top-1', 'top5': 'Top-5'}
MAX_SHOWN_NAMES = 20
IMAGE_MODES = {1: 'L', 2: 'LA', 3: 'RGB', 4: 'RGBA'}  # of Pillow, by channels
URL = re.compile(r'https?://[\w./%?=#+-]+')
AS_TEXT = str.maketrans({
    **{char: f'\\{char}' for char in '\\*_[]~$'}, '<': '&lt;', '&': '&amp;', '|': '&#124;', '`': '&#96;'})

CITATIONS = {  # by the paper_ids of a pretrained_cfg; both papers are preprints
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

Import `timm_wavemix` before you create the model. Each block below runs on its own.

{usage}

## Comparison

{comparison}

## Citation

```bibtex
{citation}
```
"""

IN_TIMM = """\
import timm
import timm_wavemix  # registers the architecture
import torch
{imports}
model = timm.create_model('hf-hub:{repo_id}', pretrained=True{args}).eval()
{image}
with torch.inference_mode():
{code}
"""

OPEN_IMAGE = """\
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
image = transform(Image.open('image.png').convert('{mode}')).unsqueeze(0)
"""

CLASSIFY = """\
    probabilities, classes = model(image).softmax(dim=1).topk({top_k})
for probability, index in zip(probabilities[0].tolist(), classes[0].tolist()):
    print({label}, f'{{probability:.3f}}')"""

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

OWN_CLASSES = """\
After fine-tuning in transformers, set `model.config.label_names` to the list of your class names before you save:
transformers would save the names above.
"""


def make_card(model: WaveMix, repo_id: str, metadata: Dict[str, Any]) -> ModelCard:
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
    return ModelCard(f'---\n{_card_data(repo_id, metadata).to_yaml()}\n---\n\n{text}')


def inline(text: str) -> str:
    """Free text on one line that Markdown shows as it is; a link stays one."""
    text = ' '.join(text.split())
    return text if URL.fullmatch(text) else text.translate(AS_TEXT)


def _card_data(repo_id: str, metadata: Dict[str, Any]) -> ModelCardData:
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
        model_name=repo_id.rpartition('/')[2] if results else None,
        eval_results=results or None,
    )


def _results(repo_id: str, metadata: Dict[str, Any]) -> List[EvalResult]:
    """The accuracies for the Hub's leaderboards, with who measured them and when."""
    dataset, metrics = metadata.get('dataset', {}), metadata.get('metrics', {})
    source, is_converted = metrics.get('source'), 'base_model' in metadata and 'base_model_relation' not in metadata
    if source and URL.fullmatch(source):
        link = source
    else:  # the Hub wants a link: to the weights of those whose claim it is, or to our own
        link = f"https://huggingface.co/{metadata['base_model'][0] if source and is_converted else repo_id}"
    return [
        EvalResult(
            task_type='image-classification',
            dataset_type=dataset.get('hub_id', dataset['name']),
            dataset_name=dataset['name'],
            dataset_split=dataset.get('split'),
            metric_type='accuracy',
            metric_name=f'{metric} accuracy (%)',
            metric_value=float(metrics[key]),
            source_name=', '.join(filter(None, [source or 'own measurement', metrics.get('date')])),
            source_url=link,
        )
        for key, metric in PERCENTAGES.items() if key in metrics]


def _description(model: WaveMix, arxiv: str) -> str:
    wavemix, block = f'[WaveMix](https://arxiv.org/abs/{arxiv})', model.blocks[0]
    if isinstance(block, (FNet2dBlock, MlpMixer2dBlock)):
        mixer = (
            'MLPs along height, width and channels' if isinstance(block, MlpMixer2dBlock) else
            'a Fourier transform over height, width and channels')
        return f'A baseline for {wavemix} with the same stem and head, which mixes tokens with {mixer}.'
    return f'A {wavemix} image classifier, which mixes tokens with a fixed 2-D wavelet transform instead of attention.'


def _details(model: WaveMix, metadata: Dict[str, Any]) -> List[str]:
    cfg = config_of(model)
    lines = [
        f"- **Architecture:** `{cfg['architecture']}`",
        f'- **Channels:** {cfg["input_size"][0]}',
        f'- **Classes:** {model.num_classes}',
    ]
    names = cfg.get('label_names')
    if names:
        more = len(names) - MAX_SHOWN_NAMES
        shown = ', '.join(map(inline, names[:MAX_SHOWN_NAMES]))
        lines.append(f'- **Class names:** {shown}{f", and {more} more in config.json" if more > 0 else ""}')
    relation = RELATIONS.get(metadata.get('base_model_relation', ''), 'Converted from')
    lines += [f'- **{relation}:** [{base}](https://huggingface.co/{base})' for base in metadata.get('base_model', [])]
    for section in SHOWN_SECTIONS:
        lines += [
            f'- **{section.capitalize()}, {inline(key)}:** {inline(value)}'
            for key, value in metadata.get(section, {}).items()]
    return lines


def _usage(model: WaveMix, repo_id: str) -> List[str]:
    """Code that runs as it is pasted, for the channels and the class names of this model."""
    channels, height, width = config_of(model)['input_size']
    mode = IMAGE_MODES.get(channels)
    if mode:
        imports, image = 'from PIL import Image\n', OPEN_IMAGE.format(mode=mode)
    else:  # Pillow has no such images
        imports, image = '', f'image = torch.rand(1, {channels}, {height}, {width})  # yours, normalised\n'
    named = config_of(model).get('label_names')
    label = "model.pretrained_cfg['label_names'][index]" if named else "f'class {index}'"
    in_timm = {
        'Classify': ('', CLASSIFY.format(top_k=min(5, model.num_classes), label=label)),
        'Feature maps': (
            ', features_only=True', '    for feature_map in model(image):\n        print(feature_map.shape)'),
        'Embeddings': (', num_classes=0', f'    embedding = model(image)  # (1, {model.num_features})'),
    }
    blocks = {
        title: IN_TIMM.format(imports=imports, repo_id=repo_id, args=args, image=image, code=code)
        for title, (args, code) in in_timm.items()}
    if mode:  # a pipeline reads all images as RGB
        blocks['In transformers'] = (PIPELINE if mode == 'RGB' else AUTO_CLASSES).format(repo_id=repo_id, mode=mode)
    sections = [f'### {title}\n\n```python\n{code}```\n' for title, code in blocks.items()]
    return [*sections, OWN_CLASSES] if mode and named else sections


def _comparison(model: WaveMix, name: str, metadata: Dict[str, Any]) -> List[str]:
    """Table of the model and of the published ones of the same data set."""
    rows = [(name, model, metadata)]
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
