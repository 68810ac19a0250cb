"""Publish a model of this package on the Hugging Face Hub: load it, write its files, send them, read them back.

What is sent: model.safetensors, timm's config.json, a model card (README.md) and, of a checkpoint, the arguments of
its training (train_hparams.yaml), in one commit that replaces these files and leaves the rest of the repository as it
is. Then every one of them is read back and compared with what was sent.
"""
import argparse
import errno
import hashlib
import importlib.util
import json
import os
import re
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, cast
from urllib.parse import quote, urlsplit

import timm
import torch
import yaml
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
    hf_hub_download,
)
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import (
    HFValidationError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
    build_hf_headers,
    disable_progress_bars,
    get_session,
    hf_raise_for_status,
    validate_repo_id,
)
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_transform, resolve_data_config, resolve_model_data_config
from timm.models import clean_state_dict, model_entrypoint
from timm.models._helpers import _torch_load
from timm.models._hub import load_state_dict_from_path, save_for_hf
from torch import nn

from .cards import (
    IMAGE_MODES,
    check_card,
    config_of,
    hub_configs,
    label_list,
    make_card,
    read_metadata,
    registered_cfg,
)
from .wavemix import IsotropicNet, checkpoint_filter_fn

CONFIG_ENTRIES = {  # of timm's config.json
    'architecture', 'num_classes', 'num_features', 'global_pool', 'label_names', 'label_descriptions', 'model_args',
    'pretrained_cfg'}
HPARAMS = 'train_hparams.yaml'  # as timm's own repositories have it
PLACES = (  # arguments of train.py that tell where it ran, not how
    'data', 'data_dir', 'output', 'resume', 'initial_checkpoint', 'pretrained_path', 'config', 'device', 'local_rank',
    'rank', 'world_size', 'distributed')
XET_TIMEOUT = 10  # seconds
SYSTEM_ERRORS = errno.ENOENT, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOSPC, errno.EDQUOT  # no fault of a file
NOTHING_SENT = 'nothing was sent.'
SLOW_UPLOAD = 20  # seconds after which a transfer by Xet is told of
WAITS = 0, 2, 4  # seconds before each look for a commit whose answer was lost: a slow server may still make it


class DiffersError(RuntimeError):
    """What the Hub has is not what was sent."""


class Source(NamedTuple):
    """What is to be published.

    Attributes:
        model: The model, whose `pretrained_cfg` has the preprocessing of its training.
        tensors: The weights as they are in the source's file, by the names of the model.
        model_args: Arguments that build the model.
        hparams: The arguments of its training, if they are known.
    """
    model: nn.Module
    tensors: Dict[str, torch.Tensor]
    model_args: Dict[str, Any]
    hparams: Dict[str, Any]


@dataclass(frozen=True)
class Publication:
    """A commit on the Hub, with the link to it, or to its pull request."""
    oid: str
    url: str


# Load


@contextmanager
def _blame(what: str) -> Iterator[None]:
    """Say `what` is at fault, whatever a reader makes of broken input, in one sentence."""
    try:
        yield
    except Exception as error:
        if getattr(error, 'errno', None) in SYSTEM_ERRORS:
            raise
        if f'os error {errno.ENOSPC}' in str(error):  # safetensors has errors of its own
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        raise ValueError(f'{what}: {_reason(error)}') from error


def _is_name(source: str) -> bool:
    """Whether it is the name of a model, not a path.

    Raises:
        ValueError: It is both.
    """
    if not timm.is_model(source):
        return False
    if Path(source).exists():
        raise ValueError(
            f"'{source}' is a model and a path here: write './{source}' for the path, or run this in another "
            'folder for the model.')
    return True


def load_source(source: str, use_ema: bool = False, weights: Optional[Path] = None) -> Source:
    """Load what is to be published.

    Args:
        source: Name of a registered model with weights, a checkpoint of timm's train.py, or a folder of
            `timm.models.save_for_hf`.
        use_ema: Take the EMA weights of a checkpoint.
        weights: File of the weights of a name, in place of the package's or the Hub's.

    Raises:
        OSError: There is no such file, or it cannot be read.
        ValueError: `source` is none of the three or two of them, or not of a model of this package, its weights are
            damaged, a pickle that would run code, not of this model or not finite, or it has none of the kind asked
            for.
    """
    if _is_name(source):
        loaded = _load_name(source, weights)
    elif Path(source).is_dir():
        loaded = _load_folder(Path(source))
    elif Path(source).is_file():
        loaded = _load_checkpoint(Path(source), use_ema)
        architecture = config_of(loaded.model)['architecture']
        _check_architecture(architecture, f"The model '{architecture}' of '{source}'")
    else:
        raise ValueError(
            f"'{source}' is no model, file or folder: give a name of timm.list_models('wavemix*', pretrained=True), "
            "a checkpoint of train.py or a folder of timm.models.save_for_hf.")
    _check_runs(loaded.model, source)
    return loaded


