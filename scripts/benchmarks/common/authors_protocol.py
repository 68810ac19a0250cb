"""Training as the authors' public scripts do it: AdamW until the test accuracy stalls, then SGD from the best epoch.

The forward pass is in fp32, the mean image of the training set is subtracted, and the test images choose the epochs.
"""
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Iterable, Iterator, List, Optional, Tuple

import torch
from timm.data import create_transform
from torch import nn
from torch.utils.data import DataLoader

from scripts.benchmarks.common.paper_recipes import Recipe
from scripts.benchmarks.common.step import FP32
from scripts.benchmarks.common.training import Learner, evaluate, load_state, save_state

PATIENCE = 20  # epochs without a better one that end a stage
OPTIMIZERS = {  # of the stages, in turn
    'AdamW': partial(torch.optim.AdamW, lr=0.001, weight_decay=0.01),
    'SGD': partial(torch.optim.SGD, lr=0.001, momentum=0.9),
}
Batches = Iterable[Tuple[torch.Tensor, torch.Tensor]]


@dataclass
class Epoch:
    """An epoch of a training, with its accuracy on the test images in percent."""
    optimizer: str
    top1: float
    top5: float


def best_index(epochs: List[Epoch]) -> int:
    """The last of the most accurate epochs."""
    return max(range(len(epochs)), key=lambda i: (epochs[i].top1, i))


def next_optimizer(epochs: List[Epoch]) -> Optional[str]:
    """What the next epoch trains with, after these; None if the training is over."""
    stages = list(OPTIMIZERS)
    if not epochs:
        return stages[0]
    stage = epochs[-1].optimizer
    of_stage = sum(epoch.optimizer == stage for epoch in epochs)
    if min(of_stage, len(epochs) - 1 - best_index(epochs)) < PATIENCE:
        return stage
    return next(iter(stages[stages.index(stage) + 1:]), None)


def mean_image(batches: Batches) -> torch.Tensor:
    """The mean `(C, H, W)` of all images, in their own range."""
    total, count = torch.zeros(()), 0
    for images, _ in batches:
        total = total + images.double().sum(0)
        count += len(images)
    return (total / count).float()


class Prepared:
    """Batches of images in 0 to 255, scaled to 0 to 1, without the mean image, on a device."""

    def __init__(self, loader: DataLoader, mean: torch.Tensor, device: torch.device):
        self.loader, self.mean, self.device = loader, mean.to(device), device

    def __iter__(self) -> Iterator[Tuple[torch.Tensor, torch.Tensor]]:
        for images, classes in self.loader:
            images = (images.to(self.device) - self.mean) / 255
            yield images.contiguous(memory_format=torch.channels_last), classes.to(self.device)


def load_batches(recipe: Recipe, device: torch.device, download: bool) -> Tuple[Prepared, Prepared]:
    """Training and test images of a recipe.

    Raises:
        ValueError: They are missing, damaged, or not what the recipe is for.
    """
    s = recipe.settings
    splits = recipe.splits(download)
    for split in splits:
        split.transform = create_transform(
            tuple(s['input_size']), interpolation=s['interpolation'], crop_pct=s['crop_pct'], normalize=False)
    workers = s['workers'] if device.type == 'cuda' else 0
    train = DataLoader(splits[0], s['batch_size'], shuffle=True, num_workers=workers)
    test = DataLoader(splits[1], s['validation_batch_size'], num_workers=workers)
    mean = mean_image(train)
    return Prepared(train, mean, device), Prepared(test, mean, device)


def train(
        model: nn.Module, train_images: Batches, test_images: Batches, file: Path, seed: int, limit: int,
) -> List[Epoch]:
    """Train to the end, from where the file has it.

    Args:
        model: With random weights.
        train_images: Batches of an epoch, in an order that torch's seed decides.
        test_images: They choose the best epoch.
        file: The state after each epoch.
        seed: Of the order of images, and of dropout.
        limit: Epochs of all stages together.

    Raises:
        RuntimeError: The loss is not finite.
        ValueError: The file is damaged.
    """
    state = load_state(file) if file.exists() else None
    epochs, best = ([Epoch(**epoch) for epoch in state['epochs']], state['best']) if state else ([], {})
    learner: Optional[Learner] = None
    while len(epochs) < limit and (optimizer := next_optimizer(epochs)):
        is_next_stage = bool(epochs) and optimizer != epochs[-1].optimizer
        if is_next_stage:
            model.load_state_dict(best)
        if learner is None or is_next_stage:
            learner = Learner(model, OPTIMIZERS[optimizer](model.parameters()), FP32, criterion=nn.CrossEntropyLoss())
            if state and not is_next_stage:
                learner.load(state)
        list(learner.epochs(lambda _: train_images, len(epochs), len(epochs) + 1, 0, seed))
        metrics = evaluate(model, test_images, FP32)
        epochs.append(Epoch(optimizer, metrics['top1'], metrics['top5']))
        if best_index(epochs) == len(epochs) - 1:
            best = {key: value.cpu().clone() for key, value in model.state_dict().items()}
        save_state(file, dict(learner.state(), best=best, epochs=[asdict(epoch) for epoch in epochs]))
    return epochs
