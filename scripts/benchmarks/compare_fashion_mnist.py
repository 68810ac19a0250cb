"""Train models of the WaveMix paper's comparison on one image folder, with equal updates and with equal time.

What it will cost is measured first, on a few steps of each model, and printed; nothing else should run then. A run that
was cut off goes on from the last finished epoch when it is started again, to the same end. The models of other
libraries need `pip install --group baselines`.
"""
import statistics
from functools import partial
from pathlib import Path
from typing import Dict, List, Optional

from scripts.benchmarks.common import command, report
from scripts.benchmarks.common import comparison_report as texts
from scripts.benchmarks.common.comparison import BUDGETS, Report, Row, Run
from scripts.benchmarks.common.comparison_setup import add_arguments, compare
from scripts.benchmarks.common.paper import FAMILIES, TOP1, family

NAME = 'compare_fashion_mnist'
METHOD = """\
Every model gets two budgets. With equal updates it sees the same batches of the same images in the same order as all
others. With equal time it makes the updates that fit, by the measured step; reading the images does not count.

For each budget a model gets a learning rate of its own: each rate is tried with the whole budget and the first seed,
and the one with the highest top-1 on images of validation/ is taken. With that rate it is trained for every seed: the
first seed's training is the one that was tried. No model has dropout.

Images per second come from a training step that was measured before, in the median of five rounds over all models."""
DEFAULT = (  # the paper's own families, and one model each of the two best others
    *(name for family in ('WaveMix', 'WaveMix-Lite', '2-D FNet', '2-D MLP-Mixer') for name in FAMILIES[family]),
    'resnet18_3x3', 'convmixer_256_8')
CIFAR10 = {name: top1 for name, (top1, *_) in TOP1[1].items()}  # the paper's, in percent


def means(rows: List[Row]) -> Dict[str, float]:
    return {row.name: statistics.mean(row.top1) for row in rows if not row.error}


def findings(results: Report) -> List[str]:
    """What the tables show."""
    sentences = []
    for budget, rows in texts.by_budget(results.rows).items():
        accuracies = means(rows)
        if len(accuracies) > 1:
            first, second, *_ = sorted(accuracies, key=accuracies.get, reverse=True)
            best, next_best = (
                f'`{name}` with {texts.accuracy_text(results.row(name, budget))} %' for name in (first, second))
            sentences.append(f'- With {budget}, {best} leads, and {next_best} is next.')
    rates = results.settings.lrs
    if len(rates) > 1:
        at_the_edge = [row for row in results.rows if not row.error and row.results[0].lr in (min(rates), max(rates))]
        sentences.append(
            f'- In {len(at_the_edge)} of {len(results.rows)} rows the best learning rate is the highest or the lowest '
            'one, so a wider grid may change the order.')
    return sentences


def markdown(results: Report, stem: Path) -> str:
    settings = results.settings
    columns = [*texts.COLUMNS, (
        "paper's CIFAR-10 (%)", lambda row: f'{CIFAR10[row.name]:.2f}' if row.name in CIFAR10 else '–')]
    parts = [
        report.head(
            'Models of the paper, with equal updates and with equal time', NAME, stem, results.command,
            settings.machine, settings.software),
        texts.settings_text(settings),
    ]
    for budget, rows in texts.by_budget(results.rows).items():
        parts += [f'## {texts.budget_title(budget, settings)}', report.table(columns, rows)]
        same, pairs = texts.same_order(means(rows), CIFAR10)
        if pairs:
            parts.append(
                f'{same} of the {pairs} pairs of models that the paper has are in the order of its CIFAR-10 column.')
    return report.pages([
        *parts,
        f'![Accuracy against parameters and against speed]({stem.name}.png)',
        '## What this shows, and what not',
        '\n'.join(findings(results)),
        f"{texts.CAVEATS} The paper's column has other images: compare its order, not its figures.",
        '## Method',
        METHOD,
        texts.METHOD,
        *texts.errors(results.rows),
    ])


def draw(results: Report):
    return texts.draw(results, lambda row: family(row.model))


def main(argv: Optional[List[str]] = None) -> None:
    parser = command.make_parser(NAME, __doc__)
    models = [name for names in FAMILIES.values() for name in names]
    parser.add_argument(
        '--models', nargs='+', choices=models, default=DEFAULT, metavar='NAME',
        help=f'models to train, of {", ".join(models)} (default: {", ".join(DEFAULT)})')
    parser.add_argument(
        '--seconds', type=command.positive_float, default=30., metavar='N',
        help='length of a training where time is equal (default: %(default)s)')
    add_arguments(parser, 150, [1e-3, 3e-3, 1e-2], NAME)
    command.run(
        parser, partial(
            report.work, NAME, Report.from_json,
            lambda args: compare(NAME, [Run(name, name) for name in args.models], BUDGETS, args), markdown, draw),
        argv, 'the same command goes on from the last finished epoch')


if __name__ == '__main__':
    main()