def load_checkpoint(file: Path, use_ema: bool = False) -> nn.Module:
    """Load a checkpoint of timm's train.py, of any architecture that is registered.

    Args:
        file: The checkpoint.
        use_ema: Take its EMA weights.

    Returns:
        The model, whose `pretrained_cfg` has the preprocessing of its training.

    Raises:
        OSError: There is no such file, or it cannot be read.
        ValueError: It is no checkpoint of train.py or damaged, or has no weights of the kind asked for.
    """
    return _load_checkpoint(file, use_ema).model


def _load_name(name: str, weights: Optional[Path]) -> Source:
    _check_architecture(name, f"'{name}'")
    cfg = registered_cfg(name)
    if not cfg.has_weights:
        raise ValueError(f"'{name}' has no weights: train it and push the checkpoint.")
    # the package's file goes before the Hub's, wherever TIMM_WAVEMIX_HUB_ORG points
    file = weights or (Path(cfg.file) if cfg.file else fetch_weights(name))
    return _fill(timm.create_model(name), _read_weights(file), name)


def fetch_weights(name: str) -> Path:
    """Download the weights of a registered model that the Hub has, into huggingface_hub's cache.

    Raises:
        ValueError: They cannot be had.
    """
    cfg = registered_cfg(name)
    repo_id = str(cfg.hf_hub_id)
    try:
        return Path(hf_hub_download(repo_id, str(cfg.hf_hub_filename)))
    except Exception as error:
        raise ValueError(f"The weights of '{name}' could not be fetched: {explain(error, repo_id)}") from error


def _load_folder(folder: Path) -> Source:
    config = _read_config(folder)
    _check_architecture(
        config['architecture'], f"The config.json of '{folder}' names the architecture '{config['architecture']}', it")
    with _blame(f"The config.json of '{folder}' gives no model, write it with timm.models.save_for_hf"):
        model = timm.create_model(f'local-dir:{folder}')
    # timm builds by model_args alone, and would give another model than the one that was trained
    built = {key: getattr(model, key, None) for key in ('num_classes', 'num_features')}
    if isinstance(model, IsotropicNet):
        built['global_pool'] = model.head.global_pool.pool_type
    for key, value in built.items():
        if config.get(key, value) != value:
            raise ValueError(
                f"The config.json of '{folder}' says {key} {config[key]} and builds a model of {value}: write the "
                'folder with timm.models.save_for_hf, with the arguments of the model as model_args.')
    return _fill(model, _read_weights(folder), folder, config.get('model_args') or {})


def _load_checkpoint(file: Path, use_ema: bool) -> Source:
    checkpoint = _read_weights(file)
    args = checkpoint.get('args') if isinstance(checkpoint, dict) else None
    args = vars(args) if isinstance(args, argparse.Namespace) else args
    if not isinstance(args, dict) or not isinstance(args.get('model'), str) or 'state_dict' not in checkpoint:
        raise ValueError(
            f"'{file}' lacks weights or the arguments of its training: give a checkpoint of timm's train.py, or a "
            'folder of timm.models.save_for_hf.')
    if use_ema and 'state_dict_ema' not in checkpoint:
        raise ValueError(f"'{file}' has no EMA weights: leave out --use-ema, or train with --model-ema.")

    # as train.py builds the model; older ones had neither of these arguments
    with _blame(f"The arguments of the training in '{file}' give no model"):
        model_args = dict(args.get('model_kwargs') or {}, global_pool=args.get('gp'))
        model_args = {k: v for k, v in model_args.items() if v is not None}
        model = timm.create_model(
            args['model'],
            in_chans=args.get('in_chans') or (args.get('input_size') or [3])[0],
            num_classes=args.get('num_classes'),
            pretrained_cfg_overlay=dict(tag=None, label_names=None, license=None),  # those of other weights
            **model_args,
        )
        config_of(model).update(
            resolve_data_config(args, model=model), num_classes=model.num_classes, pool_size=None)
    return _fill(model, checkpoint['state_dict_ema' if use_ema else 'state_dict'], file, model_args, args)


def _check_architecture(name: str, what: str) -> None:
    if not timm.is_model(name) or model_entrypoint(name).__module__.partition('.')[0] != __package__:
        raise ValueError(
            f'{what} is no model of this version of timm_wavemix: import a timm_wavemix that has it, or push other '
            'models with timm.models.push_to_hf_hub.')


def _read_config(folder: Path) -> Dict[str, Any]:
    file = folder / 'config.json'
    if not file.is_file():
        raise ValueError(f"'{folder}' has no config.json: write the folder with timm.models.save_for_hf.")
    with _blame(f"The config.json of '{folder}' is no JSON in UTF-8, write it with timm.models.save_for_hf"):
        config = json.loads(file.read_text(encoding='utf-8'))
    if not isinstance(config, dict) or not isinstance(config.get('architecture'), str):
        raise ValueError(
            f"The config.json of '{folder}' has no 'architecture': write the folder with timm.models.save_for_hf.")
    unknown = config.keys() - CONFIG_ENTRIES
    if unknown and 'pretrained_cfg' in config:  # in the form of older timm all entries are those of pretrained_cfg
        raise ValueError(
            f"'{min(unknown)}' in the config.json of '{folder}' is no entry that timm knows: correct its name, or take "
            'it out.')
    for key in 'pretrained_cfg', 'model_args', 'label_descriptions':
        if not isinstance(config.get(key, {}), dict):
            raise ValueError(
                f"'{key}' in the config.json of '{folder}' is no mapping: write it with timm.models.save_for_hf.")
    return config


