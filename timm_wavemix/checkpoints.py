"""Trained models: by name, from a checkpoint of timm's train.py or from a folder. All foreign files are read here.

No file is trusted: it runs no code and has nothing fetched, it gives only arguments of the model itself, and names,
shapes and types of its weights are compared before memory is allocated.
"""
import argparse
import errno
import inspect
import itertools
import json
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Tuple, Union, cast

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from safetensors.torch import load_file
from timm.data import resolve_input_data_config
from timm.models import PretrainedCfg, build_model_with_cfg, clean_state_dict, model_entrypoint, parse_model_name
from timm.models._hub import download_from_hf, hf_split, load_model_config_from_path  # private in timm 1.0.31
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from .wavemix import WaveMix, checkpoint_filter_fn

WEIGHT_FILES = 'model.safetensors', 'pytorch_model.bin'  # of a folder, as save_for_hf names them
IMAGE_MODES = {1: 'L', 2: 'LA', 3: 'RGB', 4: 'RGBA'}  # of Pillow, by channels
FACTORY_ARGS = {  # say where a model and its weights come from, not what it is
    'device', 'dtype', *inspect.signature(timm.create_model).parameters,
    *inspect.signature(build_model_with_cfg).parameters}


@dataclass(frozen=True)
class Source:
    """A model in eval mode, whose `pretrained_cfg` has the preprocessing of its training, and what is known of it."""
    model: nn.Module
    tensors: Dict[str, torch.Tensor]  # as they are in the source's file, by the names of the model
    model_args: Dict[str, Any] = field(default_factory=dict)  # that build the model
    hparams: Dict[str, Any] = field(default_factory=dict)  # arguments of its training, from a checkpoint
    config: Dict[str, Any] = field(default_factory=dict)  # config.json, from a folder


def load_model(source: str, use_ema: bool = False) -> nn.Module:
    """Load a trained model of any architecture that is registered with timm, in eval mode.

    Its `pretrained_cfg` has the preprocessing of its training.

    Args:
        source: Name of a model with weights, a checkpoint of timm's train.py, a folder of `timm.models.save_for_hf`,
            'local-dir:FOLDER' or 'hf-hub:ORG/NAME'. Only a name and 'hf-hub:' may ask the network.
        use_ema: Take the EMA weights of a checkpoint.

    Raises:
        OSError, RuntimeError: A file is missing, or cannot be read or fetched.
        ValueError: `source` is none of these, or its weights are damaged, would run code, are not finite or not of the
            model that it names, or it has none of the kind asked for.
    """
    return load_source(source, use_ema).model


def load_checkpoint(file: Union[str, Path], use_ema: bool = False) -> nn.Module:
    """Load a checkpoint of timm's train.py, as `load_model` does."""
    return _load_checkpoint(Path(file), use_ema).model


def load_source(source: str, use_ema: bool = False, weights: Optional[Path] = None) -> Source:
    """As `load_model`, with what else is known; `weights` is a file to read instead of that of a name."""
    path = Path(source.removeprefix('local-dir:'))
    named = is_name(source)
    if path.is_file():
        return _load_checkpoint(path, use_ema)
    if use_ema:
        raise ValueError(f"'{source}' is not a checkpoint of train.py and has no EMA weights: leave out --use-ema.")
    if named and not registered_cfg(source).has_weights:
        raise ValueError(f"'{source}' has no weights: train it, and give the checkpoint.")
    if named and is_own(source):
        return _build(source, {}, read_weights(weights or weights_of(source)), source)
    if named:
        model = timm.create_model(source, pretrained=True).eval()
        return Source(model, model.state_dict())
    if path.is_dir():
        if not (path / 'config.json').is_file():
            raise ValueError(f"'{path}' is not a folder of save_for_hf: name one, or the file of a checkpoint in it.")
        return _load_folder(path, read_weights(path), str(path))
    if source.startswith('hf-hub:'):
        repo_id = source.partition(':')[2]
        folder = Path(download_from_hf(repo_id, 'config.json')).parent
        return _load_folder(folder, timm.models.load_state_dict_from_hf(repo_id), source)
    raise ValueError(
        f"'{source}' is not a model name, a file or a folder: give a name of timm.list_models('wavemix*', "
        'pretrained=True), a checkpoint of train.py or a folder of timm.models.save_for_hf.')


def is_name(source: str) -> bool:
    """Whether it is the name of a registered model and not a path; raises ValueError if it is both."""
    if '/' in source or ':' in source or not timm.is_model(source):
        return False
    if Path(source).exists():
        raise ValueError(f"'{source}' is a model name and a path here: write './{source}' for the path.")
    return True


