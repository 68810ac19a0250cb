"""The model card of a published model, made from the template card.md."""
import re
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import timm
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment
from timm.models import get_pretrained_cfg_value
from torch import nn

from ..checkpoints import IMAGE_MODES
from .metadata import RELATIONS, hub_configs, read_metadata

URL = re.compile(r'https?://[\w./%?=#+-]+')
AS_TEXT = str.maketrans({
    **{char: f'\\{char}' for char in '\\*_[]~$'}, '<': '&lt;', '&': '&amp;', '|': '&#124;', '`': '&#96;'})
MIXERS = {  # by the class of blocks
    'FNet2dBlock': 'a Fourier transform over height, width and channels',
    'MlpMixer2dBlock': 'MLPs along height, width and channels'}
AUTHORS = {  # by the paper_ids of a pretrained_cfg: both papers are preprints of 2022, with no other venue known
    'arXiv:2203.03689': ('jeevan2022wavemix', 'Jeevan P, Pranav and Sethi, Amit'),
    'arXiv:2205.14375': (
        'jeevan2022wavemixanalysis', 'Jeevan, Pranav and Viswanathan, Kavitha and S, Anandu A and Sethi, Amit')}


def make_card(model: nn.Module, repo_id: str, metadata: Dict[str, Any]) -> ModelCard:
    """The card of a model for a repository, with what the model can't know as `read_metadata` gives it.

    The names of the classes are those of its `pretrained_cfg`.
    """
    cfg, name = vars(model)['pretrained_cfg'], repo_id.rpartition('/')[2]
    paper, title = (get_pretrained_cfg_value(cfg['architecture'], key) for key in ('paper_ids', 'paper_name'))
    key, authors = AUTHORS[str(paper)]
    environment = Environment()
    environment.filters['inline'] = inline
    template = environment.from_string(Path(__file__).with_name('card.md').read_text(encoding='utf-8'))
    return ModelCard(template.render(
        card_data=_card_data(repo_id, metadata).to_yaml(), name=name, repo_id=repo_id, cfg=cfg, metadata=metadata,
        mixer=MIXERS.get(type(model.get_submodule('blocks.0')).__name__), mode=IMAGE_MODES.get(cfg['input_size'][0]),
        relation=RELATIONS.get(metadata.get('base_model_relation', ''), 'Converted from'),
        num_classes=model.num_classes, num_features=model.num_features, key=key, title=title,
        authors=authors, paper=paper, comparison=list(_comparison(model, name, metadata))))


def inline(text: str) -> str:
    """Free text on one line that Markdown shows as it is; a link stays one."""
    text = ' '.join(text.split())
    return text if URL.fullmatch(text) else text.translate(AS_TEXT)


def _card_data(repo_id: str, metadata: Dict[str, Any]) -> ModelCardData:
    dataset, weights = metadata.get('dataset', {}), metadata.get('weights', {})
    base_models, results = metadata.get('base_model', []), _results(repo_id, metadata)
    return ModelCardData(
        library_name='timm', pipeline_tag='image-classification',
        tags=['image-classification', 'timm', 'timm_wavemix', 'wavemix'],
        **{key: weights.get(key) for key in ('license', 'license_name', 'license_link')},
        datasets=[dataset['hub_id']] if 'hub_id' in dataset else None, metrics=['accuracy'] if results else None,
        base_model=base_models[0] if len(base_models) == 1 else base_models or None,
        base_model_relation=metadata.get('base_model_relation'),
        model_name=repo_id.rpartition('/')[2] if results else None, eval_results=results or None)


def _results(repo_id: str, metadata: Dict[str, Any]) -> List[EvalResult]:
    """The accuracies for the Hub's leaderboards, with who measured them and when."""
    dataset, metrics = metadata.get('dataset', {}), metadata.get('metrics', {})
    source, is_converted = metrics.get('source', ''), 'base_model_relation' not in metadata
    # the Hub wants a link: to the weights of those whose claim it is, or to our own
    link = metadata['base_model'][0] if source and is_converted and 'base_model' in metadata else repo_id
    return [
        EvalResult(
            task_type='image-classification', dataset_type=dataset.get('hub_id', dataset['name']),
            dataset_name=dataset['name'], dataset_split=dataset.get('split'), metric_type='accuracy',
            metric_name=f'Top-{k} accuracy (%)', metric_value=float(metrics[f'top{k}']),
            source_name=', '.join(filter(None, [source or 'own measurement', metrics.get('date')])),
            source_url=source if URL.fullmatch(source) else f'https://huggingface.co/{link}')
        for k in (1, 5) if f'top{k}' in metrics]


def _comparison(model: nn.Module, name: str, metadata: Dict[str, Any]) -> Iterator[Tuple[Any, ...]]:
    """Name, parameters, image size and metrics of the model and of the published ones of the same data set."""
    models, dataset = [(name, model, metadata.get('metrics', {}))], metadata.get('dataset', {}).get('name')
    for file in sorted(hub_configs().glob('*.yaml')) if dataset else []:
        others = read_metadata(file)
        if file.stem != name and others != metadata and others.get('dataset', {}).get('name') == dataset:
            models.append((file.stem, timm.create_model(file.stem, device='meta'), others.get('metrics', {})))
    for name, model, metrics in models:
        params = sum(p.numel() for p in model.parameters())
        yield name, params, vars(model)['pretrained_cfg']['input_size'], metrics
