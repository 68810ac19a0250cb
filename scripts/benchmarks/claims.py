"""Write docs/paper.md: the claims of the WaveMix paper, what was measured of them here, and a verdict on each.

Nothing is measured: each verdict follows by a rule from the paper's figures and the committed results.
"""
import argparse
from collections import Counter
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence

from scripts.benchmarks.common import claim_rules as rules
from scripts.benchmarks.common import command, report
from scripts.benchmarks.common.claim_rules import WAVES, Rule
from scripts.benchmarks.common.evidence import Evidence, NotMeasuredError, load_evidence
from scripts.benchmarks.common.paper import DATA_SETS, FAMILIES, MEMORY_SHARES, PAPER
from scripts.benchmarks.common.step import INFERENCE, TRAIN

NAME = 'claims'
SECTIONS = {
    'Abstract': 'Abstract', '3.2': '3.2 WaveMix block', '3.3': '3.3 WaveMix-Lite block', '5.1': '5.1 Notation',
    '5.2': '5.2 Main results', '5.3': '5.3 Comparison with ResNets', '5.4': '5.4 Speed',
    '6': '6 Conclusions and discussion'}
INTRODUCTION = """\
Is the [WaveMix paper](https://arxiv.org/abs/2203.03689) right? These tables have a row for each claim of its abstract
and of sections 3.2, 3.3, 5.1 to 5.4 and 6, in our words. The verdict follows by a rule from the figures beside it:

- *holds*: everything that was compared is as the paper says; *half*: a part of it; *does not hold*: nothing.
- *not tested*: there is no result. The last column has the command that gives one, or why there is none.

The reports in the last column have the machine and the command. Memory and speed were measured on a CPU in fp32, the
paper's on a V100 in mixed precision. Our memory is what the forward pass keeps for the backward pass. A short training,
as in the ablation too, shows how a model starts and not how accurate it gets; its report has the number of updates."""
RULES = f"""\
- "Less", "fewer", "faster" and "more accurate" compare each model or pair of models that the claim is about. Of pairs,
  only those count that the paper's own tables have in favour of WaveMix.
- A share of another model's memory holds up to {rules.ROUNDING:g} times the paper's, and by half if only below 1.
- Accuracies are comparable if the first model is at most {rules.COMPARABLE:g} point behind.
- In the ablation, a difference in accuracy counts if it exceeds the standard deviations of the seeds of both models,
  and one in time if it exceeds {100 * (rules.NOISE - 1):.0f} %, as the machine is noisy.

`rerun_paper` trains rows of the paper's tables again. Its `table_1.json` to `table_4.json` count here once they are in
`docs/reruns/`, each with the best seed's last epoch."""


class Claim(NamedTuple):
    """A claim, with the rule that judges it."""
    section: str
    text: str
    paper: str  # its figures
    rule: Rule
    source: str  # Markdown: where the figures here come from
    missing: str  # Markdown: the command that gives them, or why there are none


def measured_by(section: str, name: str, text: str, paper: str, rule: Rule, options: str = '') -> Claim:
    """A claim on which a report in docs/results/ has the figures."""
    return Claim(
        section, text, paper, rule, f'[{name}](results/{name}.md)',
        f'`python -m scripts.benchmarks.{name}{options}`')


def by_ablation(section: str, text: str, rule: Rule) -> Claim:
    return measured_by(section, 'ablation', text, '–', rule, ' --data-dir fashion_mnist')


def by_memory(text: str, model: str, *others: str) -> Claim:
    paper = rules.numbers(MEMORY_SHARES[model, other] for other in others)
    return measured_by('5.2', 'efficiency', text, paper, rules.memory_shares(model, *others))


def by_trainings(section: str, text: str, paper: str, rule: Rule) -> Claim:
    """A claim on which trainings to the end on Fashion-MNIST have the figures."""
    return Claim(
        section, text, paper, rule, '[trainings](training.md#what-the-recipes-reach)',
        '[recipes](training.md#fashion-mnist-from-the-data-to-the-weights)')


def by_rerun(
        section: str, text: str, paper: str, rule: Rule, table: int, data: Sequence[str],
        models: Sequence[str]) -> Claim:
    """A claim on which trainings by the paper's protocol have the figures."""
    return Claim(
        section, text, paper, rule, f'`docs/reruns/`, table {table}',
        f'`python -m scripts.benchmarks.rerun_paper --table {table} --data-sets {" ".join(data)} '
        f'--models {" ".join(models)}`')


def most_accurate(section: str, text: str, table: int, data: Sequence[str]) -> Claim:
    top1 = rules.paper_top1(table)
    models = dict.fromkeys(rules.best(top1[name], waves) for waves in (True, False) for name in data)
    return by_rerun(
        section, text, rules.points(rules.leads(top1, data)), rules.most_accurate(table, data), table, data,
        list(models))


