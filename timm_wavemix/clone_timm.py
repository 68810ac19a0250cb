"""Clone timm's repository at the tag of the installed timm: its wheel lacks the scripts, such as train.py."""
import argparse
import subprocess
import sys
from pathlib import Path
from typing import List, Optional

import timm

URL = 'https://github.com/huggingface/pytorch-image-models'
TAG = f'v{timm.__version__}'


def clone(folder: Path, url: str = URL) -> None:
    """Clone the tag of the installed timm, without history.

    Args:
        folder: Where to; must not exist.
        url: What to clone.

    Raises:
        OSError: The folder exists, git is not installed, or git fails.
    """
    if folder.exists():
        raise FileExistsError(f"'{folder}' is already there: remove it, or name another folder.")
    try:
        subprocess.run(
            ['git', '-c', 'advice.detachedHead=false', 'clone', '--quiet', '--depth', '1', '--branch', TAG, url,
             folder],
            check=True, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError as error:
        raise OSError('git is not installed: install it (on Debian with `apt install git`).') from error
    except subprocess.CalledProcessError as error:
        reason = ' '.join(error.stderr.split())
        raise OSError(
            f'git cannot clone the tag {TAG} of {url}: check the network and the tag, or name a mirror with --url '
            f'({reason}).') from error


def main(argv: Optional[List[str]] = None, prog: Optional[str] = None) -> None:
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument(
        'folder', metavar='DIR', nargs='?', type=Path, default='pytorch-image-models',
        help='folder to write, which must not exist (default: %(default)s)')
    parser.add_argument('--url', default=URL, help='repository to clone (default: %(default)s)')
    args = parser.parse_args(argv)
    print(f'Cloning {TAG} of {args.url} ...', flush=True)
    try:
        clone(args.folder, args.url)
    except OSError as error:
        sys.exit(f'{parser.prog}: {error}')
    print(f'{args.folder}: timm {timm.__version__}')
