"""What a model can't know about itself, as the YAML files of hub_configs/ have it."""
import unicodedata
from pathlib import Path
from typing import Any, Dict, List

import yaml
from huggingface_hub.utils import HFValidationError, validate_repo_id

HPARAMS = 'train_hparams.yaml'  # the file of a training's arguments, as timm's own repositories have it
SECTIONS = 'dataset', 'weights', 'preprocessing', 'training', 'metrics', 'use'
RELATIONS = {  # of the Hub, with what the card says
    'adapter': 'Adapter for', 'finetune': 'Fine-tuned from', 'merge': 'Merged from', 'quantized': 'Quantized from'}
ENTRIES = 'base_model', 'base_model_relation', 'label_names'
OVERRIDES = 'LRE', 'RLE', 'LRO', 'RLO', 'PDF', 'LRI', 'RLI', 'FSI', 'PDI'  # make text look other than it is


class _Loader(yaml.BaseLoader):
    """Takes every value as text, as YAML would make truth values of names like yes and no, and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise ValueError(f"'{twice[0]}' is there twice")
        return super().construct_mapping(node, deep)


def hub_configs() -> Path:
    """The folder hub_configs/: the package's copy of it, in a checkout the folder itself."""
    package = Path(__file__).parents[1]
    return package / 'hub_configs' if (package / 'hub_configs').is_dir() else package.parent / 'hub_configs'


def read_metadata(file: Path) -> Dict[str, Any]:
    """Read a file like those of hub_configs/; raises OSError or ValueError if it holds what a card cannot show.

    Returns its sections, each a dict from entry to text, and its entries: `base_model` and `label_names` are lists.
    """
    try:
        return _check(yaml.load(file.read_text(encoding='utf-8'), _Loader), file.parent)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"'{file}': {' '.join(str(error).split())}") from error


def _check(metadata: Any, folder: Path) -> Dict[str, Any]:
    metadata = metadata or {}
    if not isinstance(metadata, dict):
        raise ValueError('the file has no sections, write some like those of hub_configs/')
    if unknown := [key for key in metadata if key not in SECTIONS + ENTRIES]:
        raise ValueError(f"'{unknown[0]}' is unknown, the sections and entries are {', '.join(SECTIONS + ENTRIES)}")
    checked: Dict[str, Any] = {key: _section(key, metadata[key]) for key in SECTIONS if key in metadata}
    dataset, metrics = checked.get('dataset', {}), checked.get('metrics', {})
    if metrics and not dataset.get('name'):
        raise ValueError("there are metrics, but no name of their data set, add 'dataset: name:'")
    for key in metrics.keys() & {'top1', 'top5'}:
        if not metrics[key].replace('.', '', 1).isdecimal() or float(metrics[key]) > 100:
            raise ValueError(f"metrics: {key} is '{metrics[key]}', give a percentage from 0 to 100 or leave it out")
    if (given := metadata.get('base_model')) is not None:
        checked['base_model'] = given if isinstance(given, list) else [given]
        try:
            list(map(validate_repo_id, checked['base_model']))
        except (HFValidationError, TypeError) as error:
            raise ValueError(f'base_model must be a repository on the Hub, or a list of some: {error}') from error
    if (relation := metadata.get('base_model_relation')) is not None:
        if relation not in list(RELATIONS):
            raise ValueError(f'base_model_relation must be one of {", ".join(RELATIONS)}')
        checked['base_model_relation'] = relation
    if (names := metadata.get('label_names')) is not None:
        if isinstance(names, str) and (folder / names).suffix == '.txt':
            names = (folder / names).read_text(encoding='utf-8').splitlines()
        checked['label_names'] = label_list(names, 'label_names')
    return checked


def _section(key: str, section: Any) -> Dict[str, str]:
    if section != '' and not isinstance(section, dict):
        raise ValueError(f"{key} has no entries, write them below it, as in '{key}: {{name: text}}'")
    section = section or {}
    for name, value in section.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ValueError(f'{key}: {name} must be one text or number')
        check_text(f'{name} {value}', f'{key}: {name!a}')
    return section


def label_list(names: Any, what: str) -> List[str]:
    """The names of the classes in order, from a list or a mapping from 0 ... n-1; raises ValueError for all else."""
    if isinstance(names, dict):
        by_index = {str(index): name for index, name in names.items()}
        names = [by_index.get(str(i)) for i in range(len(by_index))]
    if not isinstance(names, (list, tuple)) or not names:
        raise ValueError(f'{what} must list the names of all classes in order, as in [cat, dog]')
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f'{what} has no text for class {i}, give one name for each class from 0 on')
        check_text(name, f'{what}: class {i}')
    return list(names)


def check_text(text: str, what: str) -> None:
    """Refuse what a page or a console does not show as it is; raises ValueError if there is such a character."""
    for char in text:
        if (unicodedata.category(char) in ('Cc', 'Cs') and char not in '\t\n') or (
                unicodedata.bidirectional(char) in OVERRIDES):
            raise ValueError(f'{what} has the character U+{ord(char):04X}, which cannot be shown, take it out')
