"""The models that the WaveMix paper compares, and its figures for them: tables 1 to 6 of arXiv 2203.03689.

Models have their names in timm; models/baselines.py registers the ones that timm lacks.
"""
from typing import Dict, NamedTuple, Optional

from scripts.benchmarks.common.step import INFERENCE, TRAIN

FAMILIES = {
    'WaveMix': ('wavemix_16_5', 'wavemix_32_5', 'wavemix_64_5'),
    'WaveMix-Lite': ('wavemix_lite_128_7', 'wavemix_lite_256_7'),
    '2-D FNet': ('fnet2d_64_5', 'fnet2d_128_5'),
    '2-D MLP-Mixer': ('mlp_mixer2d_64_5', 'mlp_mixer2d_128_5'),
    'ResNet': ('resnet18_3x3', 'resnet34_3x3', 'resnet50_3x3', 'resnet101_3x3'),
    "timm's ResNet": ('resnet18',),
    'ConvMixer': ('convmixer_256_8', 'convmixer_256_16'),
    'transformer': ('vit_128_4x4', 'hybrid_vin_128_4x4', 'cct_128_4x4', 'cvt_128_4x4'),
}
DATA_SETS = {  # by table, with the heads of its columns; scripts/recipes/paper/ has a recipe for each
    1: {'cifar10': 'CIFAR-10', 'cifar100': 'CIFAR-100', 'tiny_imagenet': 'Tiny ImageNet'},
    2: {
        'emnist_byclass': 'Byclass', 'emnist_bymerge': 'Bymerge', 'emnist_letters': 'Letters',
        'emnist_digits': 'Digits', 'emnist_balanced': 'Balanced', 'mnist': 'MNIST', 'fashion_mnist': 'Fashion',
    },
    3: {
        'stl10': 'STL-10', 'svhn': 'SVHN', 'caltech256': 'Caltech-256', 'places365': 'Places-365',
        'inat2021_mini': 'iNAT-2021',
    },
    4: {'imagenet_64': 'ImageNet-1k'},
}
# top-1 in percent by table, in the order of the data sets
TOP1 = {
    1: {
        'resnet18_3x3': (86.29, 59.15, 48.11), 'resnet34_3x3': (87.97, 57.79, 45.60),
        'resnet50_3x3': (86.21, 58.48, 48.77), 'fnet2d_64_5': (64.60, 29.32, 15.53),
        'fnet2d_128_5': (70.52, 32.13, 26.56), 'mlp_mixer2d_64_5': (47.81, 20.76, 7.78),
        'mlp_mixer2d_128_5': (55.02, 22.81, 11.12), 'convmixer_256_8': (85.41, 57.29, 43.15),
        'convmixer_256_16': (88.46, 61.80, 45.39), 'vit_128_4x4': (56.81, 30.25, 26.43),
        'hybrid_vin_128_4x4': (75.26, 51.44, 34.05), 'cct_128_4x4': (82.23, 57.09, 39.05),
        'cvt_128_4x4': (79.93, 48.29, 40.69), 'wavemix_16_5': (78.04, 34.32, 26.96),
        'wavemix_32_5': (81.47, 45.70, 29.97), 'wavemix_64_5': (86.16, 56.20, 38.19),
        'wavemix_lite_128_7': (91.08, 68.40, 52.03), 'wavemix_lite_256_7': (90.72, 70.20, 51.37),
    },
    2: {
        'resnet18_3x3': (87.98, 91.09, 94.76, 99.67, 89.00, 99.69, 93.35),
        'resnet34_3x3': (88.10, 91.13, 95.04, 99.68, 89.17, 99.67, 93.34),
        'resnet50_3x3': (88.18, 91.29, 94.64, 99.62, 89.76, 99.56, 93.30),
        'wavemix_lite_128_7': (88.43, 91.52, 95.78, 99.77, 91.06, 99.71, 93.91),
        'wavemix_lite_256_7': (88.42, 91.59, 95.56, 99.70, 90.36, 99.65, 93.78),
    },
    3: {
        'resnet18_3x3': (70.41, 97.40, 52.97, 48.74, 26.35), 'resnet34_3x3': (68.07, 97.47, 50.92, 49.02, 31.02),
        'resnet50_3x3': (66.04, 97.32, 49.97, 49.80, 33.14),
        'wavemix_lite_256_7': (70.88, 97.61, 54.62, 49.83, 33.23),
    },
    4: {
        'resnet18_3x3': (50.67,), 'resnet34_3x3': (55.04,), 'resnet50_3x3': (55.66,), 'resnet101_3x3': (56.05,),
        'wavemix_lite_256_7': (56.66,),
    },
}
TOP5 = {'imagenet_64': {  # in percent, table 4
    'resnet18_3x3': 75.07, 'resnet34_3x3': 76.95, 'resnet50_3x3': 78.40, 'resnet101_3x3': 79.43,
    'wavemix_lite_256_7': 80.04,
}}
MEMORY_SHARES = {  # memory of the GPU as a part of another model's: section 5.2, and table 1 for ResNet-18
    ('wavemix_64_5', 'resnet18_3x3'): 0.25, ('wavemix_64_5', 'resnet34_3x3'): 0.21,
    ('wavemix_64_5', 'convmixer_256_8'): 0.10, ('wavemix_64_5', 'convmixer_256_16'): 0.05,
    ('wavemix_lite_256_7', 'resnet50_3x3'): 0.70, ('wavemix_16_5', 'vit_128_4x4'): 0.02,
    ('wavemix_16_5', 'hybrid_vin_128_4x4'): 0.06,
}


