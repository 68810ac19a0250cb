"""Draw the accuracy of the models on Fashion-MNIST against their parameters and against their speed, as a PNG.

Accuracies are those of hub_configs/*.fashion_mnist.yaml, and of docs/*.fashion_mnist.yaml for models that are trained
for comparison but not shipped. Each file is named after its model in the benchmark, which measures those of the paper;
others are left out. Parameters and images per second, of inference in fp32, are those that efficiency.py wrote with
--json, for its first image size.
"""
import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Dict

import yaml

from lib.measure import Cost, Results, Speed
from lib.published import INFERENCE, PAPER
from lib.report import BLUE, GREY, ROOT, docstring_body, output_file, require_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def load_accuracies(root: Path = ROOT) -> Dict[str, float]:
    """Top-1 accuracy in percent by the model's name in the benchmark."""
    return {
        file.name.split('.')[0]: yaml.safe_load(file.read_text(encoding='utf-8'))['metrics']['top1']
        for folder in ('hub_configs', 'docs') for file in sorted((root / folder).glob('*.fashion_mnist.yaml'))
        if file.name.split('.')[0] in PAPER}


def load_results(report: Path) -> Results:
    """The measurements of the first image size in a report of efficiency.py.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no such report.
    """
    try:
        first = json.loads(report.read_text(encoding='utf-8'))['results'][0]
        return Results([Cost(**cost) for cost in first['costs']], [Speed(**speed) for speed in first['speeds']])
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"'{report}' is no report: write it with `python scripts/benchmarks/efficiency.py --json {report}`."
        ) from error


def draw(accuracies: Dict[str, float], results: Results) -> 'Figure':
    """One chart for parameters and one for images per second, with a point for each model.

    Raises:
        ValueError: The benchmark did not measure a model.
    """
    from matplotlib.figure import Figure
    missing = [
        name for name in accuracies
        if results.cost(name) is None or (speed := results.speed(name, INFERENCE)) is None or speed.error]
    if missing:
        raise ValueError(
            f'The report lacks {", ".join(missing)}: run scripts/benchmarks/efficiency.py with --models that include '
            'them.')
    size, batch_size = results.costs[0].image_size, results.costs[0].batch_size
    figure = Figure(figsize=(14, 5), dpi=150, layout='constrained')
    charts = left, right = figure.subplots(1, 2, sharey=True)
    for name, top1 in accuracies.items():
        color = BLUE if name.startswith('wavemix') else GREY
        values = results.cost(name).params / 1e6, results.speed(name, INFERENCE).images_per_second
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.partition('\n')[0],
        epilog=docstring_body(__doc__),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('report', metavar='JSON', type=Path, help='measurements of scripts/benchmarks/efficiency.py')
    parser.add_argument(
        '--output', metavar='PNG', type=output_file, default='accuracy.png', help='picture (default: %(default)s)')
    args = parser.parse_args()
    require_matplotlib()
    try:
        draw(load_accuracies(), load_results(args.report)).savefig(args.output, format='png')
    except (OSError, ValueError) as error:
        sys.exit(f'{parser.prog}: {error}')
    print(args.output)


if __name__ == '__main__':
    main()