def is_own(name: str) -> bool:
    """Whether it is the name of a model of this package."""
    return timm.is_model(name) and model_entrypoint(name).__module__.partition('.')[0] == __package__


def registered_cfg(name: str) -> PretrainedCfg:
    """What is registered of a model, by its name with or without tag; raises RuntimeError if there is nothing."""
    return cast(PretrainedCfg, timm.get_pretrained_cfg(name, allow_unregistered=False))


def config_of(model: nn.Module) -> Dict[str, Any]:
    """The `pretrained_cfg` that timm gives every model."""
    return cast(Dict[str, Any], model.pretrained_cfg)


def weights_of(name: str) -> Path:
    """The weights of a model of this package: its own file, or one in the cache of the Hub's, fetched if need be."""
    cfg = registered_cfg(name)
    if cfg.file:
        return Path(cfg.file)
    repo_id, org = str(cfg.hf_hub_id), os.environ.get('TIMM_WAVEMIX_HUB_ORG')
    try:
        return Path(download_from_hf(repo_id, cfg.hf_hub_filename or WEIGHT_FILES[0]))
    except Exception as error:
        where = ', which TIMM_WAVEMIX_HUB_ORG names' if repo_id.partition('/')[0] == org else ''
        raise RuntimeError(
            f"The weights of '{name}' could not be fetched from {repo_id}{where}: {one_line(error)}.") from error


def _load_folder(folder: Path, state_dict: Any, source: str) -> Source:
    with blame(f"The config.json of '{source}' gives no model, write it with timm.models.save_for_hf"):
        config = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
        cfg, name, model_args = load_model_config_from_path(folder)
    loaded = _build(name, model_args, state_dict, source, dict(pretrained_cfg=cfg), config=config)
    # timm builds by model_args alone, and would give another model than the one that was trained
    built = dict(timm.models.get_model_args(loaded.model), num_features=loaded.model.num_features)
    for key in 'num_classes', 'num_features', 'global_pool':
        if config.get(key, built.get(key)) != built.get(key):
            raise ValueError(
                f"config.json of '{source}' says {key} {config[key]}, its model_args give {built.get(key)}: add them.")
    return loaded


def _load_checkpoint(file: Path, use_ema: bool) -> Source:
    checkpoint = read_weights(file)
    args = checkpoint.get('args') if isinstance(checkpoint, dict) else None
    args = vars(args) if isinstance(args, argparse.Namespace) else args
    if not isinstance(args, dict) or not isinstance(args.get('model'), str) or 'state_dict' not in checkpoint:
        raise ValueError(
            f"'{file}' lacks weights or the arguments of its training: give a checkpoint of timm's train.py, or a "
            'folder of timm.models.save_for_hf.')
    if use_ema and not checkpoint.get('state_dict_ema'):
        raise ValueError(f"'{file}' has no EMA weights: leave out --use-ema, or train with --model-ema.")
    with blame(f"The arguments of the training in '{file}' give no model"):
        cfg, name, model_args = _trained_from(args['model'])
        # as train.py builds it; older versions lack some of these arguments
        model_args = dict(
            model_args, in_chans=args.get('in_chans') or (args.get('input_size') or [3])[0],
            num_classes=args.get('num_classes'), global_pool=args.get('gp'), **(args.get('model_kwargs') or {}))
        model_args = {k: v for k, v in model_args.items() if v is not None}
    others = dict(tag=None, label_names=None, label_descriptions=None, license=None)  # are of other weights
    loaded = _build(
        name, model_args, checkpoint['state_dict_ema' if use_ema else 'state_dict'], str(file),
        dict(pretrained_cfg=cfg, pretrained_cfg_overlay=others), hparams=args)
    with blame(f"The arguments of the training in '{file}' give no preprocessing"):
        config_of(loaded.model).update(
            resolve_input_data_config(loaded.model, args), num_classes=loaded.model.num_classes, pool_size=None)
    return loaded


def _trained_from(model: str) -> Tuple[Optional[Dict[str, Any]], str, Dict[str, Any]]:
    """The architecture of train.py's --model, with its config and arguments if they came with a folder."""
    source, name = parse_model_name(model)
    if source is None:
        return None, name, {}
    file = Path(name, 'config.json')
    if source == 'hf-hub':
        repo_id, revision = hf_split(name)
        cached = try_to_load_from_cache(repo_id, 'config.json', revision=revision)
        file = Path(cached if isinstance(cached, str) else '')
    if not file.is_file():
        raise ValueError(f'there is no config.json of {model} here, `hf download` gets one from the Hub')
    return load_model_config_from_path(file.parent)