def without_experiment(section: str, text: str, reason: str) -> Claim:
    return Claim(section, text, '–', rules.untested, '', reason)


def paper_share(model: str, other: str, size: int = 32) -> float:
    """Of the other model's memory, in the paper's tables."""
    return PAPER[model].memory[size] / PAPER[other].memory[size]


def cifar10(model: str, *others: str) -> str:
    return f'{rules.points(rules.cifar10_leads(model, *others))} (CIFAR-10)'


def cifar10_pairs(models: Sequence[str], others: Sequence[str]) -> str:
    return f'{len(rules.cifar10_pairs(models, others))} of {len(models) * len(others)} pairs (CIFAR-10)'


EMNIST = [name for name in DATA_SETS[2] if name != 'fashion_mnist']
ORDERS = 'vit_128_4x4', 'cct_128_4x4', 'cvt_128_4x4', 'resnet50_3x3'
BATCHES = {mode: PAPER['wavemix_lite_128_7'].largest_batch[mode][32] / PAPER['resnet50_3x3'].largest_batch[mode][32]
           for mode in (TRAIN, INFERENCE)}
SLOW = 'convmixer_256_16', 'hybrid_vin_128_4x4', 'cct_128_4x4'  # of table 5
FNET, MIXER = FAMILIES['2-D FNet'], FAMILIES['2-D MLP-Mixer']
FASHION = rules.paper_top1(2)['fashion_mnist']
FASHION_LEAD = rules.points([FASHION['wavemix_lite_128_7'] - FASHION['resnet18_3x3']]) + ' (Fashion-MNIST)'
CLAIMS = [
    by_trainings(
        'Abstract', 'The accuracy of WaveMix-128/7 is comparable to that of a CNN, ResNet-18', FASHION_LEAD,
        rules.ahead_when_trained('wavemix_lite_128_7', 'resnet18_3x3', -rules.COMPARABLE)),
    measured_by(
        'Abstract', 'efficiency', 'WaveMix needs less memory in training than CNNs, token mixers and transformers',
        f'{len(rules.MEMORY_PAIRS)} of {len(WAVES) * (len(rules.PAPER_MEMORY) - len(WAVES))} pairs', rules.less_memory),
    measured_by(
        'Abstract', 'efficiency', 'It needs less memory in inference: largest batch of 128/7 ÷ ResNet-50',
        report.three_digits(BATCHES[INFERENCE]), rules.larger_batch('wavemix_lite_128_7', 'resnet50_3x3', INFERENCE)),
    measured_by(
        'Abstract', 'efficiency', 'It needs fewer operations: GMACs of 16/5 to 256/7 ÷ ResNet-50', '–',
        rules.fewer('flops', 'resnet50_3x3')),
    measured_by(
        'Abstract', 'efficiency', 'It needs less storage: parameters of 16/5 to 256/7 ÷ ResNet-18',
        rules.numbers(PAPER[name].params / PAPER['resnet18_3x3'].params for name in WAVES),
        rules.fewer('params', 'resnet18_3x3')),
    measured_by(
        'Abstract', 'growth',
        'Its cost does not grow faster than the number of pixels: memory, training and inference of a pixel of 256x256 '
        '÷ one of 32x32', '–', rules.same_cost_of_a_pixel('wavemix_16_5')),
    by_rerun(
        'Abstract', 'It reaches the state of the art on EMNIST Byclass and Balanced',
        rules.numbers(max(rules.paper_top1(2)[name].values()) for name in ('emnist_byclass', 'emnist_balanced')),
        rules.reaches(2, ['emnist_byclass', 'emnist_balanced']), 2, ['emnist_byclass', 'emnist_balanced'],
        ['wavemix_lite_128_7']),

    by_ablation(
        '3.2', 'An inverse DWT instead of the transposed convolutions is slower and takes more memory: training, '
        'inference, memory', rules.costs_more('inverse_dwt')),
    by_ablation(
        '3.2', 'Transposed convolutions spread global information: bilinear up-sampling is less accurate',
        rules.behind('bilinear')),
    by_ablation('3.2', 'The depth-wise convolution mixes the levels: accuracy without it', rules.behind('no_conv_dw')),
    by_ablation('3.2', 'An MLP for each level is better than one for all', rules.behind('shared_mlp')),
    by_ablation(
        '3.2', 'A model needs as many levels as bring the map to 2x2: accuracy with 1, 2 and 3 instead of 4',
        rules.behind('1_levels', '2_levels', '3_levels')),
    by_ablation('3.2', 'It needs no more: accuracy with 5 levels', rules.not_ahead('5_levels')),
    without_experiment(
        '3.2', 'Lower levels capture detail, higher ones global information', 'a conjecture of the paper: no '
        'experiment here looks at single levels'),
    without_experiment(
        '3.2', 'Normalization and residual connections make deeper models possible', 'no experiment here removes them'),

    by_ablation(
        '3.3', 'At equal width, WaveMix-Lite has fewer parameters, takes less memory and trains faster: parameters, '
        'memory, time', rules.lighter('lite_equal_width')),
    by_ablation('3.3', 'An MLP with a factor above 1 helps: accuracy with 2 and 4', rules.ahead(
        'mlp_ratio_2', 'mlp_ratio_4')),
    by_trainings(
        '3.3', 'One level is enough where the model is wide: 128/7 against 64/5, which has more parameters',
        cifar10('wavemix_lite_128_7', 'wavemix_64_5'), rules.ahead_when_trained('wavemix_lite_128_7', 'wavemix_64_5')),
    by_ablation(
        '3.3', 'The same at the size of WaveMix-16/5, with as many parameters', rules.not_behind('lite_equal_params')),
    measured_by(
        '3.3', 'efficiency', 'A model 256 wide trains with batches of 64 in 16 GB: its largest batch at 32x32',
        f"{PAPER['wavemix_lite_256_7'].largest_batch[TRAIN][32]:,}", rules.fits('wavemix_lite_256_7', 64, TRAIN)),

    measured_by(
        '5.1', 'efficiency', 'A name gives width and layers, and so the model: million parameters of 16/5 to 256/7',
        rules.numbers(PAPER[name].params for name in WAVES), rules.as_many_parameters),

    most_accurate(
        '5.2', 'WaveMix is more accurate than ResNets, transformers and token mixers: best WaveMix against the best '
        'other on CIFAR-10, CIFAR-100 and Tiny ImageNet', 1, list(DATA_SETS[1])),
    measured_by(
        '5.2', 'efficiency', 'The model that needs the least memory is a WaveMix',
        PAPER[min(rules.PAPER_MEMORY, key=rules.PAPER_MEMORY.get)].name, rules.least_memory),
    by_trainings(
        '5.2', 'The accuracy of WaveMix-64/5 is comparable to ResNet-18', cifar10('wavemix_64_5', 'resnet18_3x3'),
        rules.ahead_when_trained('wavemix_64_5', 'resnet18_3x3', -rules.COMPARABLE)),
    by_memory("It needs a quarter of ResNet-18's memory", 'wavemix_64_5', 'resnet18_3x3'),
    by_memory("It needs 21 % of ResNet-34's memory", 'wavemix_64_5', 'resnet34_3x3'),
    by_memory(
        'It needs 10 % and 5 % of the memory of ConvMixer-256/8 and -256/16', 'wavemix_64_5', 'convmixer_256_8',
        'convmixer_256_16'),
    by_memory("WaveMix-256/7 needs 70 % of ResNet-50's memory", 'wavemix_lite_256_7', 'resnet50_3x3'),
    by_rerun(
        '5.2', 'WaveMix-16/5 is far more accurate than ViT and Hybrid ViN',
        cifar10('wavemix_16_5', 'vit_128_4x4', 'hybrid_vin_128_4x4'),
        rules.ahead_on_cifar10('wavemix_16_5', 'vit_128_4x4', 'hybrid_vin_128_4x4'), 1, ['cifar10'],
        ['wavemix_16_5', 'vit_128_4x4', 'hybrid_vin_128_4x4']),
    by_memory("It needs less than 2 % of ViT's memory", 'wavemix_16_5', 'vit_128_4x4'),
    by_memory("It needs 6 % of Hybrid ViN's memory", 'wavemix_16_5', 'hybrid_vin_128_4x4'),
    measured_by(
        '5.2', 'compare_fashion_mnist', 'ConvMixer-256/8 is more accurate than FNet and MLP-Mixer',
        cifar10_pairs(['convmixer_256_8'], FNET + MIXER),
        rules.ahead_after_few_updates(['convmixer_256_8'], FNET + MIXER), ' --data-dir fashion_mnist'),
    measured_by(
        '5.2', 'compare_fashion_mnist', 'WaveMix is more accurate than the 2-D FNets', cifar10_pairs(WAVES, FNET),
        rules.ahead_after_few_updates(WAVES, FNET), ' --data-dir fashion_mnist'),
    measured_by(
        '5.2', 'compare_fashion_mnist', 'WaveMix is more accurate than the 2-D MLP-Mixers',
        cifar10_pairs(WAVES, MIXER), rules.ahead_after_few_updates(WAVES, MIXER), ' --data-dir fashion_mnist'),
    by_ablation(
        '5.2', 'The wavelet transform is essential: accuracy with average pooling, learned filters and a dense '
        'convolution instead', rules.behind('average_pooling', 'learned', 'dense')),
    without_experiment(
        '5.2', 'The memory is low because the transform is linear', 'a cause: no experiment here separates it'),

    by_trainings(
        '5.3', 'WaveMix-128/7 is more accurate than ResNet-18 on Fashion-MNIST', FASHION_LEAD,
        rules.ahead_when_trained('wavemix_lite_128_7', 'resnet18_3x3')),
    most_accurate('5.3', 'WaveMix is more accurate than ResNets on the other data sets of table 2', 2, EMNIST),
    most_accurate(
        '5.3', 'WaveMix is more accurate than ResNets on larger data sets and images, table 3', 3, list(DATA_SETS[3])),
    most_accurate('5.3', 'WaveMix is more accurate than ResNets on ImageNet-1k at 64x64, table 4', 4, ['imagenet_64']),
    measured_by(
        '5.3', 'efficiency', 'There it needs less memory: 256/7 ÷ ResNet-50 and ÷ ResNet-101 at 64x64',
        rules.numbers(paper_share('wavemix_lite_256_7', name, 64) for name in ('resnet50_3x3', 'resnet101_3x3')),
        rules.memory_below('wavemix_lite_256_7', 'resnet50_3x3', 'resnet101_3x3', image_size=64),
        ' --sizes 32 64'),

    measured_by(
        '5.4', 'efficiency', 'WaveMix-16/5 is the fastest model of table 5: training and inference ÷ ResNet-18',
        rules.numbers(rules.paper_speeds('wavemix_16_5')), rules.fastest('wavemix_16_5')),
    measured_by(
        '5.4', 'efficiency', 'WaveMix is faster than ConvMixer, Hybrid ViN and CCT',
        f'{2 * 4 * len(SLOW)} of {2 * 4 * len(SLOW)} pairs', rules.faster_than(*SLOW)),

    measured_by(
        '6', 'efficiency', 'WaveMix needs orders of magnitude less memory than transformers and CNNs: 128/7 ÷ ViT, '
        'CCT, CvT and ResNet-50', rules.numbers(paper_share('wavemix_lite_128_7', name) for name in ORDERS),
        rules.orders_of_magnitude_less('wavemix_lite_128_7', *ORDERS)),
    by_ablation(
        '6', 'Other wavelets may be more accurate: db2, sym4 and bior2.2', rules.ahead('db2', 'sym4', 'bior2.2')),
    by_ablation('6', 'A learned transform may be more accurate', rules.ahead('learned')),
    Claim(
        '6', 'Wavelets do not make a model invariant to rotation: accuracy of 16/5 to 256/7 with images rotated by 30 '
        'degrees', '–', rules.loses_accuracy_when_rotated(30), '[rotation](results/rotation.md)',
        '`python -m scripts.benchmarks.robustness fashion_mnist --kinds rotation`'),
    without_experiment(
        '6', 'Wavelets that differ from layer to layer may be more accurate', 'no experiment here has such a model'),
    without_experiment(
        '6', 'The sparseness of the response may be useful', 'no experiment here looks at it'),
]


