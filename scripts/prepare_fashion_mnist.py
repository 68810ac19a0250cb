"""Write Fashion-MNIST as image folders that timm's training and validation scripts read.

    OUT/train/0_t_shirt_top/00001.png       55,000 images
    OUT/validation/0_t_shirt_top/00004.png   5,000 images held out from the original training split
    OUT/all/0_t_shirt_top/00001.png         60,000 images, the original training split
    OUT/test/0_t_shirt_top/00019.png        10,000 images

Images are 28x28 grey PNGs; timm's image folders turn them into RGB. Class folders start with the label, so that
timm's class indices are the data set's labels, and a file is named after its index in the original split.

The held-out images are drawn uniformly, without regard to class, by `random.Random(0).sample`, so every run and every
machine holds out the same ones.

The images are read from --source, else from Debian's package dataset-fashion-mnist, else, with --download, from the
web. A run that was cut off can be started again; nothing in OUT is ever deleted.
"""
import argparse
import os
import random
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Optional, Sequence, Tuple

import torch
from timm.data.readers.reader_image_folder import find_images_and_targets
from torchvision.datasets import FashionMNIST
from torchvision.datasets.utils import extract_archive
from tqdm import tqdm

DEBIAN_FOLDER = Path('/usr/share/datasets/fashion-mnist')
HELD_OUT = 5000


def load(source: Optional[Path] = None, download: bool = False) -> Tuple[FashionMNIST, FashionMNIST]:
    """Read the original training and test split.

    Args:
        source: Folder with the four idx files, gzipped or not. Default: the folder of Debian's package.
        download: Whether to download the files into torch.hub's cache if the folder lacks one.

    Returns:
        The training and the test split, in memory.

    Raises:
        FileNotFoundError: A file is missing and `download` is not set.
        ValueError: The files are damaged, or could not be downloaded.
    """
    folder = source or DEBIAN_FOLDER
    names = [Path(resource).stem for resource, _ in FashionMNIST.resources]
    # where both are there, the gzipped file is read for its checksum
    files = [next((file for file in (folder / f'{name}.gz', folder / name) if file.is_file()), None) for name in names]
    missing = [name for name, file in zip(names, files) if file is None]
    if missing and not download:
        raise FileNotFoundError(
            f'{folder} lacks {", ".join(missing)}: install the data with "apt install dataset-fashion-mnist", or pass '
            f'--download, or --source PATH with a folder that holds the four idx files.'
        )

    with tempfile.TemporaryDirectory() as root:
        if missing:
            root = folder = os.path.join(torch.hub.get_dir(), 'datasets')
        # torchvision's readers fail with anything from AssertionError to zlib.error on damaged files
        try:
            if not missing:
                # torchvision wants unpacked files in a folder of its own layout
                raw = Path(root, FashionMNIST.__name__, 'raw')
                raw.mkdir(parents=True)
                for file in files:
                    if file.suffix == '.gz':
                        extract_archive(file, raw)
                    else:
                        shutil.copy(file, raw)
            splits = tuple(FashionMNIST(root, train=train, download=bool(missing)) for train in (True, False))
            for split in splits:
                if split.data.shape != (len(split.targets), 28, 28) or split.targets.max() >= len(split.classes):
                    raise ValueError('the images and labels do not have the shapes of Fashion-MNIST')
        except Exception as error:
            if getattr(error, 'errno', None):  # the system's, such as a full disk
                raise
            reason = ' '.join(f'{type(error).__name__} {error}'.split())
            raise ValueError(f'the files in {folder} are damaged or incomplete: {reason}') from error
    return splits


def write_split(folder: Path, dataset: FashionMNIST, indices: Sequence[int]) -> None:
    """Write some of a data set's images as `folder/<label>_<class name>/<index>.png`, all of them or none.

    The images are collected in `<folder>.partial`, which takes its name only when it is complete. A folder that is
    already there is checked and left as it is.

    Args:
        folder: Image folder to write.
        dataset: Data set to take images from.
        indices: Indices of the images in `dataset`.

    Raises:
        ValueError: timm would read other images from the folder than those asked for.
    """
    classes = [f'{i}_{re.sub("[^a-z]+", "_", name.lower())}' for i, name in enumerate(dataset.classes)]
    files = {index: os.path.join(classes[dataset.targets[index]], f'{index:05d}.png') for index in indices}

    partial = folder.with_name(f'{folder.name}.partial')
    complete = folder.exists()
    if not complete:
        for name in classes:
            (partial / name).mkdir(parents=True, exist_ok=True)
        for index, file in tqdm(files.items(), desc=folder.name, unit=' images'):
            dataset[index][0].save(partial / file)

    written = folder if complete else partial
    found = {os.path.relpath(file, written) for file, _ in find_images_and_targets(str(written))[0]}
    absent, foreign = set(files.values()) - found, found - set(files.values())
    if absent or foreign:
        raise ValueError(
            f'{written} lacks {len(absent)} of its {len(files)} images and holds {len(foreign)} that do not belong '
            f'there (such as {min(absent | foreign)}): move it away and run again.'
        )
    if not complete:
        partial.rename(folder)


def prepare(out: Path, source: Optional[Path] = None, download: bool = False, held_out: int = HELD_OUT) -> None:
    """Write the folders `train`, `validation`, `all` and `test`.

    Args:
        out: Folder to write them in.
        source: See `load`.
        download: See `load`.
        held_out: Number of training images that go to `validation`.

    Raises:
        OSError: The images cannot be found or written.
        ValueError: The source is damaged, has too few images, or a folder in `out` holds other images.
    """
    train, test = load(source, download)
    if len(train) <= held_out:
        raise ValueError(f'the source has {len(train)} training images, too few to hold out {held_out}.')
    validation = set(random.Random(0).sample(range(len(train)), held_out))
    splits = {
        'train': (train, [i for i in range(len(train)) if i not in validation]),
        'validation': (train, sorted(validation)),
        'all': (train, range(len(train))),
        'test': (test, range(len(test))),
    }
    for name, (dataset, indices) in splits.items():
        write_split(out / name, dataset, indices)
    for name, (_, indices) in splits.items():
        print(f'{out / name}: {len(indices)} images')


def main() -> None:
    description, epilog = __doc__.split('\n\n', 1)
    parser = argparse.ArgumentParser(
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('out', metavar='OUT', type=Path, help='folder to write train, validation, all and test in')
    origin = parser.add_mutually_exclusive_group()
    origin.add_argument('--source', metavar='PATH', type=Path, help='folder with the four idx files, gzipped or not')
    origin.add_argument(
        '--download',
        action='store_true',
        help="download the files (31 MB) if Debian's package is not installed",
    )
    args = parser.parse_args()
    try:
        prepare(args.out, args.source, args.download)
    except (OSError, ValueError) as error:
        sys.exit(f'{parser.prog}: {error}')


if __name__ == '__main__':
    main()
