"""The recipes in scripts/recipes/paper/: their data, their models, and a part of their images."""
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Tuple

import timm
import yaml
from timm.data import create_dataset
from torch import nn

from scripts.benchmarks.common.command import ROOT
from scripts.benchmarks.common.images import balanced_order
from scripts.benchmarks.common.paper import family
from scripts.benchmarks.models.baselines import size_kwargs  # importing it registers the models
from timm_wavemix.checkpoints import one_line

RECIPES = ROOT / 'scripts/recipes/paper'
DROPOUT = 0.5
Split = Any  # a data set of timm's create_dataset


@dataclass
class Recipe:
    """A recipe, and its data where they were looked for."""
    name: str
    settings: Dict[str, Any]  # as in the YAML file
    data_dir: Path

    @property
    def file(self) -> Path:
        return RECIPES / f'{self.name}.yaml'

    def how_to_get_the_data(self) -> str:
        """What the head of the file says about it."""
        head = dict(line[2:].split(': ', 1) for line in self.file.read_text(encoding='utf-8').splitlines()[1:4])
        return f"get them from {head['Data']} ({head['Get it']}); '{self.data_dir}' is to hold {head['Layout']}"

    def splits(self, download: bool) -> Tuple[Split, Split]:
        """Training and test images, read as train.py reads them.

        Raises:
            ValueError: They are missing, damaged, or not what the recipe is for.
        """
        s = self.settings
        channels = s['input_size'][0]
        try:
            splits = tuple(create_dataset(
                s.get('dataset', ''), root=str(self.data_dir), split=s[key], download=download,
                class_map=s.get('class_map', ''), input_img_mode='RGB' if channels == 3 else 'L',
            ) for key in ('train_split', 'val_split'))
            image, _ = splits[0][0]
        except ImportError as error:
            raise ValueError(f'{self.name}: {error}: `pip install datasets`.') from error
        except Exception as error:  # each reader has its own
            raise ValueError(
                f'{self.name} has no images that timm can read ({one_line(error)}): {self.how_to_get_the_data()}.'
            ) from error
        if s.get('dataset', '') == '' and splits[0].reader.root == splits[1].reader.root:  # timm took the folder itself
            raise ValueError(f"'{self.data_dir}' has no two splits: {self.how_to_get_the_data()}.")
        if len(image.getbands()) != channels:
            raise ValueError(
                f"the images in '{self.data_dir}' have {len(image.getbands())} channels, and {self.file.name} takes "
                f'{channels}: change its input_size, mean and std.')
        return splits


def load_paper_recipe(name: str, data_dir: Path) -> Recipe:
    settings = yaml.safe_load((RECIPES / f'{name}.yaml').read_text(encoding='utf-8'))
    return Recipe(name, settings, data_dir / name)


def model_kwargs(model: str, recipe: Recipe) -> Dict[str, Any]:
    """Arguments by which the paper's model for these images differs from the registered one."""
    own = family(model) in ('WaveMix', 'WaveMix-Lite', '2-D FNet', '2-D MLP-Mixer')
    kwargs: Dict[str, Any] = {'proj_drop_rate' if own else 'drop_rate': DROPOUT}
    if family(model) == 'WaveMix-Lite' and 'stem_stride' in recipe.settings['model_kwargs']:
        kwargs['stem_stride'] = recipe.settings['model_kwargs']['stem_stride']
    return {**kwargs, **size_kwargs(model, recipe.settings['input_size'][1])}


def create_model(model: str, recipe: Recipe) -> nn.Module:
    """As train.py creates it.

    Raises:
        ValueError: It takes images of other channels than the recipe's.
    """
    channels = recipe.settings['input_size'][0]
    result = timm.create_model(
        model, in_chans=channels, num_classes=recipe.settings['num_classes'], **model_kwargs(model, recipe))
    first = next((p for p in result.parameters() if p.dim() == 4), None)  # None in vit-pytorch's ViT
    if first is not None and first.shape[1] != channels:
        raise ValueError(
            f'{model} takes images of {first.shape[1]} channels, and {recipe.file.name} has {channels}: name a model '
            'that takes in_chans.')
    return result


# A part of the images

def targets(split: Split) -> List[int]:
    """Classes of all images, without reading them."""
    if hasattr(split, 'targets'):  # of torchvision
        return [int(target) for target in split.targets]
    if hasattr(split.reader, 'samples'):  # a folder
        return [target for _, target in split.reader.samples]
    return list(split.reader.dataset[split.reader.label_key])  # of the Hugging Face Hub


def write_part(recipe: Recipe, splits: Tuple[Split, Split], images: int, folder: Path) -> Recipe:
    """The recipe of an image folder with this many images of each split, drawn from its classes alike."""
    settings = {key: value for key, value in recipe.settings.items() if key != 'dataset'}
    classes = [f'{label:05d}' for label in range(settings['num_classes'])]
    class_map = folder / 'classes.txt'  # without it, classes of which no image was drawn would shift the others
    folder.mkdir(parents=True, exist_ok=True)
    for split, name in zip(splits, ('train', 'test')):
        if (folder / name).is_dir():
            continue
        partial = folder / f'{name}.partial'
        for i in balanced_order(targets(split), seed=0)[:images]:
            image, label = split[i]
            (partial / classes[label]).mkdir(parents=True, exist_ok=True)
            image.save(partial / classes[label] / f'{i}.png')
        os.replace(partial, folder / name)
    class_map.write_text('\n'.join(classes), encoding='utf-8')
    settings.update(train_split='train', val_split='test', class_map=str(class_map.resolve()))
    return Recipe(recipe.name, settings, folder.resolve())