def judged(claim: Claim, evidence: Evidence) -> List[str]:
    """Its row: claim, the paper's figures, ours, verdict, and where ours come from or would."""
    try:
        here, parts = claim.rule(evidence)
    except NotMeasuredError:
        return [claim.text, claim.paper, '–', rules.OPEN, claim.missing]
    return [claim.text, claim.paper, here, rules.verdict(parts), claim.source]


def markdown(evidence: Evidence) -> str:
    rows = {claim: judged(claim, evidence) for claim in CLAIMS}
    count = Counter(row[3] for row in rows.values())
    parts = [
        '# Is the paper right?',
        'Generated, do not edit. This writes it again:\n\n'
        f'```sh\npython -m scripts.benchmarks.{NAME} --output docs/paper.md\n```',
        INTRODUCTION,
        f'Of {len(CLAIMS)} claims, {count[rules.HOLDS]} hold, {count[rules.HALF]} hold by half, {count[rules.FAILS]} '
        f'do not hold, and {count[rules.OPEN]} were not tested.',
    ]
    for section, title in SECTIONS.items():
        parts += [f'## {title}', report.markdown_table(
            ['claim', 'paper', 'here', 'verdict', 'measured by'],
            [row for claim, row in rows.items() if claim.section == section])]
    return report.pages([*parts, '## Rules', RULES])


def work(args: argparse.Namespace) -> List[Path]:
    return [command.write_text_whole(args.output, markdown(load_evidence()))]


def main(argv: Optional[List[str]] = None) -> None:
    parser = command.make_parser(NAME, __doc__)
    parser.add_argument(
        '--output', metavar='FILE', type=command.output_file, default='docs/paper.md',
        help='the page (default: %(default)s)')
    command.run(parser, work, argv)


if __name__ == '__main__':
    main()