def _read_weights(path: Path) -> Any:
    """The content of a file of weights, or of the one in a folder that timm takes, read without running code."""
    with _blame(
            f"The weights of '{path}' cannot be read, their file is damaged or could run code, so write it again with "
            'torch 2.5 or newer'):
        if path.is_dir():
            return load_state_dict_from_path(path)
        if path.suffix == '.safetensors':
            return load_file(path)
        return _torch_load(str(path), weights_only=True)


def _fill(
        model: nn.Module,
        state_dict: Any,
        source: Any,
        model_args: Optional[Dict[str, Any]] = None,
        hparams: Optional[Dict[str, Any]] = None,
) -> Source:
    """Load all weights as they are: timm would adapt those of other classes or channels, and make up a classifier."""
    with _blame(f"The weights of '{source}' do not fit its model"):
        tensors = checkpoint_filter_fn(clean_state_dict(state_dict), model)
        model.load_state_dict(tensors)
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(
                f"The weights of '{source}' are not all finite, first in {name}: take a checkpoint from before the "
                'training diverged.')
    return Source(model.eval(), tensors, model_args or {}, hparams or {})


def _check_runs(model: nn.Module, source: str) -> None:
    """Classify a black image as the card tells to, which finds preprocessing that does not go with the model."""
    if not isinstance(model, IsotropicNet) or model.num_classes < 1:
        raise ValueError(f"'{source}' has no classifier: push the model with its head.")
    with _blame(f"The model of '{source}' classifies no image, correct input_size, mean, std and so on in its config"):
        channels, height, width = config_of(model)['input_size']
        if channels in IMAGE_MODES:
            transform = create_transform(**resolve_model_data_config(model))
            image = transform(Image.new(IMAGE_MODES[channels], (width, height)))
        else:
            image = torch.zeros(channels, height, width)
        with torch.inference_mode():
            if not model(image.unsqueeze(0)).isfinite().all():
                raise ValueError('its logits are not finite')


# Write the files


def build(
        source: str,
        repo_id: str,
        folder: Path,
        use_ema: bool = False,
        config: Optional[Path] = None,
        weights: Optional[Path] = None,
) -> List[str]:
    """Write the files of a repository, and check that timm gets from them what the source's file holds.

    Args:
        source, use_ema, weights: As of `load_source`.
        repo_id: Repository that the files are for.
        folder: Where to write them.
        config: YAML file with what the model can't know. The default is that of hub_configs/ if `source` is a name.

    Returns:
        The names of the files.

    Raises:
        OSError, ValueError: As `load_source` and `read_metadata`, or the files cannot be written or do not give the
            same model.
    """
    if config is None and _is_name(source):
        published = hub_configs() / f'{_full_name(source)}.yaml'
        config = published if published.exists() else None
    metadata = read_metadata(config) if config else {}
    loaded = load_source(source, use_ema, weights)
    model = cast(IsotropicNet, loaded.model)  # as load_source has checked
    names = _label_names(model, metadata, source, config)
    config_of(model).pop('label_names', None)  # save_for_hf would write them twice
    with _blame(f"The files of '{source}' cannot be written"):
        save_for_hf(
            model, str(folder), model_config=dict(label_names=names), model_args=loaded.model_args,
            safe_serialization=True)
        _tidy_config(folder / 'config.json')
    config_of(model)['label_names'] = names
    _check_same(loaded, folder, source)

    card = Path(source) / 'README.md'
    if card.is_file():  # somebody wrote it
        with _blame(f"The README.md of '{source}' is not fit to be sent, correct it"):
            check_card(card.read_text(encoding='utf-8'))
        (folder / 'README.md').write_bytes(card.read_bytes())
    else:
        make_card(model, repo_id, metadata).save(folder / 'README.md')
    if loaded.hparams:
        (folder / HPARAMS).write_text(_hparams_yaml(loaded.hparams), encoding='utf-8')
    return sorted(path.name for path in folder.iterdir())


def _full_name(name: str) -> str:
    """Name with tag."""
    cfg = registered_cfg(name)
    return f'{cfg.architecture}.{cfg.tag}'


def _label_names(
        model: IsotropicNet, metadata: Dict[str, Any], source: str, config: Optional[Path]) -> Optional[List[str]]:
    given = metadata.get('label_names')
    if given and len(given) != model.num_classes:
        raise ValueError(f'{config} has {len(given)} label_names, the model {model.num_classes} classes: name all.')
    own = config_of(model).get('label_names')
    if given or not own:
        return given
    with _blame(f"The names of the classes of '{source}' are not right"):
        own = label_list(own)
    return own if len(own) == model.num_classes else None  # timm before 1.0.31 saves those of the fine-tuned weights


