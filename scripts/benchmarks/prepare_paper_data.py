"""Write a data set of the paper's tables that timm cannot read itself as image folders, train/ and test/.

torchvision reads it, and downloads it if asked to. Classes get the order of its labels. EMNIST's images are written as
they are stored, with rows and columns exchanged. Caltech-256 has no split of its own: every fifth image of a class goes
to test/. A run that was cut off can be started again.
"""
import argparse
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch.utils.data import Dataset
from torchvision.datasets import EMNIST, STL10, SVHN, Caltech256

from scripts.benchmarks.common import command
from scripts.prepare_fashion_mnist import write_split
from timm_wavemix.checkpoints import one_line

NAME = 'prepare_paper_data'
DATASETS = (
    'emnist_byclass', 'emnist_bymerge', 'emnist_letters', 'emnist_digits', 'emnist_balanced', 'svhn', 'stl10',
    'caltech256')
Split = Tuple[Dataset, Sequence[int]]  # and the indices of its images


def load(name: str, root: Path, download: bool = False) -> Dict[str, Split]:
    """The splits of a data set, each with `classes` and `targets`.

    Args:
        name: One of `DATASETS`.
        root: Folder that torchvision keeps its data sets in.
        download: Whether to download what is missing there.

    Raises:
        ImportError: SVHN needs SciPy.
        Exception: The data are missing, damaged or cannot be downloaded; each reader of torchvision has its own.
    """
    kwargs: Dict[str, Any] = dict(root=str(root), download=download)
    if name == 'caltech256':
        dataset = Caltech256(**kwargs)
        dataset.classes, dataset.targets = [c.partition('.')[2] for c in dataset.categories], dataset.y
        test = [i for i, number in enumerate(dataset.index) if number % 5 == 0]  # numbers start at 1 in every class
        return {'train': (dataset, sorted(set(range(len(dataset))) - set(test))), 'test': (dataset, test)}
    splits = {}
    for split in 'train', 'test':
        if name == 'svhn':
            dataset = SVHN(split=split, **kwargs)
            dataset.classes, dataset.targets = ['digit'] * 10, dataset.labels
        elif name == 'stl10':
            dataset = STL10(split=split, **kwargs)
            dataset.targets = dataset.labels
        else:
            dataset = EMNIST(split=name.partition('_')[2], train=split == 'train', **kwargs)
        splits[split] = dataset, range(len(dataset))
    return splits


def work(args: argparse.Namespace) -> List[Path]:
    try:
        splits = load(args.name, args.source, args.download)
    except ImportError as error:
        raise ImportError(f'{error}: `pip install scipy`') from error
    except Exception as error:  # torchvision's readers raise anything from AssertionError to zlib.error
        raise ValueError(
            f'torchvision cannot read {args.name} in {args.source}: pass --download, or the right folder as --source '
            f'({one_line(error)})') from error
    for split, (dataset, indices) in splits.items():
        write_split(args.out / split, dataset, indices)
    return [args.out / split for split in splits]


def main(argv: Optional[List[str]] = None) -> None:
    parser = command.make_parser(NAME, __doc__)
    parser.add_argument('name', metavar='NAME', choices=DATASETS, help=', '.join(DATASETS))
    parser.add_argument('out', metavar='OUT', type=Path, help='folder to write train and test in')
    parser.add_argument(
        '--source', metavar='DIR', type=Path, default=Path(torch.hub.get_dir(), 'datasets'),
        help="folder that torchvision keeps its data sets in (default: datasets/ in torch.hub's cache)")
    parser.add_argument('--download', action='store_true', help='download what is missing in that folder')
    command.run(parser, work, argv, 'the same command goes on from there')


if __name__ == '__main__':
    main()
