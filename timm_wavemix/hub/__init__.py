"""Publish a model of this package on the Hugging Face Hub: write its files, show them, send them."""
import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import List, Optional

from huggingface_hub.utils import HFValidationError, disable_progress_bars, validate_repo_id

from ..checkpoints import one_line
from .errors import explain
from .files import write_files
from .send import Target, read_token, send

EPILOG = """\
SOURCE is a model with weights (wavemix_16_5.fashion_mnist), a checkpoint of timm's
train.py, or a folder of timm.models.save_for_hf, whose README.md becomes the card.
The token is HF_TOKEN or that of `hf auth login`. A second run resumes the first.
"""


def push(
        source: str,
        target: Target,
        use_ema: bool = False,
        config: Optional[Path] = None,
        dry_run: bool = False,
) -> None:
    """Write the files, show them, send them in one commit, and compare the Hub's checksums with them.

    Args:
        source, use_ema, config: As of `write_files`.
        target: Where they go.
        dry_run: Show their whole text and send nothing.

    Raises:
        OSError, RuntimeError, ValueError: As `write_files`, or there is no token.
        RuntimeError, KeyboardInterrupt: As `send`.
    """
    token = read_token()
    if not token and not dry_run:
        raise ValueError('there is no token of the Hub: run `hf auth login`, or set HF_TOKEN.')
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        notes = write_files(source, target.repo_id, folder, use_ema, config, token=token)
        files = sorted(folder.iterdir(), key=lambda file: (file.name == 'README.md', file.name))
        shown = [f'{source} to {target.repo_id}:']
        shown += [f'  {file.name:<18}{file.stat().st_size:>14,} bytes' for file in files] + notes
        if dry_run:
            shown += [
                f"\n{file.name}:\n{file.read_text(encoding='utf-8')}" for file in files
                if file.suffix in ('.json', '.yaml', '.md')]
        _say('\n'.join(shown))
        _say('Nothing was sent.' if dry_run else send(folder, target, str(token)))


def repo_id(value: str) -> str:
    """The id of a repository with its owner, as a type of argparse."""
    try:
        validate_repo_id(value)
    except HFValidationError as error:
        raise argparse.ArgumentTypeError(one_line(error)) from error
    if '/' not in value:
        raise argparse.ArgumentTypeError(f"'{value}' has no owner: write ORG/{value}")
    return value


def main(argv: Optional[List[str]] = None, prog: Optional[str] = None) -> None:
    parser = argparse.ArgumentParser(
        prog=prog, usage='%(prog)s SOURCE --repo-id ORG/NAME [options]', epilog=EPILOG,
        description='Publish a WaveMix model on the Hugging Face Hub.',
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', metavar='SOURCE', help='name, checkpoint or folder')
    parser.add_argument(
        '--repo-id', metavar='ORG/NAME', type=repo_id, required=True, help='repository, created if need be')
    parser.add_argument('--use-ema', action='store_true', help='take the EMA weights of the checkpoint')
    parser.add_argument(
        '--config', metavar='FILE', type=Path, help="YAML like hub_configs/'s: data, metrics, class names, licence")
    parser.add_argument('--private', action='store_true', help='create the repository private')
    where = parser.add_mutually_exclusive_group()
    where.add_argument('--revision', metavar='BRANCH', help='commit to this branch, created if need be')
    where.add_argument('--create-pr', action='store_true', help='open a pull request instead')
    parser.add_argument('--dry-run', action='store_true', help='check and show everything, send nothing')
    args = parser.parse_args(argv)
    if args.revision is not None and not args.revision.strip():
        parser.error('--revision is empty: name a branch, or leave it out')
    if not sys.stderr.isatty():
        disable_progress_bars()  # huggingface_hub itself does so only for some of its bars
    target = Target(args.repo_id, args.revision, args.create_pr, args.private)
    try:
        push(args.source, target, args.use_ema, args.config, args.dry_run)
    except KeyboardInterrupt as interrupt:
        print(f'{parser.prog}: Interrupted. {str(interrupt) or "Nothing was sent."}', file=sys.stderr)
        sys.exit(130)
    except (OSError, RuntimeError, ValueError) as error:
        message = one_line(error) + '.' if type(error) in (RuntimeError, ValueError) else explain(error)
        sys.exit(f'{parser.prog}: {_redact(message)}')


def _redact(message: str) -> str:
    """Without the token, which a server or a proxy may quote."""
    token = read_token()
    return message.replace(token, '***') if token else message


def _say(text: str) -> None:
    """Print at once, on whatever console this is."""
    encoding = sys.stdout.encoding or 'utf-8'
    try:
        print(text.encode(encoding, 'backslashreplace').decode(encoding), flush=True)
    except BrokenPipeError:  # whoever read it has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # which Python flushes at its end
        print(text, file=sys.stderr)
