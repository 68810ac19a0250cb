"""The rules by which a claim of the paper holds: each compares figures of the paper with what was measured here.

A rule takes the evidence and gives a finding. It raises `NotMeasuredError` where a figure is missing.
"""
import statistics
from functools import partial
from typing import Callable, Dict, Iterable, List, NamedTuple, Sequence, Tuple

from scripts.benchmarks.common.evidence import Evidence, NotMeasuredError
from scripts.benchmarks.common.paper import DATA_SETS, FAMILIES, MEMORY_SHARES, PAPER, TOP1
from scripts.benchmarks.common.report import three_digits
from scripts.benchmarks.common.step import MODES

HOLDS, HALF, FAILS, OPEN = 'holds', 'half', 'does not hold', 'not tested'
LITE = FAMILIES['WaveMix-Lite']
WAVES = FAMILIES['WaveMix'] + LITE
ROUNDING = 1.1  # the paper's memory has one or two digits
COMPARABLE = 1.  # points of accuracy
NOISE = 1.05  # of the machine: times of the ablation whose ratio is smaller are the same


class Finding(NamedTuple):
    """What was found of a claim."""
    here: str  # our figures
    parts: Sequence[bool]  # whether each thing that was compared is as the paper says


Rule = Callable[[Evidence], Finding]
Top1 = Dict[str, Dict[str, float]]  # in percent, by data set and model


def verdict(parts: Sequence[bool]) -> str:
    return HOLDS if all(parts) else HALF if any(parts) else FAILS


def numbers(values: Iterable[float]) -> str:
    return ', '.join(map(three_digits, values))


def points(values: Iterable[float]) -> str:
    return f'{", ".join(f"{value:+.2f}" for value in values)} points'


def pairs(parts: Sequence[bool]) -> str:
    return f'{sum(parts)} of {len(parts)} pairs'


# Memory, parameters and operations

PAPER_MEMORY = {name: paper.memory[32] for name, paper in PAPER.items() if 32 in paper.memory}  # table 1
MEMORY_PAIRS = [  # in favour of WaveMix there
    (wave, other) for wave in WAVES for other in PAPER_MEMORY
    if other not in WAVES and PAPER_MEMORY[wave] < PAPER_MEMORY[other]]


def less_memory(evidence: Evidence) -> Finding:
    """In each of the pairs that the paper has in favour of WaveMix."""
    parts = [evidence.memory(wave) < evidence.memory(other) for wave, other in MEMORY_PAIRS]
    return Finding(pairs(parts), parts)


def least_memory(evidence: Evidence) -> Finding:
    memory = {name: evidence.memory(name) for name in PAPER_MEMORY}
    least = min(memory, key=memory.get)
    return Finding(PAPER[least].name, [least in WAVES])


def memory_shares(model: str, *others: str) -> Rule:
    """As small a part of the others' memory as section 5.2 says; half of it holds if it is less than the whole."""
    def rule(evidence: Evidence) -> Finding:
        shares = {other: evidence.memory(model) / evidence.memory(other) for other in others}
        parts = [(here <= ROUNDING * MEMORY_SHARES[model, other], here < 1) for other, here in shares.items()]
        return Finding(numbers(shares.values()), [part for both in parts for part in both])
    return rule


def orders_of_magnitude_less(model: str, *others: str) -> Rule:
    """At most a tenth of the others' memory."""
    def rule(evidence: Evidence) -> Finding:
        shares = [evidence.memory(model) / evidence.memory(other) for other in others]
        return Finding(numbers(shares), [share <= 0.1 for share in shares])
    return rule


def memory_below(model: str, *others: str, image_size: int) -> Rule:
    def rule(evidence: Evidence) -> Finding:
        shares = [evidence.memory(model, image_size) / evidence.memory(other, image_size) for other in others]
        return Finding(numbers(shares), [share < 1 for share in shares])
    return rule


def larger_batch(model: str, other: str, mode: str) -> Rule:
    def rule(evidence: Evidence) -> Finding:
        ratio = evidence.cost(model).largest_batch[mode] / evidence.cost(other).largest_batch[mode]
        return Finding(f'{three_digits(ratio)} (calculated)', [ratio > 1])
    return rule


