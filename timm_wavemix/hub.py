"""Publish a WaveMix model on the Hugging Face Hub.

What is sent: model.safetensors, timm's config.json and a model card (README.md), in one commit that replaces these
three files and leaves the rest of the repository as it is. Then they are read back and compared with the model.
"""
import argparse
import pickle
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Dict, List, Optional, Tuple

import timm
import torch
import yaml
from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    EvalResult,
    HfApi,
    ModelCard,
    ModelCardData,
    get_token,
)
from huggingface_hub.utils import (
    HFValidationError,
    OfflineModeIsEnabled,
    disable_progress_bars,
    validate_repo_id,
)
from timm.data import resolve_data_config
from timm.models import clean_state_dict, is_model_in_modules
from timm.models._helpers import _torch_load
from timm.models._hub import load_model_config_from_path, save_for_hf
from torch import nn

from .wavemix import checkpoint_filter_fn

FILES = ('README.md', 'config.json', 'model.safetensors')

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

A [WaveMix](https://arxiv.org/abs/{arxiv}) image classifier: a fixed 2-D wavelet transform mixes the tokens, in place
of attention. It runs in [timm](https://github.com/huggingface/pytorch-image-models) with the package
`timm_wavemix`, which registers its architecture.

## Details

{details}

## Usage

The import of `timm_wavemix` comes before `timm.create_model`.

### Classify

```python
import timm
import timm_wavemix  # registers the architecture
import torch
from PIL import Image

model = timm.create_model('hf-hub:{repo_id}', pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
image = transform(Image.open('image.png').convert('RGB')).unsqueeze(0)

with torch.inference_mode():
    probabilities, classes = model(image).softmax(dim=1).topk({top_k})
```

### Feature maps

```python
model = timm.create_model('hf-hub:{repo_id}', pretrained=True, features_only=True).eval()
for feature_map in model(image):
    print(feature_map.shape)
```

### Embeddings

```python
model = timm.create_model('hf-hub:{repo_id}', pretrained=True, num_classes=0).eval()
embedding = model(image)  # (1, {num_features})
```

## Comparison

{comparison}

## Citation

```bibtex
{citation}
```
"""


def hub_configs() -> Path:
    """The folder hub_configs/: the package's copy of it, in a checkout the folder itself."""
    packaged = Path(__file__).parent / 'hub_configs'
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / 'hub_configs'


def load_model(source: str, use_ema: bool = False) -> Tuple[nn.Module, Dict[str, Any]]:
    """Load what is to be published.

    Args:
        source: Name of a registered model with weights, a checkpoint of timm's train.py, or a folder of
            `timm.models.save_for_hf`. A name goes before a path.
        use_ema: Take the EMA weights of a checkpoint.

    Returns:
        The model, whose `pretrained_cfg` has the preprocessing of its training, and the arguments that build it.

    Raises:
        OSError: There is no such file, or it cannot be read.
        RuntimeError: The weights are damaged, or a pickle that would run code.
        ValueError: `source` is none of the three, or not of a WaveMix model, or has no weights of the kind asked for.
    """
    if timm.is_model(source):
        _check_architecture(source, f"'{source}'")
        cfg = timm.get_pretrained_cfg(source)
        if not cfg.has_weights:
            raise ValueError(f"'{source}' has no weights: train it and push the checkpoint.")
        # an explicit file: these weights, not those that TIMM_WAVEMIX_HUB_ORG would take from the Hub
        model, model_args = timm.create_model(source, True, pretrained_cfg_overlay=dict(file=cfg.file)), {}
    elif Path(source).is_dir():
        if not (Path(source) / 'config.json').is_file():
            raise ValueError(f"'{source}' has no config.json: write the folder with timm.models.save_for_hf.")
        try:
            _, architecture, model_args = load_model_config_from_path(source)
        except KeyError as error:
            raise ValueError(
                f"The config.json of '{source}' has no {error}: write the folder with timm.models.save_for_hf.",
            ) from error
        _check_architecture(architecture, f"The config.json of '{source}' names the architecture '{architecture}', it")
        model = timm.create_model(f'local-dir:{source}', pretrained=True)
    elif Path(source).is_file():
        model, model_args = load_checkpoint(Path(source), use_ema)
        architecture = model.pretrained_cfg['architecture']
        _check_architecture(architecture, f"The model '{architecture}' of '{source}'")
    else:
        raise ValueError(
            f"'{source}' is no model, file or folder: give a name of timm.list_models('wavemix*', pretrained=True), "
            "a checkpoint of train.py or a folder of timm.models.save_for_hf.")
    return model.eval(), model_args


def _check_architecture(name: str, what: str) -> None:
    if not is_model_in_modules(name, ['wavemix']):
        raise ValueError(
            f'{what} is no WaveMix model of this version: import a timm_wavemix that has it, or push other models '
            'with timm.models.push_to_hf_hub.')


def load_checkpoint(file: Path, use_ema: bool = False) -> Tuple[nn.Module, Dict[str, Any]]:
    """Load a checkpoint of timm's train.py, of any architecture that is registered.

    Args:
        file: The checkpoint.
        use_ema: Take its EMA weights.

    Returns:
        The model, whose `pretrained_cfg` has the preprocessing of its training, and the arguments that build it.

    Raises:
        OSError: There is no such file, or it cannot be read.
        RuntimeError: The weights are damaged, or a pickle that would run code, or the model is not registered.
        ValueError: It is no checkpoint of train.py, or has no weights of the kind asked for.
    """
    try:
        checkpoint = _torch_load(str(file))
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise RuntimeError(
            f"'{file}' is damaged or holds what could run code, and is not read: give a checkpoint of timm's train.py, "
            'and use torch 2.5 or newer.') from error
    if not {'args', 'state_dict'} <= set(checkpoint):
        raise ValueError(
            f"'{file}' lacks the arguments of its training: give a checkpoint of timm's train.py, or a folder of "
            'timm.models.save_for_hf.')
    if use_ema and 'state_dict_ema' not in checkpoint:
        raise ValueError(f"'{file}' has no EMA weights: leave out --use-ema, or train with --model-ema.")

    # as train.py builds the model
    args = vars(checkpoint['args'])
    model_args = {k: v for k, v in dict(args['model_kwargs'], global_pool=args['gp']).items() if v is not None}
    model = timm.create_model(
        args['model'],
        in_chans=args['in_chans'] or (args['input_size'] or [3])[0],
        num_classes=args['num_classes'],
        pretrained_cfg_overlay=dict(tag=None, label_names=None, license=None),  # those of other weights
        **model_args,
    )
    state_dict = clean_state_dict(checkpoint['state_dict_ema' if use_ema else 'state_dict'])
    model.load_state_dict(checkpoint_filter_fn(state_dict, model))
    model.pretrained_cfg.update(
        resolve_data_config(args, model=model), num_classes=model.num_classes, pool_size=None)
    return model, model_args


def make_card(model: nn.Module, repo_id: str, facts: Dict[str, Any]) -> ModelCard:
    """Make the model card.

    Args:
        model: The model.
        repo_id: Repository that the card is for.
        facts: What the model can't know, as in hub_configs/.

    Raises:
        ValueError: `facts` has metrics of a dataset without a name.
    """
    name = repo_id.split('/')[-1]
    cfg = model.pretrained_cfg
    dataset, metrics = facts.get('dataset', {}), facts.get('metrics', {})
    if metrics and 'name' not in dataset:
        raise ValueError("The facts for the card have metrics, but no name of their dataset: add 'dataset: name:'.")
    source = metrics.get('source', '')
    results = [
        EvalResult(
            task_type='image-classification',
            dataset_type=dataset.get('hub_id', dataset['name']),
            dataset_name=dataset['name'],
            metric_type='accuracy',
            metric_name=f'{metric} accuracy (%)',
            metric_value=metrics[key],
            source_name=source if source.startswith('http') else None,
            source_url=source if source.startswith('http') else None,
        )
        for key, metric in (('top1', 'Top-1'), ('top5', 'Top-5')) if key in metrics]
    data = ModelCardData(
        library_name='timm',
        pipeline_tag='image-classification',
        license=facts.get('weights', {}).get('license'),
        tags=['image-classification', 'timm', 'timm_wavemix', 'wavemix'],
        datasets=[dataset['hub_id']] if 'hub_id' in dataset else None,
        metrics=['accuracy'] if results else None,
        base_model=facts.get('base_model'),
        model_name=name if results else None,
        eval_results=results or None,
    )

    details = [
        f"- **Architecture:** `{cfg['architecture']}`",
        f'- **Classes:** {model.num_classes}',
    ]
    if facts.get('base_model'):
        details.append(f"- **Weights:** from [{facts['base_model']}](https://huggingface.co/{facts['base_model']})")
    for section in ('dataset', 'preprocessing', 'training', 'metrics', 'use'):
        details += [f'- **{section.capitalize()}, {key}:** {value}' for key, value in facts.get(section, {}).items()]
    paper = timm.get_pretrained_cfg(cfg['architecture']).paper_ids
    text = CARD.format(
        name=name,
        arxiv=paper.split(':')[1],
        repo_id=repo_id,
        details='\n'.join(details),
        top_k=min(5, model.num_classes),
        num_features=model.num_features,
        comparison='\n'.join(_comparison(model, name, facts)),
        citation=CITATIONS[paper],
    )
    return ModelCard(f'---\n{data.to_yaml()}\n---\n\n{text}')


def _comparison(model: nn.Module, name: str, facts: Dict[str, Any]) -> List[str]:
    """Table of the model and of the published ones of the same dataset."""
    rows = [(name, model, facts)]
    for file in sorted(hub_configs().glob('*.yaml')):
        others = yaml.safe_load(file.read_text(encoding='utf-8'))
        if file.stem != name and others['dataset']['name'] == facts.get('dataset', {}).get('name'):
            rows.append((file.stem, timm.create_model(file.stem, device='meta'), others))
    lines = ['| model | params (M) | image size | top-1 (%) | top-1 by |', '|---|---|---|---|---|']
    for row_name, row_model, row_facts in rows:
        metrics = row_facts.get('metrics', {})
        params = sum(p.numel() for p in row_model.parameters()) / 1e6
        size = 'x'.join(map(str, row_model.pretrained_cfg['input_size']))
        by = metrics.get('source', 'own measurement') if metrics else ''
        lines.append(f"| {row_name} | {params:.2f} | {size} | {metrics.get('top1', 'unknown')} | {by} |")
    return lines


def build(source: str, repo_id: str, folder: Path, use_ema: bool = False, config: Optional[Path] = None) -> nn.Module:
    """Write the files of a repository, and check that timm gets the same model from them.

    Args:
        source: As of `load_model`.
        repo_id: Repository that the files are for.
        folder: Where to write them.
        use_ema: Take the EMA weights of a checkpoint.
        config: YAML file with what the model can't know. The default is that of hub_configs/ if `source` is a name.

    Returns:
        The model.

    Raises:
        OSError, RuntimeError, ValueError: As `load_model` and `make_card`, `config` cannot be read, or the files do not
            give the same model.
        yaml.YAMLError: `config` is no YAML.
    """
    model, model_args = load_model(source, use_ema)
    cfg = model.pretrained_cfg
    published = hub_configs() / f"{cfg['architecture']}.{cfg.get('tag')}.yaml"
    if config is None and timm.is_model(source) and published.exists():
        config = published
    facts = yaml.safe_load(config.read_text(encoding='utf-8')) or {} if config else {}
    label_names = cfg.pop('label_names', None)
    if label_names and len(label_names) != model.num_classes:
        label_names = None  # timm before 1.0.31 saves those of the weights that a model was fine-tuned from
    label_names = facts.get('label_names', label_names)
    if label_names and len(label_names) != model.num_classes:
        raise ValueError(
            f'{config} has {len(label_names)} label_names, the model {model.num_classes} classes: name all.')
    save_for_hf(
        model, folder, model_config=dict(label_names=label_names), model_args=model_args, safe_serialization=True)
    card = Path(source) / 'README.md'
    if card.is_file() and not timm.is_model(source):  # somebody wrote it
        (folder / 'README.md').write_bytes(card.read_bytes())
    else:
        make_card(model, repo_id, facts).save(folder / 'README.md')
    if not same(model, timm.create_model(f'local-dir:{folder}', pretrained=True)):
        raise RuntimeError(
            f"The saved files of '{source}' do not give the same model: build it with timm.create_model from arguments "
            'that JSON can hold.')
    return model


def same(model: nn.Module, other: nn.Module) -> bool:
    """Whether two models have the same weights, and the same logits for the same input, bit for bit."""
    weights, others = model.state_dict(), other.state_dict()
    images = torch.randn(2, *model.pretrained_cfg['input_size'], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return (
            weights.keys() == others.keys()
            and all(torch.equal(weights[key], others[key]) for key in weights)
            and torch.equal(model.eval()(images), other.eval()(images)))


def upload(
        folder: Path,
        repo_id: str,
        private: bool = False,
        revision: Optional[str] = None,
        create_pr: bool = False,
) -> CommitInfo:
    """Send the files of `build` in one commit, which the Hub takes as a whole or not at all.

    Args:
        folder: Where the files are.
        repo_id: Repository, which is created if it does not exist.
        private: Create it private.
        revision: Branch to commit to, which is created if it does not exist. The default is main.
        create_pr: Open a pull request with the commit instead.

    Raises:
        ValueError: `private`, but the repository exists and is public.
        Exception: Whatever huggingface_hub or its HTTP library raises.
    """
    api = HfApi(library_name='timm_wavemix')
    api.create_repo(repo_id, exist_ok=True, **(dict(private=True) if private else {}))  # else as the owner's default
    if revision:
        api.create_branch(repo_id, branch=revision, exist_ok=True)
    head = api.model_info(repo_id, revision=revision)
    if private and not head.private:
        raise ValueError(f'{repo_id} exists and is public: make it private in its settings, or push without --private.')
    # not upload_folder, which may make several commits. The parent keeps files of two pushes at once from mixing.
    return api.create_commit(
        repo_id,
        [CommitOperationAdd(name, folder / name) for name in FILES],
        commit_message=f'Push {repo_id.split("/")[-1]} with timm_wavemix',
        revision=revision,
        create_pr=create_pr,
        parent_commit=head.sha,
    )


def read_back(model: nn.Module, repo_id: str, revision: str) -> None:
    """Download a revision, past the cache, and compare it with the model.

    Raises:
        RuntimeError: It is another model.
        Exception: Whatever huggingface_hub or its HTTP library raises.
    """
    with TemporaryDirectory() as cache_dir:
        other = timm.create_model(f'hf-hub:{repo_id}@{revision}', pretrained=True, cache_dir=cache_dir)
        if not same(model, other):
            raise RuntimeError('its weights or logits are not those of the model.')


def push(
        source: str,
        repo_id: str,
        use_ema: bool = False,
        config: Optional[Path] = None,
        private: bool = False,
        revision: Optional[str] = None,
        create_pr: bool = False,
        dry_run: bool = False,
) -> None:
    """Build the files, show them, send them, and read them back.

    Args:
        source, use_ema, config: As of `build`.
        repo_id, private, revision, create_pr: As of `upload`.
        dry_run: Show the whole text of the files and send nothing.

    Raises:
        OSError, ValueError, yaml.YAMLError: As `build`.
        RuntimeError: As `build`, the Hub cannot be reached or refuses, or what it gives back is not what was sent.
    """
    with TemporaryDirectory() as folder:
        model = build(source, repo_id, Path(folder), use_ema, config)
        print(f'{source} to {repo_id}:')
        for name in FILES:
            print(f'  {name:<18}{(Path(folder) / name).stat().st_size:>14,} bytes')
        if dry_run:
            for name in ('config.json', 'README.md'):
                print(f"\n{name}:\n{(Path(folder) / name).read_text(encoding='utf-8')}")
            print('Nothing was sent.')
            return
        # each version of huggingface_hub has the errors of its own HTTP library
        try:
            commit = upload(Path(folder), repo_id, private, revision, create_pr)
        except Exception as error:
            raise RuntimeError(f'Nothing was published: {explain(error, repo_id)}') from error
        try:
            read_back(model, repo_id, commit.oid)
        except Exception as error:
            raise RuntimeError(
                f'{commit.commit_url} was published, but does not read back: {explain(error, repo_id)} Push it again, '
                'or revert that commit.') from error
    print(f'Done, read back and found the same: {commit.pr_url or commit.commit_url}')


def explain(error: Exception, repo_id: str) -> str:
    """One sentence that names the fix, for an error of huggingface_hub, of its HTTP library, or of ours."""
    while getattr(error, 'response', None) is None and error.__cause__ is not None:
        error = error.__cause__
    response = getattr(error, 'response', None)
    status = None if response is None else response.status_code
    fixes = {
        401: 'the Hub does not know you: log in with `hf auth login`, or set HF_TOKEN to a valid token.',
        403: f'your token may not write to {repo_id}: take one that may.',
        404: f'the Hub has no {repo_id}, or not for you: check the name, and the token with `hf auth whoami`.',
        409: f'{repo_id} changed meanwhile: run it again.',
        412: f'{repo_id} changed meanwhile: run it again.',
        429: 'the Hub limits your requests: run it again in some minutes.',
    }
    if status in fixes:
        return fixes[status]
    if status is not None and status >= 500:
        return f'the Hub fails with HTTP status {status}: run it again later.'
    reason = ' '.join(str(error).split()) or type(error).__name__
    token = get_token()
    if token:  # a server or a proxy may quote it
        reason = reason.replace(token, '***')
    if status is not None or isinstance(error, (OfflineModeIsEnabled, RuntimeError, ValueError)):
        return reason
    return f'{reason}: check the network, and HF_ENDPOINT if it is set.'


def main(argv: Optional[List[str]] = None, prog: Optional[str] = None) -> None:
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Publish a WaveMix model on the Hugging Face Hub: model.safetensors, config.json and a model card, '
                    'in one commit. They replace the files of these names in the repository and leave the others. '
                    'Then they are read back and compared with the model.',
        epilog='The token is the one of `hf auth login` or HF_TOKEN. Load the model with: import timm_wavemix; '
               "timm.create_model('hf-hub:ORG/NAME', pretrained=True)",
    )
    parser.add_argument(
        'source',
        metavar='NAME_OR_CHECKPOINT',
        help="model with weights, such as wavemix_16_5.fashion_mnist, a checkpoint of timm's train.py, or a folder of "
             'timm.models.save_for_hf, whose README.md is kept')
    parser.add_argument('--repo-id', metavar='ORG/NAME', required=True, help='repository, created if it does not exist')
    parser.add_argument('--use-ema', action='store_true', help='take the EMA weights of the checkpoint')
    parser.add_argument(
        '--config', metavar='FILE', type=Path,
        help='YAML file with what the card needs and the model cannot know (data, metrics, training, use, '
             'label_names), like those of hub_configs/ (default: the one of NAME)')
    parser.add_argument('--private', action='store_true', help='create the repository private')
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        '--revision', metavar='BRANCH', help='branch to commit to, created if it does not exist (default: main)')
    where.add_argument('--create-pr', action='store_true', help='open a pull request instead')
    parser.add_argument('--dry-run', action='store_true', help='show what would be sent, and send nothing')
    args = parser.parse_args(argv)
    try:
        validate_repo_id(args.repo_id)
    except HFValidationError as error:
        parser.error(f'--repo-id: {error}')
    if '/' not in args.repo_id:
        parser.error(f"--repo-id: '{args.repo_id}' has no owner: write ORG/{args.repo_id}.")
    if not sys.stderr.isatty():
        disable_progress_bars()  # huggingface_hub itself does so only for some of its bars
    try:
        push(**vars(args))
    except (OSError, RuntimeError, ValueError, yaml.YAMLError) as error:
        sys.exit(f"{parser.prog}: {' '.join(str(error).split())}")

