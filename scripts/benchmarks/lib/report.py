"""What the scripts that write a report share: arguments, files, the machine's name, tables and colours."""
import argparse
import importlib.util
import math
import os
import platform
import re
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Optional, Sequence

import timm
import torch

import timm_wavemix

# colours that the colour-blind can tell apart
BLUE, ORANGE, GREY = '#0072b2', '#d55e00', '#999999'
COLORS = BLUE, '#56b4e9', ORANGE, '#e69f00', '#000000', GREY, '#009e73', '#cc79a7', '#882255', '#999933'
MARKERS = 'o^sDvP*Xp<'
SOFTWARE = f'torch {torch.__version__}, timm {timm.__version__}, timm-wavemix {timm_wavemix.__version__}'
ROOT = Path(__file__).parents[3]  # of the repository


# Arguments

def positive_int(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{number} is too few: give 1 or more.')
    return number


def number_or_all(text: str) -> Optional[int]:
    return None if text == 'all' else positive_int(text)


def positive_float(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f'{text} is not above 0: give a larger number.')
    return number


def output_file(text: str) -> Path:
    """A file to write after an hour of measuring: complain before."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder '{path.parent}': make it, or name another file.")
    return path


def torch_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (AssertionError, RuntimeError) as error:  # a torch without CUDA fails an assertion
        raise argparse.ArgumentTypeError(f"torch cannot use '{name}' here ({error}): leave it out, or name 'cpu'."
        ) from error
    return device


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--device',
        type=torch_device,
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='torch device (default: cuda if there is one, else cpu)',
    )


def require_matplotlib() -> None:
    """End the script before it measures for an hour, if it could not draw what it has measured.

    Raises:
        SystemExit: matplotlib is not installed.
    """
    try:
        missing = importlib.util.find_spec('matplotlib') is None
    except ValueError:  # sys.modules has a None for it
        missing = True
    if missing:
        sys.exit(f'{Path(sys.argv[0]).name} draws with matplotlib: install it with `pip install --group demo`.')


# Files

def write_whole(file: Path, write: Callable[[Path], Any]) -> None:
    """Write a file that is never seen half done."""
    unfinished = file.with_name(f'{file.name}.partial')
    write(unfinished)
    os.replace(unfinished, file)


def write_text_whole(file: Path, text: str) -> None:
    write_whole(file, lambda unfinished: unfinished.write_text(text, encoding='utf-8'))


# The machine

def limit_memory() -> None:
    """Let an allocation beyond the memory that is free fail: Linux would end the process, and all its results."""
    if sys.platform == 'linux':
        import resource
        available = re.search(r'MemAvailable: *(\d+) kB', Path('/proc/meminfo').read_text()).group(1)
        used = re.search(r'VmData:\s*(\d+) kB', Path('/proc/self/status').read_text()).group(1)
        _, hard_limit = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (1024 * (int(used) + int(0.9 * int(available))), hard_limit))


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


# Texts

def command_line() -> str:
    """The command that runs now, with what speeds depend on from the environment: glibc's MALLOC_ settings, threads."""
    settings = [
        f'{name}={value}' for name, value in sorted(os.environ.items()) if name.startswith(('MALLOC_', 'OMP_NUM_'))]
    script = Path(sys.argv[0]).resolve()
    path = script.relative_to(ROOT) if script.is_relative_to(ROOT) else script
    return shlex.join([*settings, 'python', path.as_posix(), *sys.argv[1:]])


def report_header(title: str, hardware: str, software: str = SOFTWARE) -> str:
    """Title of a report in docs/results/, and the command that makes it again."""
    return f'# {title}\n\nGenerated, do not edit. On {hardware}, with {software}, by\n\n```sh\n{command_line()}\n```'


def docstring_body(doc: str) -> str:
    """What follows the first paragraph of a docstring."""
    return doc.split('\n\n', 1)[1].strip()


def three_digits(value: Optional[float]) -> str:
    """The number with three digits, or a dash."""
    if value is None:
        return '–'
    exponent = int(f'{value:.2e}'.partition('e')[2])  # after rounding: 9.999 is 10.0
    return f'{value:,.{max(0, 2 - exponent)}f}'


def marker_styles(families: Sequence[str]) -> Iterator[Dict[str, Any]]:
    """For matplotlib, of points of these families in turn: a colour for each family, a marker for each point in it."""
    colors = dict(zip(dict.fromkeys(families), COLORS))
    drawn = Counter()
    for family in families:
        yield dict(color=colors[family], marker=MARKERS[drawn[family]], markersize=8, alpha=0.8, linestyle='none')
        drawn[family] += 1


def ratio(value: Optional[float], reference: Optional[float]) -> Optional[float]:
    """None if one of the two is missing."""
    return value / reference if value and reference else None


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in (header, ['---'] * len(header), *rows))
