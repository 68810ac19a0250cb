"""Draw the accuracy of models on Fashion-MNIST against their parameters and against their speed.

Accuracies come from the metadata in hub_configs/ and docs/peers/; parameters and images per second, of inference in
fp32, from the results of `efficiency`. Models that it does not know are left out; it must have measured the others.
"""
import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Optional

import yaml

from scripts.benchmarks.common import command, report
from scripts.benchmarks.common.measure import Results
from scripts.benchmarks.common.paper import PAPER
from scripts.benchmarks.common.step import INFERENCE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = 'draw_accuracy'


def load_accuracies(root: Path = command.ROOT) -> Dict[str, float]:
    """Top-1 accuracy in percent of the models that the efficiency benchmark knows."""
    files = [*sorted(root.glob('hub_configs/*.fashion_mnist.yaml')), *sorted(root.glob('docs/peers/*.metadata.yaml'))]
    metadata = {file.name.split('.')[0]: yaml.safe_load(file.read_text(encoding='utf-8')) for file in files}
    return {name: values['metrics']['top1'] for name, values in metadata.items() if name in PAPER}


def load_results(file: Path) -> Results:
    """The measurements of `efficiency` at its first image size.

    Raises:
        OSError: The file cannot be read.
        ValueError: It has other content.
    """
    return report.load_json(file, 'efficiency', lambda values: Results.from_json(values['results'][0]))


def draw(accuracies: Dict[str, float], results: Results) -> 'Figure':
    """One chart for parameters and one for images per second, with a point for each model.

    Raises:
        ValueError: The benchmark did not measure a model.
    """
    from matplotlib.figure import Figure
    speeds = {name: results.speed(name, INFERENCE) for name in accuracies}
    missing = [
        name for name, speed in speeds.items()
        if results.cost(name) is None or speed is None or speed.images_per_second is None]
    if missing:
        raise ValueError(
            f'The results lack {", ".join(missing)}: measure them by `python -m scripts.benchmarks.efficiency`.')
    size, batch_size = results.costs[0].image_size, results.costs[0].batch_size
    figure = Figure(figsize=(14, 5), dpi=150, layout='constrained')
    charts = left, right = figure.subplots(1, 2, sharey=True)
    for name, top1 in accuracies.items():
        color = report.BLUE if name.startswith('wavemix') else report.GREY
        values = results.cost(name).params / 1e6, speeds[name].images_per_second
        for chart, x in zip(charts, values):
            chart.plot(x, top1, 'o', color=color)
            chart.annotate(name, (x, top1), xytext=(0, 6), textcoords='offset points', ha='center', fontsize=8)
    left.set(xlabel='parameters (million)', ylabel='top-1 on Fashion-MNIST (%)', title='the best are top left')
    right.set(
        xlabel=f'inference (images/s of {size}x{size}, batches of {batch_size}, fp32)', title='the best are top right')
    for chart in charts:
        chart.set(xscale='log')
        chart.margins(x=0.25, y=0.15)
        chart.grid(color='#dddddd')
    return figure


def work(args: argparse.Namespace) -> List[Path]:
    command.require_matplotlib()
    figure = draw(load_accuracies(), load_results(args.results))
    return [command.write_whole(args.output, partial(figure.savefig, format='png'))]


def main(argv: Optional[List[str]] = None) -> None:
    parser = command.make_parser(NAME, __doc__)
    parser.add_argument(
        '--results', metavar='JSON', type=Path, default='docs/results/efficiency.json',
        help='results of `python -m scripts.benchmarks.efficiency` (default: %(default)s)')
    parser.add_argument(
        '--output', metavar='PNG', type=command.output_file, default='docs/results/accuracy.png',
        help='picture (default: %(default)s)')
    command.run(parser, work, argv)


if __name__ == '__main__':
    main()