def _tidy_config(file: Path) -> None:
    """Leave out of the arguments what config.json says elsewhere: transformers passes both, and fails."""
    config = json.loads(file.read_text(encoding='utf-8'))
    config.get('model_args', {}).pop('num_classes', None)
    file.write_text(json.dumps(config, indent=2), encoding='utf-8')


def _hparams_yaml(args: Dict[str, Any]) -> str:
    """The arguments of a training, without those that tell of the machine or the account that it ran on."""
    kept = {
        key: value for key, value in sorted(args.items())
        if key not in PLACES and not key.startswith('wandb') and not _names_a_place(value)}
    return yaml.safe_dump(json.loads(json.dumps(kept, default=str)))


def _names_a_place(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_names_a_place, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_names_a_place, value))
    return isinstance(value, str) and (':/' in value or '\\' in value or value.startswith(('/', '~', '.')))


def _check_same(loaded: Source, folder: Path, source: str) -> None:
    """Whether the files hold the tensors of the source's file, and give a model with the same logits, bit for bit."""
    with _blame(f"The saved files of '{source}' give no model"):
        saved = load_file(folder / 'model.safetensors')
        again = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
        reloaded = again.state_dict()
        images = torch.randn(2, *config_of(loaded.model)['input_size'], generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            same = torch.equal(loaded.model(images), again(images))
    tensors = {name: tensor.to(saved[name].dtype) for name, tensor in loaded.tensors.items() if name in saved}
    same = same and tensors.keys() == loaded.tensors.keys() == saved.keys() == reloaded.keys()
    if not same or not all(
            torch.equal(tensor, saved[name]) and torch.equal(tensor, reloaded[name])
            for name, tensor in tensors.items()):
        raise ValueError(
            f"The saved files of '{source}' do not give the same model: build it with timm.create_model from arguments "
            'that JSON can hold.')


# Send


def upload(
        folder: Path,
        repo_id: str,
        private: bool = False,
        revision: Optional[str] = None,
        create_pr: bool = False,
) -> Publication:
    """Send the files of `build` in one commit, and find out whether it was made if its answer is lost.

    Args:
        folder: Where the files are.
        repo_id: Repository, which is created if it does not exist.
        private: Create it private.
        revision: Branch to commit to, which is created if it does not exist. The default is main.
        create_pr: Open a pull request with the commit instead, unless main or an open one has the same content.

    Raises:
        RuntimeError: The commit was not made, or it is not known whether it was.
        KeyboardInterrupt: The user broke off; the text says whether the commit was made.
    """
    api = HfApi(library_name='timm_wavemix')
    hashes = _hashes(folder)
    missing: List[str] = []  # what is not there before this run
    try:
        head = _prepare(api, repo_id, private, revision, missing)
        there = _published(api, repo_id, revision, create_pr, hashes)
        if there:
            print(f'There already, nothing was sent: {there.url}')
            return there
        files: List[Any] = [CommitOperationAdd(name, folder / name) for name in hashes]
        if _uses_xet():
            _check_xet(api, repo_id, revision, create_pr)
        with _tell_of_slow_xet():
            # apart from the commit, so that what the server would leave out is known before
            api.preupload_lfs_files(repo_id, files, revision=revision, create_pr=create_pr, free_memory=False)
        _check_ignored(files, repo_id)
        if HPARAMS in set(_differing(head, hashes)) - hashes.keys():
            files.append(CommitOperationDelete(HPARAMS))
    except (Exception, KeyboardInterrupt) as error:
        left = _left(api, repo_id, revision, missing)
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f'nothing was published.{left}') from error
        raise RuntimeError(f'Nothing was published: {explain(error, repo_id)}{left}') from error
    try:
        # not upload_folder, which may make several commits. The parent keeps files of two pushes at once from mixing.
        commit = api.create_commit(
            repo_id,
            files,
            commit_message=_title(repo_id),
            revision=revision,
            create_pr=create_pr,
            parent_commit=head.sha,
        )
        return Publication(commit.oid, commit.pr_url or commit.commit_url)
    except (Exception, KeyboardInterrupt) as error:
        if _refused(error):
            left = _left(api, repo_id, revision, missing)
            raise RuntimeError(f'Nothing was published: {explain(error, repo_id)}{left}') from error
        return _find_out(error, api, repo_id, revision, create_pr, hashes, head.sha, missing)


def _title(repo_id: str) -> str:
    return f'Push {repo_id.rpartition("/")[2]} with timm_wavemix'


def _prepare(
        api: HfApi, repo_id: str, private: bool, revision: Optional[str], missing: List[str]) -> ModelInfo:
    """Create the repository and the branch if they are not there, and give the state of the branch."""
    if not api.repo_exists(repo_id):
        missing.append('repository')
        if private:
            api.create_repo(repo_id, private=True)
        else:  # as is the owner's default
            api.create_repo(repo_id)
    if revision and not _has_branch(api, repo_id, revision):
        missing.append('branch')
        api.create_branch(repo_id, branch=revision)
    head = api.model_info(repo_id, revision=revision, files_metadata=True)
    if private and not head.private:
        raise ValueError(f'{repo_id} exists and is public: make it private in its settings, or push without --private.')
    return head