class Paper(NamedTuple):
    """What the paper says about a model: its name there, and figures by image size."""
    name: str
    params: Optional[float] = None  # million, table 1
    memory: Dict[int, float] = {}  # GB of GPU memory at batch 64, tables 1 and 4
    speed: Dict[str, Dict[int, int]] = {TRAIN: {}, INFERENCE: {}}  # images/s, table 5
    largest_batch: Dict[str, Dict[int, int]] = {TRAIN: {}, INFERENCE: {}}  # on a GPU of 16 GB, tables 6 and 4


PAPER = {
    'resnet18': Paper('not in the paper'),
    'resnet18_3x3': Paper(
        'ResNet-18', 11.2, {32: 1.2, 64: 2.6},
        {TRAIN: {32: 1571, 64: 467}, INFERENCE: {32: 3436, 64: 1389}},
        {TRAIN: {64: 384}, INFERENCE: {}}),
    'resnet34_3x3': Paper('ResNet-34', 21.3, {32: 1.4, 64: 3.5}, largest_batch={TRAIN: {64: 288}, INFERENCE: {}}),
    'resnet50_3x3': Paper(
        'ResNet-50', 25.2, {32: 3.3, 64: 11.3}, largest_batch={TRAIN: {32: 320, 64: 96}, INFERENCE: {32: 960}}),
    'resnet101_3x3': Paper('ResNet-101', memory={64: 15.1}, largest_batch={TRAIN: {64: 64}, INFERENCE: {}}),
    'fnet2d_64_5': Paper('2D FNet-64/5', 0.10, {32: 1.0}),
    'fnet2d_128_5': Paper('2D FNet-128/5', 0.41, {32: 1.6}),
    'mlp_mixer2d_64_5': Paper('2D MLP-Mixer-64/5', 0.15, {32: 1.8}),
    'mlp_mixer2d_128_5': Paper('2D MLP-Mixer-128/5', 0.45, {32: 3.7}),
    'convmixer_256_8': Paper('ConvMixer-256/8', 0.67, {32: 3.7}),
    'convmixer_256_16': Paper(
        'ConvMixer-256/16', 1.3, {32: 7.0}, {TRAIN: {32: 166, 64: 120}, INFERENCE: {32: 451, 64: 445}}),
    'vit_128_4x4': Paper('ViT-128/4×4', 0.53, {32: 13.8}),
    'hybrid_vin_128_4x4': Paper(
        'Hybrid ViN-128/4×4', 0.62, {32: 4.8}, {TRAIN: {32: 243, 64: 240}, INFERENCE: {32: 801, 64: 773}}),
    'cct_128_4x4': Paper(
        'CCT-128/4×4', 0.90, {32: 15.8}, {TRAIN: {32: 149, 64: 149}, INFERENCE: {32: 521, 64: 514}}),
    'cvt_128_4x4': Paper('CvT-128/4×4', 1.10, {32: 15.4}),
    'wavemix_16_5': Paper(
        'WaveMix-16/5', 0.18, {32: 0.2}, {TRAIN: {32: 3230, 64: 797}, INFERENCE: {32: 4310, 64: 2208}}),
    'wavemix_32_5': Paper(
        'WaveMix-32/5', 0.72, {32: 0.2}, {TRAIN: {32: 1834, 64: 460}, INFERENCE: {32: 3802, 64: 1623}}),
    'wavemix_64_5': Paper('WaveMix-64/5', 2.88, {32: 0.3}),
    'wavemix_lite_128_7': Paper(
        'WaveMix-128/7', 2.42, {32: 1.3},
        {TRAIN: {32: 1279, 64: 276}, INFERENCE: {32: 3401, 64: 488}},
        {TRAIN: {32: 768}, INFERENCE: {32: 2176}}),
    'wavemix_lite_256_7': Paper(
        'WaveMix-256/7', 9.62, {32: 2.3, 64: 9.0},
        {TRAIN: {32: 495, 64: 159}, INFERENCE: {32: 1028, 64: 408}},
        {TRAIN: {32: 448, 64: 112}, INFERENCE: {32: 768}}),
}


def family(model: str) -> str:
    """The family of a model in `FAMILIES`."""
    return next(name for name, models in FAMILIES.items() if model in models)