def _build(
        name: str, model_args: Dict[str, Any], state_dict: Any, source: str,
        cfg: Optional[Dict[str, Any]] = None, **known: Any) -> Source:
    """Build the model and load all weights as they are: timm would adapt weights with other classes or channels."""
    if not isinstance(name, str) or not timm.is_model(name):
        raise ValueError(f"The model '{name}' of '{source}' is not registered: import the package that has it.")
    built = itertools.count()

    def limit(*_: Any) -> None:
        if next(built) > 2 * len(state_dict) + 1000:  # layers may be replaced while a model is built
            raise ValueError('it has more parameters than there are tensors')

    with blame(f"The weights of '{source}' do not fit the arguments of its model"):
        state_dict = state_dict.get('state_dict', state_dict)
        _check_args(name, model_args, sum(v.numel() for v in state_dict.values() if isinstance(v, torch.Tensor)))
        with register_module_parameter_registration_hook(limit):
            on_meta = timm.create_model(name, device='meta', **(cfg or {}), **model_args)
        tensors = _fit(state_dict, on_meta)
        model = timm.create_model(name, **(cfg or {}), **model_args)
        model.load_state_dict(tensors)
    return Source(model.eval(), tensors, model_args, **known)


def _check_args(name: str, model_args: Dict[str, Any], size: int) -> None:
    """Refuse what is not an argument of the model, and what would make it larger than `size` numbers."""
    own = inspect.signature(WaveMix).parameters
    for key in model_args:
        if key in FACTORY_ARGS or (is_own(name) and key not in own):
            raise ValueError(f"'{key}' is not an argument of {name}")

    def check_int(digits: str) -> None:
        if int(digits) > size:
            raise ValueError(f'an argument is {digits}, and the file holds {size:,} numbers')

    json.loads(json.dumps(model_args), parse_int=check_int)


def _fit(state_dict: Dict[str, Any], model: nn.Module) -> Dict[str, torch.Tensor]:
    """The tensors by the names of the model, all of which the model can hold as they are."""
    own = model.state_dict()
    given = checkpoint_filter_fn(state_dict, model) if isinstance(model, WaveMix) else clean_state_dict(state_dict)
    misfits = [k for k in {**own, **given} if k not in own or getattr(given.get(k), 'shape', None) != own[k].shape]
    if misfits:
        raise ValueError(f'{len(misfits)} keys or shapes differ, first {", ".join(misfits[:3])}')
    for name, tensor in given.items():
        exact, dtype = tensor.dtype == own[name].dtype, own[name].dtype
        if tensor.is_floating_point() and dtype.is_floating_point:
            if not tensor.double().isfinite().all():
                raise ValueError(f'{name} is not finite, take a checkpoint from before the training diverged')
            exact = torch.equal(tensor.double(), tensor.to(dtype).double())  # double holds all other types exactly
        if not exact:
            raise ValueError(f'{name} is {tensor.dtype}, which {dtype} cannot hold exactly')
    return given


def read_weights(path: Path) -> Any:
    """Read a file of weights, or the one of a folder; runs no code that it may hold.

    Raises:
        OSError, ValueError: It is not there or cannot be read; it is empty or damaged, or would run code.
    """
    candidates = [path / name for name in WEIGHT_FILES] if path.is_dir() else [path]
    file = next((file for file in candidates if file.is_file()), candidates[0])
    if not file.stat().st_size:
        raise ValueError(f"'{file}' is empty: write or fetch it again.")
    try:
        if file.suffix == '.safetensors':
            return load_file(file)
        with torch.serialization.safe_globals([argparse.Namespace]):  # of timm's train.py
            return torch.load(file, map_location='cpu', weights_only=True)
    except Exception as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which torch gets from a file cut off
            raise
        if code := re.search(r'GLOBAL (\S+)', str(error)):
            fault = f'would run code ({code[1]}) and was not read: save the weights alone'
        elif cached := re.search('/models--(.+?)--(.+)/snapshots/', file.as_posix()):
            fault = f'is damaged: remove it with `hf cache rm model/{cached[1]}/{cached[2]}`'
        else:
            fault = f'is not a file of weights, or is damaged ({type(error).__name__}): name another, or write it again'
        raise ValueError(f"'{file}' {fault}.") from error


@contextmanager
def blame(what: str) -> Iterator[None]:
    """Say that `what` is at fault, whatever a library makes of bad input; the system's errors stay what they are."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if number := re.search(r'\(os error (\d+)\)', str(error)):  # safetensors has errors of its own
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise ValueError(f'{what}: {one_line(error)}.') from error


def one_line(error: BaseException) -> str:
    """The text of an error on one line, without a full stop."""
    return ' '.join(str(error).split()).rstrip('.') or type(error).__name__
