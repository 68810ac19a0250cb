"""The tables of the efficiency benchmark: for each column its head, and its cell for a model."""
from typing import Callable, Dict, List, Optional, Tuple

from scripts.benchmarks.common.measure import CHECKPOINTED, Cost, Results, error_kind
from scripts.benchmarks.common.paper import PAPER
from scripts.benchmarks.common.report import ratio, table, three_digits
from scripts.benchmarks.common.step import BF16, FP32, INFERENCE, MODES, TRAIN

RESNET18, RESNET50 = 'resnet18_3x3', 'resnet50_3x3'
PYTORCH_WAVELETS = 'section 3.2 line by line, on pytorch_wavelets'
AUTHORS = "the authors' package wavemix 0.2.4"
IMPLEMENTATIONS = [
    ('wavemix_16_5', PYTORCH_WAVELETS),
    ('wavemix_64_5', PYTORCH_WAVELETS),
    ('wavemix_lite_128_7', AUTHORS),
    ('wavemix_lite_256_7', AUTHORS),
]
Value = Callable[[str], Optional[float]]  # of a model
Column = Tuple[str, Callable[[str], str]]


def reparameterized(name: str) -> str:
    """The name of a model's other form in the measurements."""
    return f'{name} (reparameterized)'


def number(title: str, value: Value) -> Column:
    return title, lambda name: three_digits(value(name))


def relative(title: str, value: Value, reference: str) -> Column:
    """A column of ratios to the value of a reference."""
    return number(title, lambda name: ratio(value(name), value(reference)))


def of_cost(results: Results, get: Callable[[Cost], Optional[float]]) -> Value:
    def value(name: str) -> Optional[float]:
        cost = results.cost(name)
        return None if cost is None else get(cost)

    return value


def saved(results: Results, kind: str) -> Value:
    return of_cost(results, lambda cost: cost.saved_bytes.get(kind))


def paper_memory(size: int) -> Value:
    return lambda name: PAPER[name].memory.get(size)


def paper_speed(mode: str, size: int) -> Value:
    return lambda name: PAPER[name].speed[mode].get(size)


def or_cost_error(results: Results, column: Column) -> Column:
    title, cell = column
    return title, lambda name: error_kind(results.cost(name)) or cell(name)


def speed_column(
        title: str, results: Results, mode: str, precision: str = FP32, reference: Optional[str] = None,
        batch_size: Optional[int] = None) -> Column:
    """Images per second, or the ratio to a reference's."""
    def cell(name: str) -> str:
        speed = results.speed(name, mode, precision, batch_size)
        value = speed.ratio(reference) if reference else speed.images_per_second
        return error_kind(speed) if speed.error and not reference else three_digits(value)

    return title, cell


MODEL: Column = ('model', lambda name: f'`{name}`')


def ratio_table(results: Results, size: int) -> str:
    """Everything as a ratio to ResNet-18, beside what the paper has of it: tables 1 and 5."""
    columns = [
        MODEL,
        relative('params', of_cost(results, lambda cost: cost.params), RESNET18),
        relative('paper', lambda name: PAPER[name].params, RESNET18),
        relative('GMACs', of_cost(results, lambda cost: cost.flops), RESNET18),
        or_cost_error(results, relative('memory', saved(results, FP32), RESNET18)),
        relative('paper', paper_memory(size), RESNET18),
    ]
    for mode in MODES:
        title, cell = speed_column(mode, results, mode, reference=RESNET18)
        columns += [
            (title, lambda name, cell=cell, mode=mode: error_kind(results.speed(name, mode)) or cell(name)),
            relative('paper', paper_speed(mode, size), RESNET18),
        ]
    return table(columns, results.models)


