"""The loop of every training that the scripts drive themselves, and the states that it goes on from."""
import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, Optional, Tuple

import torch
import torch.nn.functional as F
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3, random_seed
from torch import nn

from scripts.benchmarks.common.command import write_whole
from scripts.benchmarks.common.step import autocast
from timm_wavemix.checkpoints import read_weights

Batches = Callable[[int], Iterable[Tuple[torch.Tensor, torch.Tensor]]]  # images and classes of an epoch, from 0


@dataclass
class Learner:
    """A model with what trains it."""
    model: nn.Module
    optimizer: torch.optim.Optimizer
    precision: str
    scheduler: Optional[Scheduler] = None  # of the learning rate, over updates; without it, the rate is constant
    ema: Optional[ModelEmaV3] = None
    # with as much smoothing as timm's train.py has without an option
    criterion: nn.Module = field(default_factory=LabelSmoothingCrossEntropy)

    def update(self, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """One update of the weights; its loss."""
        with autocast(images.device, self.precision):
            logits = self.model(images)
        loss = self.criterion(logits.float(), classes)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def epochs(
            self, batches: Batches, start: int, end: int, updates: int, seed: int) -> Iterator[Tuple[int, float]]:
        """Train from one epoch to another. Gives each epoch, when it is over, and its mean loss.

        Args:
            batches: The batches of an epoch.
            start: First epoch, from 0.
            end: The epoch to stop before.
            updates: How many an epoch has, for the scheduler and the average. The last one may have fewer.
            seed: An epoch draws the same numbers whether this process has trained the ones before or not.

        Raises:
            RuntimeError: The loss is not finite.
        """
        if self.scheduler is not None:
            self.scheduler.step_update(start * updates)
        for epoch in range(start, end):
            random_seed(seed, 1000 * (1 + epoch))  # far from the seeds beside it, which other trainings have
            self.model.train()
            losses = []
            for update, (images, classes) in enumerate(batches(epoch), 1 + epoch * updates):
                losses.append(self.update(images, classes))
                if self.ema is not None:
                    self.ema.update(self.model, step=update)
                if self.scheduler is not None:
                    self.scheduler.step_update(update)
            loss = torch.stack(losses).mean().item()
            if not math.isfinite(loss):
                raise RuntimeError(f'the loss in epoch {epoch} is {loss}: give a smaller learning rate')
            yield epoch, loss

    def state(self) -> Dict[str, Any]:
        """What `load` goes on from, under the names that timm's train.py gives them."""
        state = dict(state_dict=self.model.state_dict(), optimizer=self.optimizer.state_dict())
        if self.ema is not None:
            state['state_dict_ema'] = self.ema.module.state_dict()
        return state

    def load(self, state: Dict[str, Any]) -> None:
        self.model.load_state_dict(state['state_dict'])
        self.optimizer.load_state_dict(state['optimizer'])
        if self.ema is not None:
            self.ema.module.load_state_dict(state['state_dict_ema'])


def create_learner(
        model: nn.Module, precision: str, opt: str, lr: float, weight_decay: float, epochs: int, updates: int,
        ema_decay: Optional[float] = None, **schedule: Any) -> Learner:
    """A learner with a cosine schedule.

    Args:
        model: What learns.
        precision: Of the forward pass.
        opt: Name of timm's optimizer.
        lr: Highest learning rate.
        weight_decay: Of the optimizer.
        epochs: Length of the schedule.
        updates: How many updates an epoch has.
        ema_decay: Of the moving average of the weights, None for no average.
        schedule: `warmup_epochs`, `warmup_lr` and `min_lr`.
    """
    optimizer = create_optimizer_v2(model, opt, lr, weight_decay)
    scheduler, _ = create_scheduler_v2(
        optimizer, 'cosine', epochs, step_on_epochs=False, updates_per_epoch=updates, **schedule)
    ema = None if ema_decay is None else ModelEmaV3(model, ema_decay, use_warmup=True)
    return Learner(model, optimizer, precision, scheduler, ema)


@torch.inference_mode()
def evaluate(
        model: nn.Module, batches: Iterable[Tuple[torch.Tensor, torch.Tensor]], precision: str) -> Dict[str, float]:
    """Loss, and top-1 and top-5 in percent, of images and their classes."""
    model.eval()
    losses, hits = [], []
    for images, classes in batches:
        with autocast(images.device, precision):
            logits = model(images).float()
        losses.append(F.cross_entropy(logits, classes, reduction='none'))
        hits.append(logits.topk(min(5, logits.shape[1])).indices == classes[:, None])
    right = 100 * torch.cat(hits).float()
    return dict(
        loss=torch.cat(losses).mean().item(), top1=right[:, 0].mean().item(), top5=right.sum(1).mean().item())


def save_state(file: Path, state: Dict[str, Any]) -> None:
    write_whole(file, partial(torch.save, state))


def load_state(file: Path) -> Dict[str, Any]:
    """What `save_state` wrote, on the CPU.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is damaged, or something else.
    """
    state = read_weights(file)
    if not isinstance(state, dict):
        raise ValueError(f"'{file}' holds a {type(state).__name__} instead of a training: delete it to train again")
    return state