def _has_branch(api: HfApi, repo_id: str, revision: str) -> bool:
    try:
        api.model_info(repo_id, revision=revision)
    except RevisionNotFoundError:
        return False
    return True


def _left(api: HfApi, repo_id: str, revision: Optional[str], missing: List[str]) -> str:
    """A sentence on what a push that failed has left on the Hub."""
    try:
        if 'repository' in missing and api.repo_exists(repo_id):
            return f' It leaves the empty repository {repo_id}, which a second run fills.'
        if revision and missing == ['branch'] and _has_branch(api, repo_id, revision):
            return f" It leaves the branch '{revision}' of {repo_id}, a copy of main, which a second run fills."
    except Exception:
        return f' It may leave an empty {missing[-1]} in {repo_id}, which a second run fills.'
    return ''


def _check_xet(api: HfApi, repo_id: str, revision: Optional[str], create_pr: bool) -> None:
    """Ask for what hf_xet needs: where it is missing, hf_xet tries for minutes, in silence and deaf to Ctrl-C."""
    token = get_session().get(
        f'{api.endpoint}/api/models/{repo_id}/xet-write-token/{quote(revision or "main", safe="")}',
        headers=build_hf_headers(),
        params={'create_pr': '1'} if create_pr else None,
        timeout=XET_TIMEOUT,
    )
    hf_raise_for_status(token)
    storage = token.json()['casUrl']
    try:
        get_session().head(storage, timeout=XET_TIMEOUT)
    except Exception as error:
        raise RuntimeError(
            f'the storage of Xet at {storage} cannot be reached ({_reason(error)}): set HF_HUB_DISABLE_XET=1 to do '
            'without it.') from None


@contextmanager
def _tell_of_slow_xet() -> Iterator[None]:
    """Break the silence of hf_xet."""
    hint = threading.Timer(SLOW_UPLOAD, lambda: print(
        f'The transfer by Xet has taken {SLOW_UPLOAD} seconds so far: if nothing moves, stop it and start it again '
        'with HF_HUB_DISABLE_XET=1.', file=sys.stderr))
    hint.daemon = True
    if _uses_xet():
        hint.start()
    try:
        yield
    finally:
        hint.cancel()


def _uses_xet() -> bool:
    # huggingface_hub of before Xet has no such constant
    disabled = getattr(constants, 'HF_HUB_DISABLE_XET', True)
    return not disabled and importlib.util.find_spec('hf_xet') is not None


def _check_ignored(files: List[CommitOperationAdd], repo_id: str) -> None:
    ignored = [file.path_in_repo for file in files if file._should_ignore]
    if ignored:
        raise ValueError(
            f"the .gitignore in {repo_id} keeps {' and '.join(ignored)} out of commits: take its rules for them out.")


def _hashes(folder: Path) -> Dict[str, Tuple[str, str]]:
    """By name of each file, its hashes as a blob of git and as an object of LFS: the Hub has one of them."""
    hashes = {}
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        blob = hashlib.sha1(b'blob %d\0' % len(content) + content)
        hashes[path.name] = blob.hexdigest(), hashlib.sha256(content).hexdigest()
    return hashes


def _differing(info: ModelInfo, hashes: Dict[str, Tuple[str, str]]) -> List[str]:
    """The names of the files that a revision lacks, or has otherwise, such as the arguments of another training."""
    there = {
        file.rfilename: file.lfs['sha256'] if file.lfs else file.blob_id for file in info.siblings or []}
    differing = [name for name, known in hashes.items() if there.get(name) not in known]
    return differing + [HPARAMS] * (HPARAMS in there.keys() - hashes.keys())


def _published(
        api: HfApi,
        repo_id: str,
        revision: Optional[str],
        create_pr: bool,
        hashes: Dict[str, Tuple[str, str]],
        parent: Optional[str] = None,
) -> Optional[Publication]:
    """The commit or the open pull request that has this content.

    A commit is looked for at the head of the branch, or if `parent` is given, among all that came after it: others may
    have made one on top.
    """
    commits = [revision or 'main']
    if parent:
        history = (commit.commit_id for commit in api.list_repo_commits(repo_id, revision=revision))
        commits = list(takewhile(lambda oid: oid != parent, history))
    pull_requests = [
        discussion.num for discussion in (api.get_repo_discussions(repo_id) if create_pr else [])
        if discussion.is_pull_request and discussion.status == 'open' and discussion.title == _title(repo_id)]
    for place in [*commits, *pull_requests]:
        info = api.model_info(
            repo_id, revision=place if isinstance(place, str) else f'refs/pr/{place}', files_metadata=True)
        if info.sha and not _differing(info, hashes):
            path = f'commit/{info.sha}' if isinstance(place, str) else f'discussions/{place}'
            return Publication(info.sha, f'{api.endpoint}/{repo_id}/{path}')
    return None


def _refused(error: BaseException) -> bool:
    """Whether the server said no, after which there is no commit."""
    status = _status(error)
    return status is not None and 400 <= status < 500 and status != 408


