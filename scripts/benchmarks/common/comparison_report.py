"""The report of trainings that differ only in the model."""
import math
import statistics
from itertools import combinations
from typing import TYPE_CHECKING, Callable, Dict, List, Sequence, Tuple

from scripts.benchmarks.common import report
from scripts.benchmarks.common.comparison import EQUAL_UPDATES, Report, Row, Settings
from scripts.benchmarks.common.report import three_digits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHOD = """\
All models train with AdamW and a weight decay of 0.02, with a cosine schedule after a warm-up of one epoch, or a
quarter of the training if that is shorter. There is no EMA, which would lag behind in short trainings. Training images
are drawn from each class alike, others for each seed.

Accuracy is measured with the last weights, on test images that are the same for every seed and choose nothing."""
CAVEATS = """\
This is how far each model comes with little training, not how accurate it gets when trained to the end, as in the
paper: one that learns more slowly may end up better. The running averages of batch norms lag behind in a training of
few updates, so a model is worse in evaluation than its loss says: after a dozen updates, it may be no better than
chance."""


def standard_deviation(values: Sequence[float]) -> float:
    """Of a sample, 0 for a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.


def difference(row: Row, reference: Row) -> float:
    """In points of mean accuracy."""
    return statistics.mean(row.top1) - statistics.mean(reference.top1)


def larger_deviation(row: Row, reference: Row) -> float:
    """The larger standard deviation of the two's seeds: what a difference has to exceed to count."""
    return max(standard_deviation(row.top1), standard_deviation(reference.top1))


def accuracy_text(row: Row) -> str:
    """Mean and standard deviation of the seeds, in percent."""
    spread = f' ± {standard_deviation(row.top1):.1f}' if len(row.top1) > 1 else ''
    return f'{statistics.mean(row.top1):.1f}{spread}'


def same_order(ours: Dict[str, float], papers: Dict[str, float]) -> Tuple[int, int]:
    """How many pairs of models the two put in the same order, and how many there are."""
    pairs = list(combinations([name for name in ours if name in papers], 2))
    return sum((ours[a] - ours[b]) * (papers[a] - papers[b]) > 0 for a, b in pairs), len(pairs)


def or_dash(cell: Callable[[Row], str], failed: str = '–') -> Callable[[Row], str]:
    return lambda row: failed if row.error else cell(row)


COLUMNS: List[report.Column] = [
    ('model', lambda row: f'`{row.name}`'),
    ('params (M)', or_dash(lambda row: f'{row.results[0].params / 1e6:.2f}')),
    ('top-1 (%)', or_dash(accuracy_text, 'failed')),
    ('learning rate', or_dash(lambda row: f'{row.results[0].lr:g}')),
    ('updates', or_dash(lambda row: f'{row.results[0].updates}')),
    ('training (images/s)', or_dash(lambda row: three_digits(row.images_per_second))),
    ('loss in the last epoch', or_dash(
        lambda row: f'{statistics.mean(result.losses[-1] for result in row.results):.2f}')),
]


def settings_text(settings: Settings) -> str:
    """What the trainings have in common."""
    rates = ', '.join(f'{lr:g}' for lr in settings.lrs)
    chosen = f', the best of {rates} on {settings.validation_images:,} validation images' if len(settings.lrs) > 1 \
        else f' {rates}'
    augmentation = 'no augmentation' if settings.no_aug else 'random crops and horizontal flips'
    return (
        f'Images of {settings.image_size}x{settings.image_size} in {len(settings.classes)} classes, '
        f'{settings.images:,} of them for training; batches of {settings.batch_size}; learning rate{chosen}; seeds '
        f'{", ".join(map(str, settings.seeds))}; {augmentation}; {settings.precision}. Top-1 is measured on '
        f'{settings.test_images:,} test images: mean ± standard deviation of the seeds. It includes the choice of '
        'weights and training images, but not the choice of the test images, which are the same for all. Their '
        'standard error is up to '
        f'{50 / math.sqrt(settings.test_images):.1f} points.')


def by_budget(rows: Sequence[Row]) -> Dict[str, List[Row]]:
    budgets: Dict[str, List[Row]] = {}
    for row in rows:
        budgets.setdefault(row.budget, []).append(row)
    return budgets


def budget_title(budget: str, settings: Settings) -> str:
    amount = f'{settings.updates} updates' if budget == EQUAL_UPDATES else f'{settings.seconds:g} seconds'
    return f'{budget.capitalize()}: {amount}'


def errors(rows: Sequence[Row]) -> List[str]:
    return [f'`{row.name}`: {row.error}' for row in rows if row.error]


def draw(results: Report, family: Callable[[Row], str]) -> 'Figure':
    """Accuracies against parameters, and against images per second in training, a pair of charts for each budget."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator
    settings, budgets = results.settings, by_budget(results.rows)
    figure = Figure(figsize=(13, 5.5 * len(budgets)), dpi=150, layout='constrained')
    grid = figure.subplots(len(budgets), 2, sharey='row', squeeze=False)
    for (budget, rows), charts in zip(budgets.items(), grid):
        left, right = charts
        for row, style in zip(rows, report.marker_styles([family(row) for row in rows])):
            if not row.error:
                mean, deviation = statistics.mean(row.top1), standard_deviation(row.top1)
                for chart, x in (left, row.results[0].params / 1e6), (right, row.images_per_second):
                    chart.errorbar(x, mean, deviation, elinewidth=0.8, label=row.name, **style)
        left.set(xlabel='parameters (million)', ylabel='top-1 (%), ± standard deviation', title=budget)
        right.set(
            xlabel=f'training (images/s of {settings.image_size}x{settings.image_size}, {settings.precision})',
            title=budget)
        for chart in charts:
            chart.set(xscale='log')
            chart.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            chart.xaxis.set_major_formatter('{x:g}')
            chart.xaxis.set_minor_formatter('')  # in less than a decade, labels of the minor ticks overlap
            chart.grid(color='#dddddd')
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc='outside right center')
    return figure