def fits(model: str, batch_size: int, mode: str) -> Rule:
    """In 16 GiB."""
    def rule(evidence: Evidence) -> Finding:
        largest = evidence.cost(model).largest_batch[mode]
        return Finding(f'{largest:,} (calculated)', [largest >= batch_size])
    return rule


def fewer(quantity: str, other: str) -> Rule:
    """Parameters ('params') or operations ('flops') of each WaveMix than of another model."""
    def rule(evidence: Evidence) -> Finding:
        ratios = [getattr(evidence.cost(name), quantity) / getattr(evidence.cost(other), quantity) for name in WAVES]
        return Finding(numbers(ratios), [ratio < 1 for ratio in ratios])
    return rule


def as_many_parameters(evidence: Evidence) -> Finding:
    """Within 2 %, as the paper counts with classes of its own."""
    millions = [evidence.cost(name).params / 1e6 for name in WAVES]
    return Finding(
        numbers(millions), [abs(here / PAPER[name].params - 1) < 0.02 for name, here in zip(WAVES, millions)])


# Speed

def same_cost_of_a_pixel(model: str) -> Rule:
    """Memory, and time in training and inference, in a larger image."""
    def rule(evidence: Evidence) -> Finding:
        ratios = [evidence.growth(model, quantity) for quantity in ('bytes', 'train_ns', 'inference_ns')]
        return Finding(numbers(ratios), [ratio <= ROUNDING for ratio in ratios])
    return rule


def timed(mode: str) -> List[str]:
    """The models of table 5."""
    return [name for name, paper in PAPER.items() if 32 in paper.speed[mode]]


def paper_speeds(model: str) -> List[float]:
    """In training and inference, as ratios to ResNet-18."""
    return [PAPER[model].speed[mode][32] / PAPER['resnet18_3x3'].speed[mode][32] for mode in MODES]


def fastest(model: str) -> Rule:
    """Of table 5, in training and in inference."""
    def rule(evidence: Evidence) -> Finding:
        speeds = [{name: evidence.speed(name, mode) for name in timed(mode)} for mode in MODES]
        return Finding(numbers(each[model] for each in speeds), [max(each, key=each.get) == model for each in speeds])
    return rule


def faster_than(*others: str) -> Rule:
    """In each pair of a WaveMix of table 5 and one of these, in training and in inference."""
    def rule(evidence: Evidence) -> Finding:
        parts = [
            evidence.speed(wave, mode) > evidence.speed(other, mode)
            for mode in MODES for wave in WAVES if wave in timed(mode) for other in others]
        return Finding(pairs(parts), parts)
    return rule


# Accuracy

def paper_top1(table: int) -> Top1:
    return {
        data: {model: top1[column] for model, top1 in TOP1[table].items()}
        for column, data in enumerate(DATA_SETS[table])}


def best(top1: Dict[str, float], of_waves: bool) -> str:
    """The most accurate WaveMix, or the most accurate other model."""
    return max((name for name in top1 if name.startswith('wavemix') == of_waves), key=top1.get)


def leads(top1: Top1, data_sets: Sequence[str]) -> List[float]:
    """Points by which the best WaveMix is ahead of the best other model, on each of the data sets that has both."""
    measured = [top1[data] for data in data_sets if data in top1]
    return [
        models[best(models, True)] - models[best(models, False)] for models in measured
        if len({name.startswith('wavemix') for name in models}) == 2]


def most_accurate(table: int, data_sets: Sequence[str]) -> Rule:
    def rule(evidence: Evidence) -> Finding:
        found = leads(evidence.rerun(table), data_sets)
        if not found:
            raise NotMeasuredError(f'table {table}')
        return Finding(points(found), [lead > 0 for lead in found])
    return rule


def reaches(table: int, data_sets: Sequence[str]) -> Rule:
    """The paper's best accuracy, to 0.1 points."""
    def rule(evidence: Evidence) -> Finding:
        top1, paper = evidence.rerun(table), paper_top1(table)
        if not set(data_sets) <= set(top1):
            raise NotMeasuredError(f'table {table}')
        found = [max(top1[data].values()) for data in data_sets]
        return Finding(numbers(found), [
            here >= max(paper[data].values()) - 0.1 for data, here in zip(data_sets, found)])
    return rule


