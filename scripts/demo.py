"""Classify Fashion-MNIST test images with one of the pretrained models that come with the package.

Prints a table of the predictions for twelve images and the speed of the model, and draws, as a PNG, these images with
their predictions beside the confusion matrix of 500.

The images in scripts/images/demo are the first of each class in the test split, and the two earliest among those that
are the second of their class: chosen by this rule, not by the model's predictions. A file is named after its index in
the test split and its label. scripts/images/test_images.png has the first 50 test images of each class, a row for each.
"""
import argparse
import importlib.util
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, List, NamedTuple, Sequence, Tuple

import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch.utils.benchmark import Measurement, Timer

import timm_wavemix  # noqa: F401  registers the models

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAG = 'fashion_mnist'
IMAGES = Path(__file__).parent / 'images' / 'demo'
TEST_IMAGES = Path(__file__).parent / 'images' / 'test_images.png'
SIDE = 28  # pixels of an image in it
BATCH_SIZE = 64
BLUE, ORANGE = '#0072b2', '#d55e00'  # which the colour-blind can tell apart


class Result(NamedTuple):
    index: int
    image: Image.Image
    label: str
    prediction: str
    probability: float

    @property
    def right(self) -> bool:
        return self.prediction == self.label


def load_model(name: str) -> torch.nn.Module:
    """Create a pretrained model.

    Raises:
        FileNotFoundError: The package lacks the weights.
    """
    weights = Path(timm.get_pretrained_cfg(f'{name}.{TAG}').file)
    if not weights.is_file():
        raise FileNotFoundError(
            f'{weights} is missing: get it back with `git restore {weights.parent}`, or install timm-wavemix again.')
    return timm.create_model(f'{name}.{TAG}', pretrained=True).eval()


def image_mode(model: torch.nn.Module) -> str:
    """The mode of Pillow that images of this model have: 'L' for one channel, else 'RGB'."""
    return 'L' if resolve_model_data_config(model)['input_size'][0] == 1 else 'RGB'


def classify(model: torch.nn.Module, device: torch.device) -> List[Result]:
    names = model.pretrained_cfg['label_names']
    name_of = {re.sub('[^a-z]+', '_', name.lower()): name for name in names}
    transform = create_transform(**resolve_model_data_config(model))
    files = sorted(IMAGES.glob('*.png'))
    images = [Image.open(file).convert(image_mode(model)) for file in files]

    logits = model(torch.stack([transform(image) for image in images]).to(device))
    probabilities, classes = logits.softmax(dim=-1).max(dim=-1)

    results = []
    for file, image, probability, i in zip(files, images, probabilities.tolist(), classes.tolist()):
        index, label = file.stem.split('_', 1)
        results.append(Result(int(index), image, name_of[label], names[i], probability))
    return results


def load_test_images() -> List[List[Image.Image]]:
    """The images in the sheet, a list for each label."""
    sheet = Image.open(TEST_IMAGES)
    return [
        [sheet.crop((left, top, left + SIDE, top + SIDE)) for left in range(0, sheet.width, SIDE)]
        for top in range(0, sheet.height, SIDE)]


def count_predictions(model: torch.nn.Module, device: torch.device) -> torch.Tensor:
    """The confusion matrix of the images in the sheet: `(classes, classes)`, a row for each label."""
    transform = create_transform(**resolve_model_data_config(model))
    matrix = []
    for images in load_test_images():
        row = [image.convert(image_mode(model)) for image in images]
        classes = model(torch.stack([transform(image) for image in row]).to(device)).argmax(dim=-1)
        matrix.append(classes.bincount(minlength=model.num_classes).cpu())
    return torch.stack(matrix)


def measure(model: torch.nn.Module, device: torch.device) -> Measurement:
    """Time the model on batches that lie on the device, for two seconds."""
    batch = torch.randn(BATCH_SIZE, *resolve_model_data_config(model)['input_size'], device=device)
    # torch's timer warms up and waits for the GPU, but takes one thread unless told otherwise
    timer = Timer('model(batch)', globals={'model': model, 'batch': batch}, num_threads=torch.get_num_threads())
    return timer.blocked_autorange(min_run_time=2)


