"""The files of a repository: model.safetensors, config.json, the card, and the arguments of a training."""
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import timm
import torch
import yaml
from huggingface_hub import HfApi, ModelCard
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.models import get_pretrained_cfg_value, save_for_hf

from ..checkpoints import IMAGE_MODES, Source, blame, config_of, is_name, is_own, load_source, read_weights, weights_of
from .card import make_card
from .metadata import HPARAMS, check_text, hub_configs, label_list, read_metadata

PRIVATE_KEY = re.compile(
    'auth|credential|email|key|passw|secret|token|user|wandb|^config$|^data$|dir$|device|distributed|'
    'initial_checkpoint|map$|output|path|rank|resume|url|world_size', re.IGNORECASE)
PLAIN = re.compile(r'(?!.*hf_)(?!.*\.[A-Za-z]\w*$)[\w.,+=() -]*')  # no token of the Hub, file, path, URL or address
PUBLIC_NAME = re.compile(r'(?!.*\.\.)([\w.-]+|(hf-hub:|(hfds|hfids|tfds|torch|wds)/)[\w./@-]+)')  # models, data sets


def write_files(
        source: str, repo_id: str, folder: Path, use_ema: bool = False, metadata_file: Optional[Path] = None,
        weights: Optional[Path] = None, token: str = '') -> List[str]:
    """Write the files of a repository, and check that timm reads from them what the source holds.

    Args:
        source, use_ema, weights: As of `load_source`.
        repo_id, folder: Repository that the files are for, and where to write them.
        metadata_file: YAML file with what the model can't know; the default for a name is that of hub_configs/.
        token: Secret that must not be in the files.

    Returns sentences on what was left out. Raises what `load_source` and `read_metadata` raise, and ValueError if the
    model is not one of this package, or if the files do not give the same model.
    """
    loaded = _load(source, use_ema, weights)
    cfg = config_of(loaded.model)
    if metadata_file is None and is_name(source):
        published = hub_configs() / f"{cfg['architecture']}.{cfg['tag']}.yaml"
        metadata_file = published if published.exists() else None
    metadata = read_metadata(metadata_file) if metadata_file else {}
    names, notes = _label_names(loaded, metadata, source, metadata_file)
    for key in 'label_names', 'label_descriptions':  # save_for_hf would write names twice, descriptions are of names
        cfg.pop(key, None)
    with blame(f"The model of '{source}' cannot be used as its config says, correct input_size, mean, std and so on"):
        save_for_hf(
            loaded.model, str(folder), model_config=dict(label_names=names), model_args=loaded.model_args,
            safe_serialization=True)
        saved = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
        saved['model_args'].pop('num_classes', None)  # transformers passes it beside the other, and fails
        (folder / 'config.json').write_text(json.dumps(saved, indent=2), encoding='utf-8')
        _check_same(loaded, folder)
    cfg['label_names'] = names

    card = Path(source) / 'README.md'
    if card.is_file():  # somebody wrote it, the Hub will validate it
        with blame(f"'{card}' cannot be sent"):
            check_text(card.read_text(encoding='utf-8'), 'it')
            ModelCard(card.read_text(encoding='utf-8'))
        (folder / 'README.md').write_bytes(card.read_bytes())
    else:
        make_card(loaded.model, repo_id, metadata).save(folder / 'README.md')
    if loaded.hparams:
        with blame(f"The arguments of the training in '{source}' cannot be written"):
            hparams = {key: value for key, value in loaded.hparams.items() if _is_public('', {key: value}, token)}
            text = yaml.safe_dump(json.loads(json.dumps(hparams, default=str)))
            (folder / HPARAMS).write_text(text, encoding='utf-8')
    return notes


