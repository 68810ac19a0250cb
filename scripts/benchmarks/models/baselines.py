"""What the WaveMix paper compares with, from well-kept libraries, as timm models: importing this registers them.

ResNets and ConvMixers are timm's. The transformers are put together from vit-pytorch, which the paper used, and
nystrom-attention: `pip install --group baselines`. The paper gives their embedding dimension, layers and heads, a patch
size of 1 pixel, and how many parameters they have (table 1, 10 classes); where it leaves a width open, we took the one
that comes closest to this number. From 64x64 on, patches or strides grow with the images, so that the map stays near
32x32 (section 5.4). What differs from table 1:

    resnet50_3x3        23.52 M, the paper has 25.2 M in table 1 and 23.6 M in table 2
    resnet101_3x3       42.51 M, not in table 1
    convmixer_256_8     0.67 M as in the paper
    convmixer_256_16    1.34 M, the paper has 1.3 M
    vit_128_4x4         0.530 M as in the paper: heads of 32, MLPs no wider than the embedding
    cct_128_4x4         0.928 M, the paper has 0.90 M: one 3x3 convolution, no pooling, MLPs four times as wide
    cvt_128_4x4         1.085 M, the paper has 1.10 M: one stage, heads of 64, keys and values at full size
    hybrid_vin_128_4x4  0.623 M, the paper has 0.62 M: the ViT with three 3x3 convolutions before it, and Nyström
                        attention of 64 landmarks in it, which scales its iterations by the largest sum in the batch
"""
from functools import partial
from typing import Any, Callable, Dict, Tuple, Union

import timm
import torch.nn as nn
from timm.layers import to_2tuple
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.convmixer import ConvMixer

from scripts.benchmarks.common.paper import FAMILIES

Size = Union[int, Tuple[int, int]]


def size_kwargs(name: str, image_size: int) -> Dict[str, int]:
    """Arguments by which a model of the comparison takes images of this size as in the paper.

    WaveMix has enough levels to reduce the map to 2x2.
    """
    kwargs = {}
    if timm.get_pretrained_cfg(name).fixed_input_size:
        kwargs['img_size'] = image_size
    if name in FAMILIES['WaveMix']:
        kwargs['levels'] = max(1, (image_size - 1).bit_length() - 1)
    return kwargs


def resnet(name: str, **kwargs: Any) -> nn.Module:
    """A ResNet of timm with a 3x3 stem of stride 1 and no max-pool."""
    model = timm.create_model(name, **kwargs)
    model.conv1 = nn.Conv2d(model.conv1.in_channels, model.conv1.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode='fan_out', nonlinearity='relu')  # as timm's own
    model.maxpool = nn.Identity()
    return model


def patch_size(img_size: Size) -> int:
    return max(1, max(to_2tuple(img_size)) // 32)


def convmixer(depth: int, img_size: Size, drop_rate: float = 0., **kwargs: Any) -> nn.Module:
    return ConvMixer(256, depth, kernel_size=8, patch_size=patch_size(img_size), drop_rate=drop_rate, **kwargs)


def vit(img_size: Size, in_chans: int, num_classes: int, drop_rate: float = 0.) -> nn.Module:
    from vit_pytorch import ViT
    model = ViT(
        image_size=img_size,
        patch_size=patch_size(img_size),
        channels=in_chans,
        num_classes=num_classes,
        dim=128,
        depth=4,
        heads=4,
        dim_head=32,
        mlp_dim=128,
        dropout=drop_rate,
        emb_dropout=drop_rate,
    )
    # the library's layer norm of what is in a patch would leave nothing of a patch of one grey pixel
    assert isinstance(model.to_patch_embedding[1], nn.LayerNorm)
    model.to_patch_embedding[1] = nn.Identity()
    return model


def hybrid_vin(img_size: Size, in_chans: int, num_classes: int, drop_rate: float = 0.) -> nn.Module:
    from einops.layers.torch import Rearrange
    from nystrom_attention import NystromAttention
    stride = patch_size(img_size)
    model = vit(img_size, in_chans, num_classes, drop_rate)
    model.to_patch_embedding = nn.Sequential(
        nn.Conv2d(in_chans, 32, 3, stride=stride, padding=1),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.Conv2d(64, 128, 3, padding=1),
        Rearrange('b c h w -> b (h w) c'),
    )
    for layer in model.transformer.layers:
        layer[0] = nn.Sequential(
            nn.LayerNorm(128),
            NystromAttention(128, dim_head=32, heads=4, num_landmarks=64, dropout=drop_rate),
        )
    return model


def cct(img_size: Size, in_chans: int, num_classes: int, drop_rate: float = 0.) -> nn.Module:
    from vit_pytorch.cct import CCT
    return CCT(
        img_size=img_size,
        n_input_channels=in_chans,
        num_classes=num_classes,
        embedding_dim=128,
        num_layers=4,
        num_heads=4,
        mlp_ratio=4.,
        n_conv_layers=1,
        kernel_size=3,
        stride=patch_size(img_size),
        padding=1,
        pooling_kernel_size=1,
        pooling_stride=1,
        pooling_padding=0,
        positional_embedding='learnable',
        dropout_rate=drop_rate,
        attention_dropout=drop_rate,
        stochastic_depth_rate=0.,
    )


def cvt(img_size: Size, in_chans: int, num_classes: int, drop_rate: float = 0.) -> nn.Module:
    from vit_pytorch.cvt import LayerNorm, Transformer
    return nn.Sequential(
        nn.Conv2d(in_chans, 128, 7, stride=patch_size(img_size), padding=3),
        LayerNorm(128),
        Transformer(128, proj_kernel=3, kv_proj_stride=1, depth=4, heads=4, dim_head=64, mlp_mult=4, dropout=drop_rate),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, num_classes),
    )


