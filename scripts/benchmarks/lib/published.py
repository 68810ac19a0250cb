"""The models of the WaveMix paper's comparison, and its figures of them: tables 1, 4, 5 and 6 of arXiv 2203.03689.

Names are those in timm; baselines.py registers the models that timm does not have.
"""
from typing import Dict, NamedTuple, Optional

TRAIN, INFERENCE = 'train', 'inference'
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


class Paper(NamedTuple):
    """What the paper says of a model: its name there, and figures by image size."""
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
