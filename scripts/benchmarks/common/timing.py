"""One way to time: all in turn, round after round, after a warm-up, and the median of the rounds."""
import statistics
import time
from typing import Any, Callable, Dict, Hashable, List, Mapping, Sequence, Tuple, TypeVar

import torch
from tqdm import tqdm

K = TypeVar('K', bound=Hashable)
T = TypeVar('T')


def seconds_of(call: Callable[[], Any], device: torch.device, repeats: int = 1) -> float:
    """Time of one call on a device, the mean of the repeats."""
    wait = torch.get_device_module(device).synchronize
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    wait()
    return (time.perf_counter() - start) / repeats


def alternate(
        calls: Mapping[K, Callable[[], T]], rounds: int, title: str = 'timing', warm_up: int = 0,
) -> Tuple[Dict[K, List[T]], Dict[K, Exception]]:
    """What each call returns in every round after the warm-up, and the error of each that raises one.

    In a round all take turns, so a machine that slows down slows all of them. What has raised an error is called no
    more, and has no results.
    """
    results: Dict[K, List[T]] = {key: [] for key in calls}
    errors: Dict[K, Exception] = {}
    turns = [(i, key) for i in range(warm_up + rounds) for key in calls]
    for i, key in tqdm(turns, desc=title, unit=' steps', leave=False):
        if key not in results:
            continue
        try:
            result = calls[key]()
        except Exception as error:  # of models and runtimes of many libraries, which raise what they like
            errors[key] = error
            del results[key]
        else:
            if i >= warm_up:
                results[key].append(result)
    return results, errors


def times_as_fast(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of two series of seconds, round by round."""
    return statistics.median(b / a for a, b in zip(ours, theirs))