def draw(results: List[Result], matrix: torch.Tensor, names: Sequence[str], titles: Tuple[str, str]) -> 'Figure':
    """The images with their predictions beside the confusion matrix."""
    from matplotlib.figure import Figure
    figure = Figure(figsize=(16, 7.6), dpi=150, layout='constrained')
    left, right = figure.subfigures(1, 2)
    for part, title in zip((left, right), titles):
        part.suptitle(title)

    for result, ax in zip(results, left.subplots(3, 4).flat):
        color = BLUE if result.right else ORANGE
        ax.imshow(result.image, cmap='gray', interpolation='nearest')
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(color=color, linewidth=2)
        ax.set_title(f'label: {result.label}', fontsize=10)
        remark = '' if result.right else 'WRONG: '
        ax.set_xlabel(f'{remark}{result.prediction} {result.probability:.3f}', fontsize=10, color=color)

    ax = right.subplots()
    ax.imshow(matrix, cmap='Blues')
    for label, prediction in matrix.nonzero().tolist():
        count = matrix[label, prediction].item()
        ax.text(
            prediction, label, count, ha='center', va='center',
            color='white' if count > matrix.max() / 2 else 'black')
    ax.set(xlabel='prediction', ylabel='label')
    ax.set_xticks(range(len(names)), names, rotation=45, ha='right')
    ax.set_yticks(range(len(names)), names)
    return figure


def demo(name: str, device: torch.device, output: Path) -> None:
    """Print the table and the speed, and write the picture.

    Raises:
        OSError: The weights are missing, or the picture cannot be written.
    """
    model = load_model(name).to(device, memory_format=torch.channels_last)  # the fastest
    with torch.inference_mode():
        results = classify(model, device)
        matrix = count_predictions(model, device)
        measurement = measure(model, device)

    # lines of at most 52 columns, for narrow terminals
    print('image  label        prediction   probability')
    for result in results:
        remark = '' if result.right else '  wrong'
        print(f'{result.index:5}  {result.label:11}  {result.prediction:11}  {result.probability:11.3f}{remark}')
    score = f'{sum(result.right for result in results)} of {len(results)} right'
    matrix_score = f'{matrix.trace()} of {matrix.sum()} right'
    print(f'\n{score}')
    print(f'{matrix_score} in the confusion matrix')
    if device.type == 'cuda':
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = f'{device} ({torch.get_num_threads()} threads)'
    print(f'{BATCH_SIZE / measurement.median:,.0f} images/s on {hardware},')
    rounds = len(measurement.times)
    print(f'median of {rounds} round{"s" * (rounds > 1)} in batches of {BATCH_SIZE}')

    try:
        titles = f'{name} on Fashion-MNIST test images: {score}', f'on the first 50 of each class: {matrix_score}'
        draw(results, matrix, model.pretrained_cfg['label_names'], titles).savefig(output, format='png')
    except OSError as error:
        raise OSError(f'{output} cannot be written ({error.strerror}): name another file with --output.') from error
    print(f'picture: {output}')


def torch_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (AssertionError, RuntimeError) as error:  # a torch without CUDA fails an assertion
        raise argparse.ArgumentTypeError(
            f"torch cannot use '{name}' here ({error}): leave it out, or name 'cpu'.") from error
    return device


def main() -> None:
    description, epilog = __doc__.split('\n\n', 1)
    parser = argparse.ArgumentParser(
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    models = [name.split('.')[0] for name in timm.list_models(f'*.{TAG}', module='wavemix', pretrained=True)]
    parser.add_argument(
        '--model', choices=models, default='wavemix_16_5', help='pretrained model (default: %(default)s)')
    parser.add_argument(
        '--device', type=torch_device, default='cuda' if torch.cuda.is_available() else 'cpu',
        help='torch device (default: cuda if there is one, else cpu)')
    parser.add_argument('--output', metavar='PNG', type=Path, default='demo.png', help='picture (default: %(default)s)')
    args = parser.parse_args()
    if not args.output.parent.is_dir():
        parser.error(f"there is no folder '{args.output.parent}' for the picture: make it, or name another file.")
    if importlib.util.find_spec('matplotlib') is None:
        sys.exit(f'{parser.prog} draws with matplotlib: install it with `pip install --group demo`.')
    try:
        demo(args.model, args.device, args.output)
    except OSError as error:
        sys.exit(f'{parser.prog}: {error}')


if __name__ == '__main__':
    main()