def _find_out(
        error: BaseException,
        api: HfApi,
        repo_id: str,
        revision: Optional[str],
        create_pr: bool,
        hashes: Dict[str, Tuple[str, str]],
        parent: Optional[str],
        missing: List[str],
) -> Publication:
    """Look for a commit whose answer was lost.

    Raises:
        RuntimeError, KeyboardInterrupt: As `upload`, for the error after which nothing is known.
    """
    interrupted = isinstance(error, KeyboardInterrupt)
    failure: Callable[[str], BaseException] = KeyboardInterrupt if interrupted else RuntimeError
    why = '' if interrupted else f': {explain(error, repo_id)}'
    there = None
    try:
        for wait in WAITS:
            time.sleep(wait)
            there = _published(api, repo_id, revision, create_pr, hashes, parent)
            if there:
                break
    except (Exception, KeyboardInterrupt) as unknown:
        raise failure(
            f'It is not known whether {repo_id} got the commit, look at its history and repeat this command with '
            f'--verify{why}') from unknown
    where = 'no pull request' if create_pr else f"'{revision or 'main'}' does not have it"
    if there is None:
        asked = f'{repo_id} has {where} of this content' if create_pr else f'in {repo_id}, {where}'
        raise failure(
            f'Nothing was published, {asked}{why or "."}{_left(api, repo_id, revision, missing)}') from error
    if interrupted:
        raise KeyboardInterrupt(f'{there.url} was published, but not read back. {_verify_hint(there, create_pr)}')
    print(f'The answer to the commit was lost, but it was made: {there.url}')
    return there


# Read back


def read_back(folder: Path, repo_id: str, revision: str) -> None:
    """Download the files of a revision, past the cache, and compare them with those that were sent, byte for byte.

    Raises:
        DiffersError: It has others.
        Exception: Whatever huggingface_hub or its HTTP library raises.
    """
    hashes = _hashes(folder)
    info = HfApi(library_name='timm_wavemix').model_info(repo_id, revision=revision, files_metadata=True)
    differing = _differing(info, hashes)
    if not differing:
        with TemporaryDirectory() as cache_dir:
            for name in hashes:
                got = hf_hub_download(repo_id, name, revision=info.sha, cache_dir=cache_dir)
                if Path(got).read_bytes() != (folder / name).read_bytes():
                    differing.append(name)
    if differing:
        verb = 'is' if len(differing) == 1 else 'are'
        raise DiffersError(f"{' and '.join(differing)} {verb} missing or different there")


def _verify_hint(publication: Publication, create_pr: bool) -> str:
    place = ' in place of --create-pr' if create_pr else ''
    return f'Check it by the same command with --verify --revision {publication.oid}{place}.'