def _load(source: str, use_ema: bool, weights: Optional[Path]) -> Source:
    named, architecture = is_name(source), source
    if not named or is_own(source):
        if named and not weights:
            _check_cache(source)
        loaded = load_source(source, use_ema, weights)
        architecture = config_of(loaded.model)['architecture']
    if not is_own(architecture):
        raise ValueError(f"'{source}' is a {architecture}: push other models with timm.models.push_to_hf_hub.")
    if not loaded.model.num_classes:
        raise ValueError(f"'{source}' has no classifier: push the model with its head.")
    return loaded


def _check_cache(name: str) -> None:
    """Compare weights that were fetched from the Hub with what it has, if it can be asked."""
    if repo_id := get_pretrained_cfg_value(name, 'hf_hub_id'):
        file, damaged = weights_of(name).as_posix(), []
        with suppress(Exception):
            damaged = [m['path'] for m in HfApi().verify_repo_checksums(repo_id).mismatches]
        if any(file.endswith(f'/{path}') for path in damaged):
            raise ValueError(f"'{file}' is not what the Hub has: remove it with `hf cache rm model/{repo_id}`.")


def _label_names(
        loaded: Source, metadata: Dict[str, Any], source: str, metadata_file: Optional[Path],
) -> Tuple[Optional[List[str]], List[str]]:
    """The names of the classes, in order, if it is sure that they are of this classifier, and sentences on it."""
    given, stated = metadata.get('label_names'), loaded.config.get('label_names')
    names = given or stated or config_of(loaded.model).get('label_names')
    what = f"'{metadata_file}'" if given else f"the config.json of '{source}'"
    if not names:
        return None, []
    if not (given or stated or is_name(source) or _has_registered_classifier(loaded)):
        return None, [f'The class names in {what} are of other weights, and are left out: list yours in --metadata.']
    names = label_list(names, f'{what}: label_names')
    if len(names) != loaded.model.num_classes:
        raise ValueError(f'{what} has {len(names)} label_names for {loaded.model.num_classes} classes: name all.')
    return names, []


def _has_registered_classifier(loaded: Source) -> bool:
    """Whether it is that of the weights whose names a fine-tuned model still has."""
    name = '{architecture}.{tag}'.format_map({'tag': '', **config_of(loaded.model)})
    file = get_pretrained_cfg_value(name, 'file') if timm.is_model_pretrained(name) else None
    weights = read_weights(Path(file)) if file else {}
    return all(
        key in weights and torch.equal(weights[key].float(), loaded.tensors[key].float())
        for key in ('head.fc.weight', 'head.fc.bias'))


def _check_same(loaded: Source, folder: Path) -> None:
    """Check that timm gets from the files the tensors of the source and the same logits, bit for bit, all finite."""
    again = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    saved, (channels, height, width) = again.state_dict(), config_of(loaded.model)['input_size']
    images = torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(0))
    if channels in IMAGE_MODES:  # and a black one, preprocessed as the card does
        transform = create_transform(**resolve_model_data_config(again))
        images = torch.cat([images, transform(Image.new(IMAGE_MODES[channels], (width, height))).unsqueeze(0)])
    with torch.inference_mode():
        logits, logits_again = loaded.model(images), again(images)
    if not logits.isfinite().all():
        raise ValueError('its logits are not finite')
    if not torch.equal(logits, logits_again) or loaded.tensors.keys() != saved.keys() or not all(
            torch.equal(tensor.to(saved[name].dtype), saved[name]) for name, tensor in loaded.tensors.items()):
        raise ValueError('the saved files do not give the same model, build it from arguments that JSON can hold')


def _is_public(key: str, value: Any, token: str) -> bool:
    """Whether an argument contains no secret, account, machine or path."""
    if isinstance(value, dict):
        return all(not PRIVATE_KEY.search(str(k)) and _is_public(str(k), v, token) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return all(_is_public(key, item, token) for item in value)
    pattern = PUBLIC_NAME if key in ('model', 'dataset') else PLAIN
    return pattern.fullmatch(str(value)) is not None and not (token and token in str(value))
