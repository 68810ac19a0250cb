"""The report of the ablation: each variant beside the model, in accuracy and in cost."""
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from scripts.benchmarks.common import comparison, report
from scripts.benchmarks.common import comparison_report as texts
from scripts.benchmarks.common.comparison import Row
from scripts.benchmarks.common.comparison_report import difference, larger_deviation, standard_deviation
from scripts.benchmarks.common.costs import Costs
from scripts.benchmarks.models.variants import GROUPS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = 'ablation'
MODEL = 'wavemix_16_5'
METHOD = """\
The model is WaveMix-16/5: the Haar transform, 4 levels, an MLP of factor 1 for each level, transposed convolutions, no
dropout. A variant changes one thing, and trains with the same batches of the same images in the same order, at one
learning rate.

- `inverse_dwt` (section 3.2): the four outputs for each of a level's 4 channels are the sub-bands of an inverse Haar
  transform. It is continued to full size with details of zero, which is nearest-neighbour interpolation. A 1x1
  convolution and an inverse Haar transform together are a transposed convolution with a kernel and a stride of 2.
- `bilinear`: bilinear interpolation, which keeps the channels, so the MLPs have 4 outputs instead of 16.
- `no_conv_dw`: without the depth-wise 5x5 convolution. `mlp_ratio_2` and `mlp_ratio_4`: 2 or 4 times as many hidden
  channels. `shared_mlp`: one MLP for all levels of a block.
- `dropout_0.1` to `dropout_0.5`: this rate after both convolutions of the MLPs.
- `1_levels` to `5_levels`: fewer levels, or one more, which share the 16 channels.
- `db2`, `sym4`, `bior2.2`: other wavelets. `average_pooling`: the LL band alone. `learned`: four learned 2x2 filters of
  stride 2 for each channel. `dense`: one 2x2 convolution of stride 2 instead of Haar and the 1x1 convolution after it.
  It is the control: the same layer as Haar's up to an orthogonal change of its weights, on the same code path.
- `lite_equal_width` (section 3.3): WaveMix-Lite-16/5. `lite_equal_params`: WaveMix-Lite-41/5, of 5 blocks the width
  that comes nearest to the model's parameters.

The size was chosen on 2,000 validation images, with the model alone. With random crops and flips, two seeds differed by
3 points after 300 updates. Without them, as in the paper, they had a standard deviation of 0.5, and a mean of 79.8 %
at a learning rate of 0.005 and 79.0 % at 0.01."""


@dataclass
class Report(comparison.Report):
    costs: Optional[Costs] = None  # None before they are measured

    @classmethod
    def from_json(cls, values: Dict[str, Any]) -> 'Report':
        costs = values['costs'] and Costs.from_json(values['costs'])
        return cls(**vars(comparison.Report.from_json(values)), costs=costs)

    def variants(self, group: str) -> Dict[str, Row]:
        """The rows of a group, without what failed or was not trained, by the names of their variants."""
        rows = {name: self.row(f'{MODEL}.{name}') for name in GROUPS[group]}
        return {name: row for name, row in rows.items() if row}


def exceeds(row: Row, reference: Row) -> bool:
    """Whether the difference is larger than the standard deviation of either's seeds."""
    return abs(difference(row, reference)) > larger_deviation(row, reference)


def findings(results: Report) -> List[str]:
    """A sentence for each group."""
    reference = results.row(MODEL)
    sentences = []
    for group in GROUPS if reference else ():
        rows = results.variants(group)
        texts_of = {
            name: f'{name} {difference(row, reference):+.1f}' for name, row in rows.items()}
        more = [texts_of[name] for name, row in rows.items() if exceeds(row, reference)]
        less = [texts_of[name] for name, row in rows.items() if not exceeds(row, reference)]
        if rows:
            sentences.append(
                f'- {group}: beyond the standard deviation {", ".join(more) or "none"}; within it '
                f'{", ".join(less) or "none"}.')
    return sentences


def accuracy_table(results: Report) -> str:
    reference = results.row(MODEL)
    columns: List[report.Column] = [
        ('variant', lambda row: f'`{row.name}`'),
        ('parameters', lambda row: f'{row.results[0].params:,}'),
        ('top-1 (%)', texts.accuracy_text),
        ('difference (points)', lambda row: '' if row is reference else f'{difference(row, reference):+.1f}'),
        ('exceeds the deviation', lambda row: 'yes' if exceeds(row, reference) else ''),
        ('loss in the last epoch', lambda row: f'{statistics.mean(r.losses[-1] for r in row.results):.2f}'),
    ]
    return report.table(columns, [row for row in results.rows if not row.error])


def costs_text(costs: Costs) -> str:
    reference = costs.rows[MODEL]

    def column(title: str, key: str, scale: float) -> List[report.Column]:
        def value(name: str) -> float:
            return getattr(costs.rows[name], key)

        return [
            (title, lambda name: report.three_digits(scale * value(name))),
            ('', lambda name: f'{value(name) / getattr(reference, key):.2f}')]

    columns: List[report.Column] = [
        ('variant', lambda name: f'`{name}`'),
        *column('training (ms)', 'train_seconds', 1e3), *column('inference (ms)', 'inference_seconds', 1e3),
        *column('kept (MB)', 'saved_bytes', 1e-6)]
    return (
        f'Of a batch of {costs.batch_size} images of {costs.image_size}x{costs.image_size} in {costs.precision}: '
        'forward and backward in training, forward in inference, and what autograd keeps for the backward pass, '
        'without the parameters. Each runs in its faster memory format. Beside each figure, the ratio to the model. '
        'Measured on '
        f'{costs.machine}, with {costs.software}, by\n\n```sh\n{costs.command}\n```\n\n'
        + report.table(columns, costs.rows))


def markdown(results: Report, stem: Path) -> str:
    settings = results.settings
    parts = [
        report.head(
            'WaveMix-16/5 with one part changed', NAME, stem, results.command, settings.machine, settings.software),
        texts.settings_text(settings),
        f'## Accuracy after {settings.updates} updates',
        accuracy_table(results),
        f'![Differences in accuracy]({stem.name}.png)',
        'A difference exceeds the deviation if it is larger than the standard deviations of both rows. With three '
        f'seeds and {len(results.rows) - 1} variants, a few may do so by chance. Points against the model:',
        '\n'.join(findings(results)),
        texts.CAVEATS,
    ]
    if results.costs:
        parts += ['## Cost', costs_text(results.costs)]
    return report.pages([*parts, '## Method', METHOD, texts.METHOD, *texts.errors(results.rows)])


def draw(results: Report) -> 'Figure':
    """The differences of all variants, with the standard deviations of their seeds, beside the model's."""
    from matplotlib.figure import Figure
    reference = results.row(MODEL)
    figure = Figure(figsize=(8, 7), dpi=150, layout='constrained')
    chart = figure.subplots()
    deviation = standard_deviation(reference.top1)
    chart.axvspan(-deviation, deviation, color='#dddddd', label='± standard deviation of the model')
    names: List[str] = []
    for group, color in zip(GROUPS, report.COLORS):
        rows = results.variants(group)
        if rows:
            chart.errorbar(
                [difference(row, reference) for row in rows.values()], range(len(names), len(names) + len(rows)),
                xerr=[standard_deviation(row.top1) for row in rows.values()], fmt='o', color=color, label=group)
        names += rows
    chart.set_yticks(range(len(names)), names)
    chart.invert_yaxis()
    chart.set(xlabel=f'top-1 against {MODEL} (points), ± standard deviation')
    chart.grid(color='#eeeeee', axis='x')
    chart.legend()
    return figure
