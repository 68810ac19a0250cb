"""What was measured here of the paper's claims: the JSON in docs/results/, and accuracies of finished trainings."""
import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Tuple

import yaml

from scripts.benchmarks.common.command import ROOT
from scripts.benchmarks.common.comparison import Report, Row
from scripts.benchmarks.common.comparison_report import difference, larger_deviation
from scripts.benchmarks.common.measure import Cost, Results
from scripts.benchmarks.common.step import FP32

REFERENCE = 'wavemix_16_5'  # of the ablation


class NotMeasuredError(LookupError):
    """There is no such figure."""


@dataclass
class Evidence:
    """The figures by report. Each method raises `NotMeasuredError` if its figure is missing."""
    reports: Dict[str, Dict[str, Any]] = field(default_factory=dict)  # the JSON in docs/results/, by name
    fashion_mnist: Dict[str, float] = field(default_factory=dict)  # top-1 in percent of the models trained to the end
    reruns: Dict[int, Dict[str, Any]] = field(default_factory=dict)  # the JSON of rerun_paper, by table

    def report(self, name: str) -> Dict[str, Any]:
        if name not in self.reports:
            raise NotMeasuredError(name)
        return self.reports[name]

    # efficiency

    def efficiency(self, image_size: int) -> Results:
        for values in self.report('efficiency')['results']:
            results = Results.from_json(values)
            if results.costs[0].image_size == image_size:
                return results
        raise NotMeasuredError(f'efficiency at {image_size}x{image_size}')

    def cost(self, model: str, image_size: int = 32) -> Cost:
        cost = self.efficiency(image_size).cost(model)
        if cost is None or cost.error:
            raise NotMeasuredError(model)
        return cost

    def memory(self, model: str, image_size: int = 32) -> int:
        """Bytes that autograd keeps for the backward pass of a batch, in fp32."""
        return self.cost(model, image_size).saved_bytes[FP32]

    def speed(self, model: str, mode: str) -> float:
        """Images per second at 32x32, as a ratio to ResNet-18."""
        speed = self.efficiency(32).speed(model, mode)
        ratio = None if speed is None else speed.ratio('resnet18_3x3')
        if ratio is None:
            raise NotMeasuredError(model)
        return ratio

    # growth

    def growth(self, model: str, quantity: str) -> float:
        """The cost of a pixel of a 256x256 image, as a ratio to one in 64 images of 32x32."""
        pixels = {(p['model'], p['batch_size'], p['image_size']): p[quantity] for p in self.report('growth')['pixels']}
        large, small = pixels.get((model, 1, 256)), pixels.get((model, 64, 32))
        if large is None or small is None:
            raise NotMeasuredError(model)
        return large / small

    # Accuracies, in percent

    def trained(self, model: str) -> float:
        """Top-1 on Fashion-MNIST after a full training."""
        if model not in self.fashion_mnist:
            raise NotMeasuredError(model)
        return self.fashion_mnist[model]

    def row(self, report: str, name: str) -> Row:
        """What came of a model after the few updates of the comparison or the ablation."""
        row = Report.from_json(self.report(report)).row(name)
        if row is None:
            raise NotMeasuredError(name)
        return row

    def variant(self, name: str) -> Tuple[Row, Row]:
        """A variant of the ablation, and the unchanged model."""
        return self.row('ablation', f'{REFERENCE}.{name}'), self.row('ablation', REFERENCE)

    def variant_lead(self, name: str) -> float:
        """Points of mean top-1 by which a variant of the ablation is ahead of the unchanged model."""
        return difference(*self.variant(name))

    def deviation(self, name: str) -> float:
        """The larger standard deviation of the seeds, of a variant of the ablation and of the unchanged model."""
        both = self.variant(name)
        if min(len(row.results) for row in both) < 2:
            raise NotMeasuredError('deviation')
        return larger_deviation(*both)

    def variant_cost(self, name: str, quantity: str) -> float:
        """A cost of a variant of the ablation, as a ratio to the unchanged model's."""
        rows = (self.report('ablation').get('costs') or {'rows': {}})['rows']
        if f'{REFERENCE}.{name}' not in rows or REFERENCE not in rows:
            raise NotMeasuredError(name)
        return rows[f'{REFERENCE}.{name}'][quantity] / rows[REFERENCE][quantity]

    def variant_params(self, name: str) -> float:
        """Parameters of a variant of the ablation, as a ratio to the unchanged model's."""
        variant, reference = (row.results[0].params for row in self.variant(name))
        return variant / reference

    def rerun(self, table: int) -> Dict[str, Dict[str, float]]:
        """Top-1 of the best seed in its last epoch, by data set and model, of a table that was trained again."""
        if table not in self.reruns:
            raise NotMeasuredError(f'table {table}')
        found: Dict[str, Dict[str, float]] = {}
        for result in self.reruns[table]['results']:
            found.setdefault(result['data'], {})[result['model']] = max(
                epochs[-1]['top1'] for epochs in result['trainings'])
        return found

    def rotated(self, model: str, degrees: int) -> float:
        """Points of top-1 that turning the test images costs a shipped model."""
        top1 = self.report('rotation')['top1'].get(model, {})
        if f'rotation {degrees}' not in top1:
            raise NotMeasuredError(model)
        return top1['clean'] - top1[f'rotation {degrees}']


def load_evidence(root: Path = ROOT) -> Evidence:
    """All that a checkout has of it."""
    def load_json(file: Path) -> Dict[str, Any]:
        return json.loads(file.read_text(encoding='utf-8'))

    with open(root / 'docs/results/results-fashion_mnist.csv', newline='', encoding='utf-8') as file:
        top1 = {row['model'].split('.')[0]: float(row['top1']) for row in csv.DictReader(file)}
    for file in root.glob('docs/peers/*.metadata.yaml'):
        top1[file.name.split('.')[0]] = yaml.safe_load(file.read_text(encoding='utf-8'))['metrics']['top1']
    return Evidence(
        {file.stem: load_json(file) for file in root.glob('docs/results/*.json')}, top1,
        {int(file.stem.rpartition('_')[2]): load_json(file) for file in root.glob('docs/reruns/table_*.json')})
