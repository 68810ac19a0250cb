"""Images of a split, and the top-1 accuracy of a model on them."""
from collections import Counter
from pathlib import Path
from typing import Any, List, Optional, Sequence, Union

import torch
from timm.data import ImageDataset, create_dataset, resolve_model_data_config
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm


def load_split(data: Path, split: str, **kwargs: Any) -> ImageDataset:
    """A split that scripts/prepare_fashion_mnist.py writes.

    Args:
        data: Folder that it wrote.
        split: 'train', 'validation' or 'test'.
        kwargs: For timm's `ImageDataset`.

    Raises:
        FileNotFoundError: There is no such folder.
        RuntimeError: The folder has no images.
    """
    folder = data / split
    if not folder.is_dir():  # timm would look elsewhere
        raise FileNotFoundError(
            f"there is no folder '{folder}': write it with scripts/prepare_fashion_mnist.py, or name another.")
    return create_dataset('', folder, search_split=False, **kwargs)


def balanced_order(targets: Sequence[int], seed: int) -> List[int]:
    """Indices of all images in a random order whose beginnings have, of each class, as many as there are.

    Args:
        targets: The classes of the images.
        seed: Of the order.
    """
    drawn, rank = Counter(), {}  # rank: how many of its class were drawn before an image
    for i in torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed)).tolist():
        rank[i] = drawn[targets[i]]
        drawn[targets[i]] += 1
    return sorted(rank, key=rank.get)


def balanced_subset(dataset: ImageDataset, images: Optional[int], seed: int) -> Subset:
    """So many images of a data set, drawn at random, as many of each class as there are, or all for None.

    Raises:
        ValueError: There are not so many.
    """
    targets = [target for _, target in dataset.reader.samples]
    if images is not None and images > len(targets):
        raise ValueError(
            f"'{dataset.reader.root}' has {len(targets)} images, not {images}: ask for no more, or for 'all'.")
    return Subset(dataset, balanced_order(targets, seed)[:images])


def image_mode(model: nn.Module) -> str:
    """The mode of Pillow that images of this model have: 'L' for one channel, else 'RGB'."""
    return 'L' if resolve_model_data_config(model)['input_size'][0] == 1 else 'RGB'


def accuracy(model: nn.Module, dataset: Dataset, device: Union[str, torch.device] = 'cpu') -> float:
    """Percentage of the images whose class has the highest logit.

    Args:
        model: The model, which is moved to the device and put in evaluation mode.
        dataset: Pairs of an image `(C, H, W)`, preprocessed, and its class.
        device: Where to run the model.
    """
    model.eval().to(device)
    right = 0
    # images are read in this process, one after the other: what is drawn for them depends on torch's seed alone
    for images, classes in tqdm(DataLoader(dataset, batch_size=250), unit=' batches', leave=False):
        with torch.inference_mode():
            # much the fastest memory format for WaveMix on CPUs
            logits = model(images.to(device, memory_format=torch.channels_last))
        right += (logits.argmax(dim=1).cpu() == classes).sum().item()
    return 100 * right / len(dataset)
