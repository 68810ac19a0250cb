"""Folders of images, and the top-1 accuracy of a model on one."""
from collections import Counter
from pathlib import Path
from typing import Any, List, Optional, Sequence, Tuple, Union

import torch
from PIL import Image
from timm.data import ImageDataset
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from timm_wavemix.checkpoints import one_line


class ImageFolder(ImageDataset):
    """timm's dataset, which would take the next image, with its class, where one cannot be read: this one raises."""

    def __getitem__(self, index: int) -> Tuple[Any, int]:
        """
        Raises:
            OSError: The image cannot be read.
        """
        file, target = self.reader[index]
        with file:
            try:
                image = Image.open(file).convert(self.input_img_mode)
            except Exception as error:  # Pillow's plugins raise what they like
                raise OSError(f"'{self.filename(index, absolute=True)}' cannot be read: {one_line(error)}") from error
        return image if self.transform is None else self.transform(image), target


def load_split(data: Path, split: str, **kwargs: Any) -> ImageFolder:
    """A split that scripts/prepare_fashion_mnist.py writes.

    Args:
        data: Folder that it wrote.
        split: 'train', 'validation', 'all' (both of them) or 'test'.
        kwargs: For timm's `ImageDataset`.

    Raises:
        FileNotFoundError: There is no such folder.
        RuntimeError: The folder has no images.
    """
    folder = data / split
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder '{folder}': write it with scripts/prepare_fashion_mnist.py, or name another.")
    return ImageFolder(str(folder), **kwargs)


def balanced_order(targets: Sequence[int], seed: int) -> List[int]:
    """Indices of all images in a random order whose beginnings are balanced: each has its classes alike.

    Args:
        targets: The classes of the images.
        seed: Of the order.
    """
    drawn: Counter = Counter()
    rank = {}  # how many of its class were drawn before an image
    for i in torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed)).tolist():
        rank[i] = drawn[targets[i]]
        drawn[targets[i]] += 1
    return sorted(rank, key=rank.get)


def balanced_subset(dataset: ImageDataset, images: Optional[int], seed: int) -> Subset:
    """This many images of a data set, drawn at random from each class alike, or all for None.

    Raises:
        ValueError: There are fewer.
    """
    targets = [target for _, target in dataset.reader.samples]
    if images is not None and images > len(targets):
        raise ValueError(
            f"'{dataset.reader.root}' has {len(targets)} images, not {images}: ask for no more, or for 'all'.")
    return Subset(dataset, balanced_order(targets, seed)[:images])


def accuracy(model: nn.Module, dataset: Dataset, device: Union[str, torch.device] = 'cpu') -> float:
    """Percentage of the images whose class has the highest logit.

    Args:
        model: The model, which is moved to the device and put in evaluation mode.
        dataset: Pairs of an image `(C, H, W)`, preprocessed, and its class.
        device: Where to run the model.
    """
    model.eval().to(device)
    right = 0
    # images are read in this process, one after the other: random transforms depend on torch's seed alone
    for images, classes in tqdm(DataLoader(dataset, batch_size=250), unit=' batches', leave=False):
        with torch.inference_mode():
            # by far the fastest memory format for WaveMix on CPUs
            logits = model(images.to(device, memory_format=torch.channels_last))
        right += (logits.argmax(dim=1).cpu() == classes).sum().item()
    return 100 * right / len(dataset)
