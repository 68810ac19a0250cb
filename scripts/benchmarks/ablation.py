"""Train WaveMix-16/5 with one part changed at a time, on one image folder.

What it will cost is measured first, on a few steps of each variant, and printed; nothing else should run then. A run
that was cut off goes on from the last finished epoch when it is started again, to the same end. `--costs` adds to the
report what a batch of each variant costs, in time and memory. The wavelets need `pip install -e '.[wavelets]'`.
"""
import argparse
from functools import partial
from typing import List, Optional, Sequence

import torch

from scripts.benchmarks.ablation_report import MODEL, NAME, Report, draw, markdown
from scripts.benchmarks.common import command, report
from scripts.benchmarks.common.comparison import EQUAL_UPDATES, Run, create
from scripts.benchmarks.common.comparison_setup import add_arguments, compare
from scripts.benchmarks.common.costs import Costs, measure_costs
from scripts.benchmarks.models.variants import GROUPS

VARIANTS = {name: variant for group in GROUPS.values() for name, variant in group.items()}


def list_runs(variants: Sequence[str]) -> List[Run]:
    """The model, and its variants of these names."""
    return [Run(MODEL, MODEL), *(Run(f'{MODEL}.{name}', MODEL, VARIANTS[name]) for name in variants)]


def costs_of(results: Report, device: torch.device) -> Costs:
    """What a batch of each variant costs that was trained."""
    trained = {row.name for row in results.rows if not row.error}
    settings = results.settings
    creators = {
        run.name: partial(create, run, len(settings.classes), settings.image_size)
        for run in list_runs([*VARIANTS]) if run.name in trained}
    return measure_costs(NAME, creators, settings.image_size, device)


def measure(args: argparse.Namespace) -> Optional[Report]:
    if args.costs:
        results = report.load_json(report.file_of(args.output, '.json'), NAME, Report.from_json)
        results.costs = costs_of(results, args.device)
        return results
    args.seconds = 0.  # there is no equal time
    trained = compare(NAME, list_runs(args.variants), [EQUAL_UPDATES], args)
    return trained and Report(**vars(trained))


def main(argv: Optional[List[str]] = None) -> None:
    parser = command.make_parser(NAME, __doc__)
    parser.add_argument(
        '--variants', nargs='+', choices=VARIANTS, default=[*VARIANTS], metavar='NAME',
        help=f'variants to train beside {MODEL}, of {", ".join(VARIANTS)} (default: all)')
    parser.add_argument(
        '--costs', action='store_true', help='train nothing, measure the costs of what is in STEM.json')
    add_arguments(parser, 300, [5e-3], NAME)
    parser.set_defaults(images='all', test_images='2000', aug=False, precision='fp32')  # as in docs/results/ablation.md
    command.run(
        parser, partial(report.work, NAME, Report.from_json, measure, markdown, draw), argv,
        'the same command goes on from the last finished epoch')


if __name__ == '__main__':
    main()
