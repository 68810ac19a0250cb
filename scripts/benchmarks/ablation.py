"""Train WaveMix with something else instead of its Haar transform, or with fewer levels, on one image folder.

What it will cost is measured first, on a few steps of each model, and printed; nothing else should run then. A run that
was cut off goes on from the last finished epoch when it is started again, to the same end. The wavelets need
`pip install -e '.[wavelets]'`.
"""
import argparse
import statistics
from functools import partial
from pathlib import Path
from typing import List, Optional, Sequence

from scripts.benchmarks.common import command, report
from scripts.benchmarks.common import comparison_report as texts
from scripts.benchmarks.common.comparison import EQUAL_UPDATES, Report, Row, Run
from scripts.benchmarks.common.comparison_setup import add_arguments, compare
from scripts.benchmarks.common.paper import FAMILIES
from scripts.benchmarks.models.transforms import FEWER_LEVELS, VARIANTS

NAME = 'ablation'
METHOD = """\
Each variant has the shapes of its model, and trains with the same batches of the same images in the same order, at one
learning rate. The variants are other wavelets, average pooling, which is the LL band alone, four learned 2x2 filters of
stride 2 for each channel ("learned"), and one dense 2x2 convolution of stride 2 instead of Haar and the 1x1 convolution
after it ("dense"). "dense" is the control: it is the same layer as Haar's up to an orthogonal change of its weights, on
the same code path. "1_levels" to "3_levels" are the model with fewer levels of Haar than its 4."""
MODELS = 'wavemix_16_5', 'wavemix_lite_128_7'
CHOICES = FAMILIES['WaveMix'] + FAMILIES['WaveMix-Lite']


def list_runs(models: Sequence[str]) -> List[Run]:
    """Every variant of the models."""
    runs = []
    for model in models:
        variants = {**VARIANTS, **FEWER_LEVELS} if model in FAMILIES['WaveMix'] else VARIANTS
        for name, variant in variants.items():
            runs.append(Run(model if name == 'haar' else f'{model}.{name}', model, variant))
    return runs


def difference(row: Row, haar: Row) -> float:
    """In points of mean accuracy."""
    return statistics.mean(row.top1) - statistics.mean(haar.top1)


def findings(results: Report) -> List[str]:
    """What the table shows of each model: differences to Haar beside the standard deviation of its seeds."""
    sentences = []
    for model in dict.fromkeys(row.model for row in results.rows):
        haar = results.row(model)
        others = [row for row in results.rows if row.model == model and row.name != model and not row.error]
        if haar is None or len(haar.top1) < 2 or not others:
            continue
        deviation = texts.standard_deviation(haar.top1)
        more = [
            f'{row.name.partition(".")[2]} {difference(row, haar):+.1f}' for row in others
            if abs(difference(row, haar)) > deviation]
        less = [
            f'{row.name.partition(".")[2]} {difference(row, haar):+.1f}' for row in others
            if abs(difference(row, haar)) <= deviation]
        sentences.append(
            f'- `{model}`: points of top-1 against Haar that exceed the standard deviation of its seeds, '
            f'{deviation:.1f}: {", ".join(more) or "none"}. Within it: {", ".join(less) or "none"}.')
    return sentences


def markdown(results: Report, stem: Path) -> str:
    settings = results.settings
    return report.pages([
        report.head(
            'Other transforms than Haar in WaveMix', NAME, stem, results.command, settings.machine, settings.software),
        texts.settings_text(settings),
        f'## {texts.budget_title(EQUAL_UPDATES, settings)}',
        report.table(texts.COLUMNS, results.rows),
        f'![Accuracy against parameters and against speed]({stem.name}.png)',
        '## What this shows, and what not',
        '\n'.join(findings(results)),
        texts.CAVEATS,
        '## Method',
        METHOD,
        texts.METHOD,
        *texts.errors(results.rows),
    ])


def draw(results: Report):
    return texts.draw(results, lambda row: row.model)


def measure(args: argparse.Namespace) -> Optional[Report]:
    args.seconds = 0.  # there is no equal time
    return compare(NAME, list_runs(args.models), [EQUAL_UPDATES], args)


def main(argv: Optional[List[str]] = None) -> None:
    parser = command.make_parser(NAME, __doc__)
    parser.add_argument(
        '--models', nargs='+', choices=CHOICES, default=MODELS, metavar='NAME',
        help=f'models to change, of {", ".join(CHOICES)} (default: {", ".join(MODELS)})')
    add_arguments(parser, 500, [3e-3], NAME)
    command.run(
        parser, partial(report.work, NAME, Report.from_json, measure, markdown, draw), argv,
        'the same command goes on from the last finished epoch')


if __name__ == '__main__':
    main()
