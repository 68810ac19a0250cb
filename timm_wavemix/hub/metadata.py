"""What a model can't know about itself, as the YAML files of hub_configs/ have it."""
import re
import unicodedata
from pathlib import Path
from typing import Any, Dict, List

import yaml
from huggingface_hub.utils import HFValidationError, validate_repo_id

SECTIONS = 'dataset', 'weights', 'preprocessing', 'training', 'metrics', 'use'
RELATIONS = {  # of the Hub, with what the card says
    'adapter': 'Adapter for', 'finetune': 'Fine-tuned from', 'merge': 'Merged from', 'quantized': 'Quantized from'}
ENTRIES = 'base_model', 'base_model_relation', 'label_names', 'label_file'
NULLS = '', '~', 'null', 'Null', 'NULL'  # of YAML 1.1


class _Loader(yaml.BaseLoader):
    """Takes every value as text, as YAML would make truth values of names like yes and no, and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def hub_configs() -> Path:
    """The folder hub_configs/: the package's copy of it, in a checkout the folder itself."""
    package = Path(__file__).parents[1]
    return package / 'hub_configs' if (package / 'hub_configs').is_dir() else package.parent / 'hub_configs'


def read_metadata(file: Path) -> Dict[str, Any]:
    """Read and check a file like those of hub_configs/.

    Args:
        file: The file.

    Returns:
        Its sections, each a dict from entry to text, and its entries: `base_model` and `label_names` are lists.

    Raises:
        OSError: The file cannot be read.
        ValueError: It holds what a card cannot show.
    """
    try:
        metadata = yaml.load(file.read_text(encoding='utf-8'), _Loader)
        return _check(metadata, file.parent)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"'{file}': {' '.join(str(error).split())}") from error


def _check(metadata: Any, folder: Path) -> Dict[str, Any]:
    if metadata is None or metadata in NULLS:
        return {}
    if not isinstance(metadata, dict):
        raise ValueError('the file has no sections: write some like those of hub_configs/.')
    for key in metadata:
        if key not in SECTIONS + ENTRIES:
            raise ValueError(f"'{key}' is unknown: the sections and entries are {', '.join(SECTIONS + ENTRIES)}.")
    checked: Dict[str, Any] = {key: _section(key, metadata[key]) for key in SECTIONS if key in metadata}
    if 'base_model' in metadata:
        checked['base_model'] = _repo_ids(metadata['base_model'])
    if (relation := metadata.get('base_model_relation')) is not None:
        if not isinstance(relation, str) or relation not in RELATIONS:
            raise ValueError(f"base_model_relation is '{relation}': the Hub knows {', '.join(RELATIONS)}.")
        checked['base_model_relation'] = relation
    if 'label_file' in metadata:
        if 'label_names' in metadata or not isinstance(metadata['label_file'], str):
            raise ValueError('label_file is the name of one text file, and excludes label_names: keep one of them.')
        checked['label_names'] = read_labels(folder / metadata['label_file'])
    if 'label_names' in metadata:
        checked['label_names'] = label_list(metadata['label_names'])
    dataset, metrics = checked.get('dataset', {}), checked.get('metrics', {})
    if metrics and not dataset.get('name'):
        raise ValueError("there are metrics, but no name of their data set: add 'dataset: name:'.")
    for key in metrics.keys() & {'top1', 'top5'}:
        if not re.fullmatch(r'\d+(\.\d+)?', metrics[key]) or float(metrics[key]) > 100:
            raise ValueError(f"metrics: {key} is '{metrics[key]}': give a percentage from 0 to 100, or leave it out.")
    if 'hub_id' in dataset:
        _repo_ids(dataset['hub_id'])
    return checked


def _section(key: str, section: Any) -> Dict[str, str]:
    if isinstance(section, str) and section in NULLS:
        return {}
    if not isinstance(section, dict):
        raise ValueError(f"{key} has no entries: write them below it, as in '{key}: {{name: text}}'.")
    for name, value in section.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ValueError(f'{key}: {name} must be one text or number.')
        check_text(f'{name} {value}', f'{key}: {name!a}')
    return section


def _repo_ids(given: Any) -> List[str]:
    ids = given if isinstance(given, list) else [given]
    if not ids or not all(isinstance(repo_id, str) for repo_id in ids):
        raise ValueError('base_model must be the id of a repository on the Hub, or a list of ids.')
    for repo_id in ids:
        try:
            validate_repo_id(repo_id)
        except HFValidationError as error:
            raise ValueError(f"'{repo_id}' is not the id of a repository on the Hub: {error}") from error
    return ids


def read_labels(file: Path) -> List[str]:
    """Read the names of the classes, one a line, in the order of the model's outputs.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not UTF-8, a line is empty or a name cannot be shown.
    """
    try:
        return label_list(file.read_text(encoding='utf-8').splitlines())
    except ValueError as error:
        raise ValueError(f"'{file}': {error}") from error


def label_list(names: Any) -> List[str]:
    """Check the names of the classes, and bring them into order.

    Args:
        names: A list of names, or a mapping from 0 ... n-1, as numbers or text, to them.

    Raises:
        ValueError: It is neither, or a name is empty or cannot be shown.
    """
    if isinstance(names, dict):
        by_index = {str(index): name for index, name in names.items()}
        if by_index.keys() != {str(i) for i in range(len(names))}:
            raise ValueError(f'label_names has keys other than 0 to {len(names) - 1}: give a list of names.')
        names = [by_index[str(i)] for i in range(len(names))]
    if not isinstance(names, (list, tuple)) or not names:
        raise ValueError('label_names must list the names of all classes in order, as in [cat, dog].')
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f'name {i} of label_names is empty or not text: give one name for each class.')
        check_text(name, f'name {i} of label_names')
    return list(names)


def check_text(text: str, what: str) -> None:
    """Refuse what a page or a console does not show as it is: control and bidirectional characters, lone surrogates.

    Raises:
        ValueError: There is one.
    """
    for char in text:
        is_control = unicodedata.category(char) in ('Cc', 'Cs') and char not in '\t\n'
        if is_control or unicodedata.bidirectional(char) in ('LRE', 'RLE', 'LRO', 'RLO', 'PDF', 'LRI', 'RLI', 'FSI', 'PDI'):
            raise ValueError(f'{what} has the character U+{ord(char):04X}, which cannot be shown: take it out.')
