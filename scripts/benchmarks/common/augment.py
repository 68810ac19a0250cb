"""What timm's train.py does to the images of a batch, on the device: normalize, crop, flip, erase."""
import math
from typing import Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import nn

ERASED_AREA, ERASED_RATIO = (0.02, 1 / 3), (0.3, 1 / 0.3)  # of timm's random erasing


class Normalize(nn.Module):
    """Images in 0 to 255 to those that the model takes."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        for key, values in ('mean', mean), ('std', std):
            self.register_buffer(key, torch.tensor(values).view(-1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images / 255 - self.mean) / self.std


def uniform(low: float, high: float, like: torch.Tensor) -> torch.Tensor:
    """A number for each image of a batch."""
    return torch.empty(len(like), device=like.device).uniform_(low, high)


def random_box(area: Tuple[float, float], ratio: Tuple[float, float], images: torch.Tensor) -> Tuple[torch.Tensor, ...]:
    """Left, top, width and height in whole pixels of a random box in each image `(N, C, H, W)`, `(N,)` each.

    Args:
        area: Lowest and highest part of the image's area.
        ratio: Lowest and highest ratio of width to height.
        images: The images.
    """
    height, width = images.shape[2:]
    part, aspect = uniform(*area, images), uniform(math.log(ratio[0]), math.log(ratio[1]), images).exp()
    w = (width * (part * aspect).sqrt()).round().clamp(1, width)
    h = (height * (part / aspect).sqrt()).round().clamp(1, height)
    left, top = ((uniform(0, 1, images) * (side - part + 1)).floor() for side, part in ((width, w), (height, h)))
    return left, top, w, h


def crop_and_flip(
        images: torch.Tensor, scale: Tuple[float, float], ratio: Tuple[float, float], hflip: float) -> torch.Tensor:
    """A random box of each image, resized to the image's size, and mirrored with the probability `hflip`."""
    height, width = images.shape[2:]
    left, top, w, h = random_box(scale, ratio, images)
    mirror = 1 - 2 * (uniform(0, 1, images) < hflip).float()
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = mirror * w / width, (2 * left + w) / width - 1
    theta[:, 1, 1], theta[:, 1, 2] = h / height, (2 * top + h) / height - 1
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode='border', align_corners=False)


def erase(images: torch.Tensor, probability: float, mode: str) -> torch.Tensor:
    """A random box of each normalized image becomes 0 ('const') or noise ('pixel'), with a probability."""
    left, top, w, h = (side.view(-1, 1, 1, 1) for side in random_box(ERASED_AREA, ERASED_RATIO, images))
    y = torch.arange(images.shape[2], device=images.device).view(-1, 1)
    x = torch.arange(images.shape[3], device=images.device)
    erased = (left <= x) & (x < left + w) & (top <= y) & (y < top + h)
    erased &= (uniform(0, 1, images) < probability).view(-1, 1, 1, 1)
    return torch.where(erased, torch.randn_like(images) if mode == 'pixel' else images.new_zeros(()), images)
