"""The frame of every command: its parser, the types of its arguments, its errors, and the files that it writes."""
import argparse
import importlib.util
import math
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any, Callable, Iterable, Optional, Sequence

import torch

from scripts.demo import torch_device
from timm_wavemix.checkpoints import one_line

ROOT = Path(__file__).parents[3]  # of the checkout


# Arguments

def make_parser(name: str, doc: str) -> argparse.ArgumentParser:
    """The parser of a command.

    Args:
        name: Its module, without the packages.
        doc: Its help text.
    """
    return argparse.ArgumentParser(
        prog=f'python -m scripts.benchmarks.{name}',
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


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


def output_stem(text: str) -> Path:
    """The path of a report's files without their suffixes."""
    if Path(text).suffix in ('.json', '.md', '.png'):
        raise argparse.ArgumentTypeError(f"the files of '{text}' get suffixes of their own: leave this one out.")
    return output_file(text)


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--device',
        type=torch_device,
        default='cuda' if torch.cuda.is_available() else 'cpu',
        help='torch device (default: cuda if there is one, else cpu)',
    )


def add_rounds_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--rounds', type=positive_int, default=5, help='alternating rounds (default: %(default)s)')


def add_output_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        '--output', metavar='STEM', type=output_stem, default=default,
        help='where to write STEM.json with the results, and the report of them beside it (default: %(default)s)')
    parser.add_argument('--redraw', action='store_true', help='write the report of STEM.json, and measure nothing')


# The frame

def run(
        parser: argparse.ArgumentParser,
        work: Callable[[argparse.Namespace], Iterable[Path]],
        argv: Optional[Sequence[str]] = None,
        interrupted: str = 'nothing was written',
) -> None:
    """Run a command, and print the files that it has written.

    Args:
        parser: Of its arguments.
        work: What it does, which gives the files.
        argv: Its arguments; without them, the process's own.
        interrupted: What the user is to know after Ctrl-C.

    Raises:
        SystemExit: The input is wrong, which one sentence says, or Ctrl-C was pressed.
    """
    args = parser.parse_args(argv)
    try:
        files = list(work(args))
    except argparse.ArgumentError as error:  # one that no type of a single argument finds
        parser.error(str(error))
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f'{parser.prog}: {one_line(error)}.')
    except KeyboardInterrupt:
        sys.exit(f'{parser.prog}: interrupted; {interrupted}.')
    for file in files:
        print(file)


def require_matplotlib() -> None:
    """End a command before it measures for an hour, if it could not draw what it has measured.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        missing = importlib.util.find_spec('matplotlib') is None
    except ValueError:  # sys.modules has a None for it
        missing = True
    if missing:
        raise ImportError('the picture needs matplotlib: install it with `pip install --group demo`.')


def command_line(name: str) -> str:
    """The command that runs now, with what speeds depend on from the environment: glibc's MALLOC_ settings, threads."""
    settings = [
        f'{key}={value}' for key, value in sorted(os.environ.items()) if key.startswith(('MALLOC_', 'OMP_NUM_'))]
    return shlex.join([*settings, 'python', '-m', f'scripts.benchmarks.{name}', *sys.argv[1:]])


def limit_memory(device: torch.device) -> None:
    """Let an allocation beyond the memory that is free fail: Linux would end the process, and all its results."""
    if device.type == 'cpu' and sys.platform == 'linux':
        import resource
        available = re.search(r'MemAvailable: *(\d+) kB', Path('/proc/meminfo').read_text()).group(1)
        used = re.search(r'VmData:\s*(\d+) kB', Path('/proc/self/status').read_text()).group(1)
        _, hard_limit = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (1024 * (int(used) + int(0.9 * int(available))), hard_limit))


# Files

def write_whole(file: Path, write: Callable[[Path], Any]) -> Path:
    """Write a file that is never seen half done."""
    unfinished = file.with_name(f'{file.name}.partial')
    write(unfinished)
    os.replace(unfinished, file)
    return file


def write_text_whole(file: Path, text: str) -> Path:
    return write_whole(file, lambda unfinished: unfinished.write_text(text, encoding='utf-8'))