def push(
        source: str,
        repo_id: str,
        use_ema: bool = False,
        config: Optional[Path] = None,
        private: bool = False,
        revision: Optional[str] = None,
        create_pr: bool = False,
        collection: Optional[str] = None,
        dry_run: bool = False,
) -> None:
    """Write the files, show them, send them, and read them back.

    Args:
        source, use_ema, config: As of `build`.
        repo_id, private, revision, create_pr: As of `upload`.
        collection: Title of a collection of the repository's owner to add it to, created if it does not exist.
        dry_run: Show the whole text of the files and send nothing.

    Raises:
        OSError, ValueError: As `build`.
        RuntimeError: The Hub cannot be reached or refuses, or what it gives back is not what was sent.
        KeyboardInterrupt: As `upload`.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = build(source, repo_id, folder, use_ema, config)
        print(f'{source} to {repo_id}:')
        for name in names:
            print(f'  {name:<18}{(folder / name).stat().st_size:>14,} bytes')
        if dry_run:
            for name in names:
                if name != 'model.safetensors':
                    print(f"\n{name}:\n{(folder / name).read_text(encoding='utf-8')}")
            print('Nothing was sent.')
            return
        publication = upload(folder, repo_id, private, revision, create_pr)
        _check_published(folder, repo_id, publication, create_pr)
    if collection:
        _collect(repo_id, collection, private)
    print(f'Done, read back and found the same: {publication.url}')


def _check_published(folder: Path, repo_id: str, publication: Publication, create_pr: bool) -> None:
    hint = _verify_hint(publication, create_pr)
    try:
        read_back(folder, repo_id, publication.oid)
    except DiffersError as error:
        raise RuntimeError(f'{publication.url} was published, but {error}: push it again.') from error
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f'{publication.url} was published, but not read back. {hint}') from error
    except Exception as error:
        raise RuntimeError(
            f'{publication.url} was published and stands, it only could not be read back: {explain(error, repo_id)} '
            f'{hint}') from error


def _collect(repo_id: str, title: str, private: bool) -> None:
    api = HfApi(library_name='timm_wavemix')
    try:
        collection = api.create_collection(
            title, namespace=repo_id.partition('/')[0], private=private, exists_ok=True)
        api.add_collection_item(collection.slug, repo_id, 'model', exists_ok=True)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"{repo_id} was published, but may not be in the collection '{title}'.") from error
    except Exception as error:
        raise RuntimeError(
            f"{repo_id} was published, but is not in the collection '{title}': {explain(error, repo_id)}") from error


def push_all(org: str, private: bool = False, collection: Optional[str] = None, dry_run: bool = False) -> None:
    """Push every weight that comes with the package to `org/<model.tag>`; those that are there already are only read.

    Raises:
        OSError, RuntimeError, ValueError, KeyboardInterrupt: As `push`, for the first that fails.
    """
    names, done = packaged_weights(), 0
    try:
        for name in names:
            push(name, f'{org}/{name}', private=private, collection=collection, dry_run=dry_run)
            done += not dry_run
    except (RuntimeError, KeyboardInterrupt) as error:
        raise type(error)(
            f'{done} of {len(names)} are published, run it again to go on: {str(error) or NOTHING_SENT}') from error


def packaged_weights() -> List[str]:
    """The models with tags whose weights come with the package."""
    names = [name for module in ('wavemix', 'mixers') for name in timm.list_models(module=module, pretrained=True)]
    return [name for name in names if registered_cfg(name).file]


def verify(
        source: str,
        repo_id: str,
        use_ema: bool = False,
        config: Optional[Path] = None,
        revision: Optional[str] = None,
) -> None:
    """Write the files as `push` does, send nothing, and compare them with what a revision has.

    Args:
        source, use_ema, config: As of `build`.
        repo_id: Repository.
        revision: Branch, pull request (`refs/pr/1`) or commit. The default is main.

    Raises:
        OSError, ValueError: As `build`.
        RuntimeError: The revision has other files, or cannot be read.
    """
    at = f"{repo_id} at '{revision or 'main'}'"
    with TemporaryDirectory() as temporary:
        build(source, repo_id, Path(temporary), use_ema, config)
        try:
            read_back(Path(temporary), repo_id, revision or 'main')
        except DiffersError as error:
            raise RuntimeError(f'{at} is not {source}, {error}: push it again.') from error
        except Exception as error:
            raise RuntimeError(f'{at} could not be read: {explain(error, repo_id)}') from error
    print(f'{at} is the same as {source}.')


# Tell what failed


def _status(error: BaseException) -> Optional[int]:
    response = _response(error)
    return None if response is None else response.status_code


def _response(error: Optional[BaseException]) -> Any:
    while error is not None:
        response = getattr(error, 'response', None)
        if response is not None:
            return response
        error = error.__cause__
    return None


def _reason(error: BaseException) -> str:
    """The text of an error on one line, without the token, which a server or a proxy may quote."""
    reason = ' '.join(str(error).split()) or type(error).__name__
    token = get_token()
    return reason.replace(token, '***') if token else reason


def explain(error: BaseException, repo_id: str) -> str:
    """One sentence that names who failed and the fix, for an error of huggingface_hub, of its HTTP library, or ours."""
    response = _response(error)
    if response is not None:
        return _explain_response(response, repo_id, error)
    while error.__cause__ is not None:
        error = error.__cause__
    reason, kind = _reason(error), type(error).__name__
    if getattr(error, 'errno', None) == errno.ENOSPC:
        return f'the disk of this machine is full ({reason}): free some space, or set TMPDIR to a folder elsewhere.'
    if isinstance(error, json.JSONDecodeError) or kind in ('JSONDecodeError', 'FileMetadataError'):
        return (
            f'what answers for {HfApi().endpoint} is not the Hub but a page, such as the login page of a network: open '
            'it in a browser, then run it again.')
    if isinstance(error, (KeyError, TypeError)):
        return f"the Hub's answer lacks what it should have ({reason}): run it again later."
    if kind == 'ProxyError':
        return f'the proxy does not let you through to the Hub ({reason}): check HTTPS_PROXY.'
    if 'HF_HUB_DISABLE_XET' not in reason and re.search('xet|xorb', reason, re.IGNORECASE):
        return f'the transfer by Xet failed ({reason}): set HF_HUB_DISABLE_XET=1 to do without it.'
    if isinstance(error, (OfflineModeIsEnabled, RuntimeError, ValueError)):
        return reason
    return f'{reason.rstrip(".")}: check the network, and HF_ENDPOINT if it is set.'


def _explain_response(response: Any, repo_id: str, error: BaseException) -> str:
    """What an HTTP status means depends on who sends it: the Hub, its storage, a proxy, or the page of a network."""
    status, url = response.status_code, urlsplit(str(response.request.url))
    is_page = 'text/html' in response.headers.get('content-type', '')
    if status == 511 or status < 400:
        return (
            f'the network wants a login before it lets you through to {url.netloc} (HTTP status {status}): open a page '
            'in a browser, then run it again.')
    if status == 407:
        return 'the proxy wants a login (HTTP status 407): put it into HTTPS_PROXY.'
    if is_page and status < 500 and status != 429:
        return (
            f'a page of a proxy or firewall answers for {url.netloc} with HTTP status {status}: let it through there, '
            'or take another network.')
    if '/xet-' in url.path:
        return f'the Hub gives no access to Xet (HTTP status {status}): set HF_HUB_DISABLE_XET=1 to do without it.'
    if url.netloc != urlsplit(HfApi().endpoint).netloc:
        return _explain_status(f'the storage at {url.netloc}', status) or (
            f'the storage at {url.netloc} refuses with HTTP status {status}, as it does once a link to it has expired: '
            'run it again.')
    if url.path.endswith('/verify'):
        return f'the Hub could not confirm the upload of the weights (HTTP status {status}): run it again.'
    missing = {
        'RevisionNotFound': f'{repo_id} has no such revision: give a branch, a commit or refs/pr/NUMBER.',
        'EntryNotFound': f'{repo_id} has no such file ({url.path}): look at its files on the Hub.',
    }.get(response.headers.get('x-error-code', ''))
    may = 'read' if response.request.method in ('GET', 'HEAD') else 'write to'
    return missing or _explain_status('the Hub', status) or {
        401: 'the Hub does not know you: log in with `hf auth login`, or set HF_TOKEN to a valid token.',
        403: f'your token may not {may} {repo_id}: take one that may.',
        404: f'the Hub has no {repo_id}, or not for you: check the name, and the token with `hf auth whoami`.',
        409: f'{repo_id} changed meanwhile: run it again.',
        412: f'{repo_id} changed meanwhile: run it again.',
    }.get(status) or _reason(error)


def _explain_status(who: str, status: int) -> Optional[str]:
    if status == 429:
        return f'{who} limits your requests: run it again in some minutes.'
    if status >= 500 or status == 408:
        return f'{who} fails with HTTP status {status}: run it again later.'
    return None


# The command


def _parser(prog: Optional[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Publish a model of this package on the Hugging Face Hub: model.safetensors, config.json, a model '
                    "card, and a checkpoint's train_hparams.yaml, in one commit. They replace the files of these names "
                    'in the repository and leave the others. Then they are read back and compared with what was sent.',
        epilog='The token is the one of `hf auth login` or HF_TOKEN. Load the model with: import timm_wavemix; '
               "timm.create_model('hf-hub:ORG/NAME', pretrained=True)",
    )
    parser.add_argument(
        'source',
        nargs='?',
        metavar='NAME_OR_CHECKPOINT',
        help="model with weights, such as wavemix_16_5.fashion_mnist, a checkpoint of timm's train.py, or a folder of "
             'timm.models.save_for_hf, whose README.md is kept')
    parser.add_argument('--repo-id', metavar='ORG/NAME', help='repository, created if it does not exist')
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
    parser.add_argument(
        '--collection', metavar='TITLE', help='collection of ORG to add the repository to, created if need be')
    how = parser.add_mutually_exclusive_group()
    how.add_argument('--dry-run', action='store_true', help='check all, show what would be sent, and send nothing')
    how.add_argument(
        '--verify', action='store_true',
        help='send nothing, compare what the repository has at --revision, which may be a commit, with the source')
    parser.add_argument(
        '--all', action='store_true',
        help='push every weight of the package to ORG/<model.tag>; a second run goes on where the first one failed')
    parser.add_argument('--org', help='owner of the repositories of --all')
    return parser


def _check_usage(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.all:
        if not args.org:
            parser.error('--all needs --org ORG')
        given = [args.source, args.repo_id, args.use_ema, args.config, args.revision, args.create_pr, args.verify]
        if any(given):
            parser.error('--all goes with --org, --private, --collection and --dry-run only')
        args.repo_id = f'{args.org}/all'
    elif args.org:
        parser.error('--org goes with --all: write --repo-id ORG/NAME')
    elif not args.source or not args.repo_id:
        parser.error('the following arguments are required: NAME_OR_CHECKPOINT, --repo-id (or --all, --org)')
    try:
        validate_repo_id(args.repo_id)
    except HFValidationError as error:
        parser.error(f'--repo-id: {error}')
    if '/' not in args.repo_id:
        parser.error(f"--repo-id: '{args.repo_id}' has no owner: write ORG/{args.repo_id}.")
    for option in 'revision', 'collection':
        value = getattr(args, option)
        if value is not None and not value.strip():
            parser.error(f'--{option} is empty: name one, or leave it out.')
    if args.verify and (args.create_pr or args.private or args.collection):
        parser.error('--verify sends nothing: leave out --create-pr, --private and --collection.')


def main(argv: Optional[List[str]] = None, prog: Optional[str] = None) -> None:
    parser = _parser(prog)
    args = parser.parse_args(argv)
    _check_usage(parser, args)
    if not sys.stderr.isatty():
        disable_progress_bars()  # huggingface_hub itself does so only for some of its bars
    options = vars(args)
    org, everything, verify_only = options.pop('org'), options.pop('all'), options.pop('verify')
    try:
        if everything:
            push_all(org, args.private, args.collection, args.dry_run)
        elif verify_only:
            verify(args.source, args.repo_id, args.use_ema, args.config, args.revision)
        else:
            push(**options)
    except KeyboardInterrupt as interrupt:
        print(f'{parser.prog}: Broken off: {str(interrupt) or NOTHING_SENT}', file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        sys.exit(f'{parser.prog}: {explain(error, args.repo_id) if error.errno == errno.ENOSPC else _reason(error)}')
    except (RuntimeError, ValueError) as error:
        sys.exit(f'{parser.prog}: {_reason(error)}')