def _cfg(**kwargs: Any) -> Dict[str, Any]:
    return dict(
        num_classes=10, input_size=(3, 32, 32), crop_pct=1.0, interpolation='bicubic',
        mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), **kwargs)


default_cfgs = generate_default_cfgs({
    'resnet18_3x3': _cfg(),
    'resnet34_3x3': _cfg(),
    'resnet50_3x3': _cfg(),
    'resnet101_3x3': _cfg(),
    'convmixer_256_8': _cfg(fixed_input_size=True),
    'convmixer_256_16': _cfg(fixed_input_size=True),
    'vit_128_4x4': _cfg(fixed_input_size=True),
    'cct_128_4x4': _cfg(fixed_input_size=True),
    'cvt_128_4x4': _cfg(fixed_input_size=True),
    'hybrid_vin_128_4x4': _cfg(fixed_input_size=True),
})


def _create(build: Callable[..., nn.Module], variant: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    try:
        return build_model_with_cfg(build, variant, pretrained, **kwargs)
    except ImportError as error:
        raise ImportError(
            f'{variant} comes from libraries that are missing ({error}): install them with '
            '`pip install --group baselines`.') from error


@register_model
def resnet18_3x3(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-18 with the paper's stem."""
    return _create(partial(resnet, 'resnet18'), 'resnet18_3x3', pretrained, **kwargs)


@register_model
def resnet34_3x3(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-34 with the paper's stem."""
    return _create(partial(resnet, 'resnet34'), 'resnet34_3x3', pretrained, **kwargs)


@register_model
def resnet50_3x3(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-50 with the paper's stem."""
    return _create(partial(resnet, 'resnet50'), 'resnet50_3x3', pretrained, **kwargs)


@register_model
def resnet101_3x3(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-101 with the paper's stem."""
    return _create(partial(resnet, 'resnet101'), 'resnet101_3x3', pretrained, **kwargs)


@register_model
def convmixer_256_8(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ConvMixer-256/8."""
    return _create(partial(convmixer, 8), 'convmixer_256_8', pretrained, **kwargs)


@register_model
def convmixer_256_16(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ConvMixer-256/16."""
    return _create(partial(convmixer, 16), 'convmixer_256_16', pretrained, **kwargs)


@register_model
def vit_128_4x4(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ViT-128/4x4."""
    return _create(vit, 'vit_128_4x4', pretrained, **kwargs)


@register_model
def cct_128_4x4(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CCT-128/4x4."""
    return _create(cct, 'cct_128_4x4', pretrained, **kwargs)


@register_model
def cvt_128_4x4(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """CvT-128/4x4."""
    return _create(cvt, 'cvt_128_4x4', pretrained, **kwargs)


@register_model
def hybrid_vin_128_4x4(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Hybrid ViN-128/4x4."""
    return _create(hybrid_vin, 'hybrid_vin_128_4x4', pretrained, **kwargs)
