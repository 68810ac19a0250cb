"""Publish a model of this package on the Hugging Face Hub: write its files, show them, send them."""
import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import List, Optional

from huggingface_hub.utils import HFValidationError, disable_progress_bars, validate_repo_id

from .errors import explain
from .files import write_files
from .send import Target, publish, read_token


def push(
        source: str, target: Target, use_ema: bool = False, metadata_file: Optional[Path] = None, dry_run: bool = False,
        token: Optional[str] = None) -> None:
    """Write the files, show them, send them in one commit, and compare the Hub's checksums with them.

    Args:
        source, use_ema, metadata_file: As of `write_files`.
        target, token: Where they go, and the token of the Hub.
        dry_run: Show their whole text and send nothing.

    Raises:
        OSError, RuntimeError, ValueError, KeyboardInterrupt: As `write_files` and `publish`, or there is no token.
    """
    if not token and not dry_run:
        raise ValueError('There is no token of the Hub: run `hf auth login`, or set HF_TOKEN.')
    result = 'Nothing was sent.'
    try:
        with TemporaryDirectory() as temporary:
            folder = Path(temporary)
            notes = write_files(source, target.repo_id, folder, use_ema, metadata_file, token=token or '')
            files = sorted(folder.iterdir(), key=lambda file: (file.name == 'README.md', file.name))
            shown = [f'{source} to {target.repo_id}:', *(f'  {f.name:<18}{f.stat().st_size:>14,} bytes' for f in files)]
            texts = [f for f in files if dry_run and f.suffix != '.safetensors']
            _say('\n'.join([*shown, *notes, *(f"\n{f.name}:\n{f.read_text(encoding='utf-8')}" for f in texts)]))
            result = result if dry_run else publish(folder, target, str(token))
        with suppress(BrokenPipeError):
            _say(result)
            return
        print(result, file=sys.stderr)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(str(interrupt) or result) from interrupt


def repo_id(value: str) -> str:
    """The id of a repository with its owner, as a type of argparse."""
    try:
        validate_repo_id(value)
    except HFValidationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if '/' not in value:
        raise argparse.ArgumentTypeError(f"'{value}' has no owner: write ORG/{value}")
    return value


def main(argv: Optional[List[str]] = None, prog: Optional[str] = None) -> None:
    parser = argparse.ArgumentParser(
        prog=prog, usage='%(prog)s MODEL --repo-id ORG/NAME [options]',
        description='Publish a WaveMix model on the Hugging Face Hub.',
        epilog='The token is HF_TOKEN or that of `hf auth login`. A second run resumes the first.')
    add = parser.add_argument
    add('model', metavar='MODEL', help='name of a model with weights (wavemix_16_5.fashion_mnist), checkpoint of '
        "timm's train.py, or folder of timm.models.save_for_hf, whose README.md becomes the card")
    add('--repo-id', metavar='ORG/NAME', type=repo_id, required=True, help='repository, created if need be')
    add('--use-ema', action='store_true', help='take the EMA weights of the checkpoint')
    add('--metadata', metavar='FILE', type=Path, help='YAML file with data, metrics, class names and licence')
    add('--private', action='store_true', help='create the repository private')
    where = parser.add_mutually_exclusive_group()
    where.add_argument('--revision', metavar='BRANCH', help='commit to this branch, created if need be')
    where.add_argument('--create-pr', action='store_true', help='open a pull request instead')
    add('--dry-run', action='store_true', help='check and show everything, send nothing')
    args = parser.parse_args(argv)
    if args.revision is not None and not args.revision.strip():
        parser.error('--revision is empty: name a branch, or leave it out')
    if not sys.stderr.isatty():
        disable_progress_bars()  # huggingface_hub itself does so only for some of its bars
    target, token = Target(args.repo_id, args.revision, args.create_pr, args.private), None
    try:
        token = read_token()
        push(args.model, target, args.use_ema, args.metadata, args.dry_run, token)
        return
    except KeyboardInterrupt as interrupt:
        code, message = 130, f'Interrupted. {str(interrupt) or "Nothing was sent."}'
    except (OSError, RuntimeError, ValueError) as error:
        code, message = 1, explain(error) if isinstance(error, OSError) else ' '.join(str(error).split())
    print(f'{parser.prog}: {message.replace(token, "***") if token else message}', file=sys.stderr)
    sys.exit(code)


def _say(text: str) -> None:
    """Print at once, on whatever console this is: whoever reads it may leave, but not after something was sent."""
    encoding = sys.stdout.encoding or 'utf-8'
    try:
        print(text.encode(encoding, 'backslashreplace').decode(encoding), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python fails as it flushes at its end
        raise
