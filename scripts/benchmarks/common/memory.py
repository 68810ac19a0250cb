"""Bytes that a model needs: what autograd keeps, what tensors take at one time, and the peak of a GPU."""
import weakref
from itertools import chain
from typing import Any, List

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scripts.benchmarks.common.step import FP32, autocast


def saved_bytes(model: nn.Module, x: torch.Tensor, precision: str = FP32) -> int:
    """Bytes that a forward pass in training mode keeps for the backward pass, parameters and buffers left out."""
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # holds it, so that no other storage gets its address
        return tensor.detach()  # itself, it would hold the graph that holds it, and neither would ever be freed

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast(x.device, precision):
        model(x)
    for tensor in chain(model.parameters(), model.buffers()):
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(storage.nbytes() for storage in kept.values())


def tensors(tree: Any) -> List[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of the storages that are made within it: `peak` is the most that lived at one time."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {tensor.untyped_storage().data_ptr() for tensor in tensors((args, kwargs))}
        result = function(*args, **(kwargs or {}))
        for tensor in tensors(result):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in given:  # a view, or an operation in place, makes none
                self.live += storage.nbytes()
                weakref.finalize(storage, self.release, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def release(self, count: int) -> None:
        self.live -= count


def inference_bytes(model: nn.Module, x: torch.Tensor) -> int:
    """The most bytes that the tensors of a forward pass in inference take at one time, parameters and x left out."""
    model.eval()
    with torch.inference_mode(), PeakBytes() as counter:
        model(x)
    return counter.peak