def cifar10_leads(model: str, *others: str) -> List[float]:
    """In points, of the paper."""
    return [TOP1[1][model][0] - TOP1[1][other][0] for other in others]


def ahead_on_cifar10(model: str, *others: str) -> Rule:
    def rule(evidence: Evidence) -> Finding:
        top1 = evidence.rerun(1).get('cifar10', {})
        if not {model, *others} <= set(top1):
            raise NotMeasuredError(model)
        found = [top1[model] - top1[other] for other in others]
        return Finding(points(found), [lead > 0 for lead in found])
    return rule


def ahead_when_trained(model: str, other: str, at_least: float = 0.) -> Rule:
    """On Fashion-MNIST, to the end."""
    def rule(evidence: Evidence) -> Finding:
        lead = evidence.trained(model) - evidence.trained(other)
        return Finding(f'{points([lead])} (Fashion-MNIST)', [lead >= at_least])
    return rule


def cifar10_pairs(models: Sequence[str], others: Sequence[str]) -> List[Tuple[str, str]]:
    """Those that the paper has in favour of the first models."""
    return [(model, other) for model in models for other in others if cifar10_leads(model, other)[0] > 0]


def ahead_after_few_updates(models: Sequence[str], others: Sequence[str]) -> Rule:
    """On Fashion-MNIST, in each pair that the paper has in their favour on CIFAR-10."""
    def rule(evidence: Evidence) -> Finding:
        means = {name: statistics.mean(evidence.row('compare_fashion_mnist', name).top1) for name in (*models, *others)}
        parts = [means[model] > means[other] for model, other in cifar10_pairs(models, others)]
        return Finding(f'{pairs(parts)} (Fashion-MNIST, short training)', parts)
    return rule


def variants(counts: Callable[[float, float], bool], *names: str) -> Rule:
    """Differences of variants of the ablation to the unchanged model, and the standard deviations to exceed."""
    def rule(evidence: Evidence) -> Finding:
        found, deviations = ([value(name) for name in names] for value in (evidence.variant_lead, evidence.deviation))
        limits = ', '.join(f'±{deviation:.2f}' for deviation in deviations)
        return Finding(f'{points(found)}, seeds {limits}', list(map(counts, found, deviations)))
    return rule


behind = partial(variants, lambda difference, deviation: difference < -deviation)
ahead = partial(variants, lambda difference, deviation: difference > deviation)
not_ahead = partial(variants, lambda difference, deviation: difference <= deviation)
not_behind = partial(variants, lambda difference, deviation: difference >= -deviation)


def costs_more(variant: str) -> Rule:
    """In training, inference and memory than the unchanged model."""
    def rule(evidence: Evidence) -> Finding:
        *times, memory = ratios = [
            evidence.variant_cost(variant, quantity)
            for quantity in ('train_seconds', 'inference_seconds', 'saved_bytes')]
        return Finding(f'{numbers(ratios)} times', [*(time > NOISE for time in times), memory > 1])
    return rule


def lighter(variant: str) -> Rule:
    """Parameters, memory and time in training."""
    def rule(evidence: Evidence) -> Finding:
        params, memory, time = ratios = [
            evidence.variant_params(variant), evidence.variant_cost(variant, 'saved_bytes'),
            evidence.variant_cost(variant, 'train_seconds')]
        return Finding(f'{numbers(ratios)} times', [params < 1, memory < 1, time < 1 / NOISE])
    return rule


def loses_accuracy_when_rotated(degrees: int) -> Rule:
    def rule(evidence: Evidence) -> Finding:
        costs = [evidence.rotated(f'{name}.fashion_mnist', degrees) for name in WAVES]
        return Finding(points(-cost for cost in costs), [cost > COMPARABLE for cost in costs])
    return rule


def untested(evidence: Evidence) -> Finding:
    """For claims that no experiment here is about."""
    raise NotMeasuredError
