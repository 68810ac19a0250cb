"""The texts of reports: their head, tables, numbers; the machine's name; colours for pictures."""
import argparse
import json
import platform
import re
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, TypeVar

import timm
import torch

import timm_wavemix
from scripts.benchmarks.common import command
from scripts.benchmarks.common.command import ROOT, write_text_whole, write_whole

# colours that the colour-blind can tell apart
BLUE, ORANGE, GREY = '#0072b2', '#d55e00', '#999999'
COLORS = BLUE, '#56b4e9', ORANGE, '#e69f00', '#000000', GREY, '#009e73', '#cc79a7', '#882255', '#999933'
MARKERS = 'o^sDvP*Xp<'
SOFTWARE = f'torch {torch.__version__}, timm {timm.__version__}, timm-wavemix {timm_wavemix.__version__}'
Row = TypeVar('Row')
Column = Tuple[str, Callable[[Row], str]]  # the head, and the cell of a row


# The machine

def hardware_name(device: torch.device) -> str:
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    if device.type != 'cpu':
        return f'{device.type} of {platform.machine()}'
    try:
        name = re.search(r'model name\s*: (.*)', Path('/proc/cpuinfo').read_text()).group(1)
    except (OSError, AttributeError):  # not Linux, or not x86
        name = platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f'{threads} core{"s" * (threads > 1)} of one {name} CPU ({torch.backends.cpu.get_cpu_capability()})'


@dataclass
class Measured:
    """What every report says of its results."""
    command: str
    machine: str
    software: str


# Texts

def head(title: str, name: str, stem: Path, measured_by: str, machine: str, software: str) -> str:
    """How a report in docs/results/ begins: what was measured where, and the command that draws it again."""
    path = stem.resolve()
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    return (
        f'# {title}\n\n'
        'Generated, do not edit. This draws it again:\n\n'
        f'```sh\npython -m scripts.benchmarks.{name} --redraw --output {shown.as_posix()}\n```\n\n'
        f'Measured on {machine}, with {software}, by\n\n```sh\n{measured_by}\n```')


def three_digits(value: Optional[float]) -> str:
    """The number with three digits, or a dash."""
    if value is None:
        return '–'
    exponent = int(f'{value:.2e}'.partition('e')[2])  # after rounding: 9.999 is 10.0
    return f'{value:,.{max(0, 2 - exponent)}f}'


def ratio(value: Optional[float], reference: Optional[float]) -> Optional[float]:
    """None if one of the two is missing."""
    return value / reference if value and reference else None


def table(columns: Sequence[Column], rows: Iterable[Row]) -> str:
    """A table in Markdown."""
    cells = [[cell(row) for _, cell in columns] for row in rows]
    return markdown_table([header for header, _ in columns], cells)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in (header, ['---'] * len(header), *rows))


def error_text(error: Exception) -> str:
    """The kind of an error, and its first line."""
    message = str(error).partition('\n')[0]
    if isinstance(error, TimeoutError):
        return f'out of time: {message}'
    if isinstance(error, MemoryError) or re.search("out of memory|can't allocate memory", message):
        return f'out of memory: {message}'
    return f'failed: {message or type(error).__name__}'


def pages(parts: Iterable[str]) -> str:
    """The paragraphs of a document."""
    return '\n\n'.join(parts) + '\n'


def marker_styles(families: Sequence[str]) -> Iterator[Dict[str, Any]]:
    """For matplotlib, of points of these families in turn: a colour for each family, a marker for each point in it."""
    colors = dict(zip(dict.fromkeys(families), COLORS))
    drawn: Counter = Counter()
    for family in families:
        yield dict(color=colors[family], marker=MARKERS[drawn[family]], markersize=8, alpha=0.8, linestyle='none')
        drawn[family] += 1


# Files

def load_json(file: Path, name: str, parse: Callable[[Dict[str, Any]], Row]) -> Row:
    """The results in a file.

    Raises:
        OSError: It cannot be read.
        ValueError: It has other content than the command of this name writes.
    """
    try:
        return parse(json.loads(file.read_text(encoding='utf-8')))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"'{file}' has no results of {name}: name another --output.") from error


def file_of(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


def save(
        report: Any, stem: Path, markdown: Callable[[Any, Path], str], draw: Optional[Callable[[Any], Any]] = None,
) -> List[Path]:
    """Write the results, a dataclass, as JSON, the report of them as Markdown and, if there is one, its picture."""
    files = [
        write_text_whole(file_of(stem, '.json'), json.dumps(asdict(report), indent=1) + '\n'),
        write_text_whole(file_of(stem, '.md'), markdown(report, stem))]
    if draw:
        save_picture = partial(draw(report).savefig, format='png')
        files.append(write_whole(file_of(stem, '.png'), save_picture))
    return files


def work(
        name: str,
        from_json: Callable[[Dict[str, Any]], Any],
        measure: Callable[[argparse.Namespace], Optional[Any]],
        markdown: Callable[[Any, Path], str],
        draw: Optional[Callable[[Any], Any]],
        args: argparse.Namespace,
) -> List[Path]:
    """What a command does: measure, or read what was measured, and write the report.

    Args:
        name: Of the command.
        from_json: Makes its results, a dataclass, from JSON.
        measure: Makes them from the arguments; None after a dry run.
        markdown: Makes the text of the report, of the results and the files' stem.
        draw: Makes the figure, where there is one.
        args: The parsed ones, among them `add_output_arguments`'s.
    """
    if draw:
        command.require_matplotlib()
    results = load_json(file_of(args.output, '.json'), name, from_json) if args.redraw else measure(args)
    return [] if results is None else save(results, args.output, markdown, draw)