def memory_table(results: Results, size: int) -> str:
    """Table 1 of the paper."""
    fp32, bf16, checkpointed = (saved(results, kind) for kind in (FP32, BF16, CHECKPOINTED))
    return table([
        MODEL,
        ('in the paper', lambda name: PAPER[name].name),
        ('params (M)', lambda name: f'{results.cost(name).params / 1e6:.2f}'),
        number('paper', lambda name: PAPER[name].params),
        number('GMACs', of_cost(results, lambda cost: ratio(cost.flops, 2e9))),
        or_cost_error(results, number('memory (MiB)', lambda name: ratio(fp32(name), 2 ** 20))),
        relative('÷ ResNet-18', fp32, RESNET18),
        relative('paper', paper_memory(size), RESNET18),
        relative('÷ ResNet-50', fp32, RESNET50),
        relative('paper', paper_memory(size), RESNET50),
        relative('÷ ResNet-50, both in bf16', bf16, RESNET50),
        number('with `set_grad_checkpointing` (MiB)', lambda name: ratio(checkpointed(name), 2 ** 20)),
        relative('÷ ResNet-50, both with it', checkpointed, RESNET50),
    ], results.models)


def peak_table(results: Results, size: int) -> str:
    """Table 1's memory as the paper has it, of the GPU."""
    def peak(mode: str) -> Value:
        return of_cost(results, lambda cost: cost.peak_bytes.get(mode))

    return table([
        MODEL,
        or_cost_error(results, number('training (GiB)', lambda name: ratio(peak(TRAIN)(name), 2 ** 30))),
        or_cost_error(results, number('inference (GiB)', lambda name: ratio(peak(INFERENCE)(name), 2 ** 30))),
        number('paper (GB)', paper_memory(size)),
        relative('training ÷ ResNet-18', peak(TRAIN), RESNET18),
        relative('paper', paper_memory(size), RESNET18),
    ], results.models)


def speed_table(results: Results, size: int, precision: str) -> str:
    """Table 5 of the paper in fp32, or what bf16 autocast makes of it."""
    columns = [MODEL]
    for mode in MODES:
        columns += [
            speed_column(f'{mode}, images/s', results, mode, precision),
            speed_column('÷ ResNet-18', results, mode, precision, RESNET18),
            relative('paper', paper_speed(mode, size), RESNET18) if precision == FP32
            else speed_column('÷ its fp32', results, mode, precision, FP32),
        ]
    columns.append((
        'memory formats', lambda name: ', '.join(results.speed(name, mode, precision).memory_format for mode in MODES)))
    return table(columns, results.models)


def inference_table(results: Results) -> str:
    """Inference at batch 1 and at the batch size, each model as it is and reparameterized."""
    plain: Dict[str, str] = {}  # by the name of each form
    for model in results.models:
        plain[model] = plain[reparameterized(model)] = model
    columns = [MODEL]
    for n in sorted({1, results.costs[0].batch_size}):
        columns += [
            speed_column(f'batch {n}, images/s', results, INFERENCE, batch_size=n),
            speed_column('÷ ResNet-18', results, INFERENCE, reference=RESNET18, batch_size=n),
            ('÷ as it is', lambda name, n=n: three_digits(
                results.speed(name, INFERENCE, batch_size=n).ratio(plain[name]))),
        ]
    # some models have no other form
    return table(columns, [name for name in plain if results.speed(name, INFERENCE, batch_size=1)])


def batch_table(results: Results, size: int) -> str:
    """Table 6 of the paper."""
    def largest(mode: str) -> Value:
        return of_cost(results, lambda cost: cost.largest_batch.get(mode))

    def paper(mode: str) -> Value:
        return lambda name: PAPER[name].largest_batch[mode].get(size)

    columns: List[Column] = [MODEL]
    for mode in MODES:
        columns += [
            (mode, lambda name, mode=mode: '–' if (n := largest(mode)(name)) is None else f'{n:,}'),
            relative('÷ ResNet-50', largest(mode), RESNET50),
            relative('paper', paper(mode), RESNET50),
        ]
    return table(columns, results.models)


def implementation_table(results: Results) -> str:
    """How many times as fast as other implementations each model is."""
    return table(
        [('model', lambda row: f'`{row[0]}`'), ('other implementation', lambda row: row[1])] + [
            (mode, lambda row, mode=mode: three_digits(results.speed(row[0], mode).ratio(': '.join(row))))
            for mode in MODES],
        [row for row in IMPLEMENTATIONS if row[0] in results.models])
