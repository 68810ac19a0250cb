"""Results of the deployment benchmark, the report of them, and its picture."""
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional

import timm

import timm_wavemix  # noqa: F401  registers the models
from scripts.benchmarks.common import report
from scripts.benchmarks.common.report import COLORS, MARKERS, three_digits
from scripts.benchmarks.common.runtimes import LOADERS
from scripts.benchmarks.common.timing import times_as_fast
from scripts.benchmarks.common.worker import PYTORCH
from timm_wavemix.export import RUNTIMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = 'deploy'
METHOD = """\
Latency is the time from an array of one image to an array of logits. Each model and runtime has two processes for it,
one with one thread and one with a thread for each core. The processes of a model take turns, in alternating rounds, on
random images of 28x28. The 95th percentile and "times as fast as eager" belong to the faster process, for eager too.

Images per second and memory belong to the process with all threads. Memory is the peak of the process after batches of
1 and of 64, with Python and the runtime in it, and with what torch.compile needs. The batches of ExecuTorch and LiteRT
are single calls, and ExecuTorch's Python interface has torch in memory, which a phone does not have. The file of
PyTorch holds float32 weights.

Top-1 is measured with the same shipped weights on all test images, preprocessed alike, whatever the runtime; nothing
was selected by it. The recipe of the int8 files with calibration was chosen on images of validation/, which the shipped
weights were trained on; their ranges come from 500 training images. Agreement is the share of test images that get the
same class as from eager. The float32 rows without a top-1 compute the same function: their agreement is measured on
every tenth image, and the picture shows them at eager's top-1.

ResNet-18 and MobileNetV3 have random weights here, so no accuracy. Their stems have strides: of an image of 28x28,
ResNet-18's first block sees a map of 7x7 and MobileNetV3's one of 14x14, where WaveMix keeps 28x28."""
SHIPPED = [name.split('.')[0] for name in timm.list_models('*.fashion_mnist', module='wavemix', pretrained=True)]
PEERS = ['resnet18', 'mobilenetv3_small_100']  # without weights
REFERENCE = 'eager'
SAME = {  # compute what the reference does, in float32
    'deployed', 'compiled', 'aoti', 'openvino', 'executorch', 'tflite'}
TITLES = {**PYTORCH, **{name: runtime.title for name, runtime in RUNTIMES.items() if name in LOADERS}}
BATCH = 64


@dataclass
class Timing:
    """Of one batch."""
    milliseconds: float  # median
    percentile_95: float
    rounds: List[float]  # the median of each, in milliseconds


@dataclass
class Result:
    """What was measured of a model in a runtime. None where it was not."""
    bytes: int
    latency: Dict[str, Timing] = field(default_factory=dict)  # of one image, by threads
    batch: Optional[Timing] = None
    memory: Optional[int] = None  # bytes
    top1: Optional[float] = None  # percent
    agreement: Optional[float] = None  # percent

    @classmethod
    def from_json(cls, values: Dict[str, Any]) -> 'Result':
        latency = {threads: Timing(**timing) for threads, timing in values['latency'].items()}
        return cls(**{**values, 'latency': latency, 'batch': Timing(**values['batch']) if values['batch'] else None})

    @property
    def faster(self) -> Optional[Timing]:
        """The latency with the faster number of threads."""
        return min(self.latency.values(), key=lambda timing: timing.milliseconds, default=None)

    def ratio(self, reference: Optional['Result']) -> Optional[float]:
        """How many times as fast as the reference with one image, round by round."""
        if self.faster is None or reference is None or reference.faster is None:
            return None
        return times_as_fast(self.faster.rounds, reference.faster.rounds)


Results = Dict[str, Dict[str, Result]]  # by model and runtime


@dataclass
class Report:
    command: str
    machine: str
    software: Dict[str, str]
    results: Results = field(default_factory=dict)
    remarks: Dict[str, str] = field(default_factory=dict)  # what failed or is missing, and why
    classes: Dict[str, str] = field(default_factory=dict)  # the reference's, by model: a digit for each test image

    @classmethod
    def from_json(cls, values: Dict[str, Any]) -> 'Report':
        results = {
            name: {runtime: Result.from_json(result) for runtime, result in rows.items()}
            for name, rows in values['results'].items()}
        return cls(**{**values, 'results': results})


def listed(software: Dict[str, str]) -> str:
    return ', '.join(f'{package} {version}' for package, version in software.items())


def percent(value: Optional[float]) -> str:
    return '–' if value is None else f'{value:.2f}'


def table(results: Dict[str, Result]) -> str:
    """The runtimes of a model."""
    threads = sorted({count for result in results.values() for count in result.latency}, key=int)
    columns = [
        ('runtime', lambda key: TITLES[key]),
        ('file (MB)', lambda key: f'{results[key].bytes / 1e6:.2f}'),
    ]
    columns += [
        (f'one image, {count} thread{"s" * (count != "1")} (ms)', lambda key, count=count: three_digits(
            results[key].latency[count].milliseconds if count in results[key].latency else None))
        for count in threads]
    columns += [
        ('95th percentile (ms)', lambda key: three_digits(results[key].faster and results[key].faster.percentile_95)),
        ('times as fast as eager', lambda key: three_digits(results[key].ratio(results.get(REFERENCE)))),
        (f'images/s at {BATCH}', lambda key: three_digits(
            results[key].batch and 1e3 * BATCH / results[key].batch.milliseconds)),
        ('memory (MiB)', lambda key: f'{results[key].memory / 2 ** 20:.0f}' if results[key].memory else '–'),
        ('top-1 (%)', lambda key: percent(results[key].top1)),
        ('agreement (%)', lambda key: percent(results[key].agreement)),
    ]
    return report.table(columns, [key for key in TITLES if key in results])


def markdown(measured: Report, stem: Path) -> str:
    parts = [
        report.head('Runtimes', NAME, stem, measured.command, measured.machine, listed(measured.software)),
        f'![Accuracy against latency]({stem.name}.png)']
    for name in (name for name in SHIPPED + PEERS if name in measured.results):
        parts += [f'## `{name}`', table(measured.results[name])]
    return report.pages([*parts, *measured.remarks.values(), f'## Method\n\n{METHOD}'])


def draw(measured: Report) -> 'Figure':
    """Accuracy against the latency of one image: a colour for each runtime, a marker for each model."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    figure = Figure(figsize=(10, 6), dpi=150, layout='constrained')
    ax = figure.subplots()
    points = []
    for name in SHIPPED:
        rows = measured.results.get(name, {})
        for runtime, result in rows.items():
            accurate = rows.get(REFERENCE if runtime in SAME else runtime)
            drawn = runtime == REFERENCE or runtime in LOADERS
            if drawn and result.faster and accurate and accurate.top1 is not None:
                points.append((name, TITLES[runtime], result.faster.milliseconds, accurate.top1))
    markers = dict(zip(dict.fromkeys(name for name, *_ in points), MARKERS))
    colors = dict(zip(dict.fromkeys(title for _, title, *_ in points), COLORS))
    for name, title, milliseconds, top1 in points:
        ax.plot(milliseconds, top1, markers[name], color=colors[title], markersize=8, alpha=0.8)
    ax.set(
        xscale='log', xlabel='one image, with the faster number of threads (ms)',
        ylabel='top-1 on the test images (%)')
    handles = [Line2D([], [], color='gray', marker=m, linestyle='none', label=n) for n, m in markers.items()]
    handles += [Line2D([], [], color=c, linewidth=4, label=title) for title, c in colors.items()]
    figure.legend(handles=handles, loc='outside right upper')
    return figure
