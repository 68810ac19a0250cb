"""WaveMix: image classification with a fixed 2-D wavelet transform as token mixer.

Paper: `WaveMix: Resource-efficient Token Mixing for Images` - https://arxiv.org/abs/2203.03689

A model is a stem of two 3x3 convolutions, a stack of WaveMix (section 3.2) or WaveMix-Lite (section 3.3) blocks that
keep the size of the map, global average pooling and a linear classifier. It takes images of any size.
Where the text of the paper leaves a width open, it is the one that gives the parameter counts of table 1.
"""
import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Dict, List, Optional, Tuple, Type, Union

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors import SafetensorError
from timm.layers import (
    ClassifierHead,
    DropPath,
    LayerType,
    calculate_drop_path_rates,
    get_act_layer,
    get_norm_layer,
    to_2tuple,
)
from timm.models import (
    build_model_with_cfg,
    checkpoint,
    checkpoint_seq,
    generate_default_cfgs,
    register_model,
    resolve_pretrained_cfg,
)
from timm.models._features import feature_take_indices
from torch import _assert
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .wavelet import check_wavelet, dwt2d, idwt2d, is_haar, low_pass, pad_to_even

__all__ = ['WaveMix']


class WaveletConv2d(nn.Conv2d):
    """1x1 convolution of the sub-bands of a one-level DWT.

    `(B, in_channels, H, W)` -> `(B, out_channels, ceil(H / 2), ceil(W / 2))`. The weight is that of the 1x1
    convolution, `(out_channels, 4 * in_channels, 1, 1)`, with the sub-bands in the order of `wavelet.py`.

    Raises:
        ImportError, ValueError: as `check_wavelet`.
    """

    def __init__(
            self,
            in_channels: int,
            out_channels: int,
            wavelet: str = 'haar',
            device=None,
            dtype=None,
    ):
        check_wavelet(wavelet)
        super().__init__(4 * in_channels, out_channels, 1, device=device, dtype=dtype)
        self.wavelet = wavelet

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if is_haar(self.wavelet):
            # The orthonormal transform moves to the other side of the inner product: mixing the coefficients of a
            # 2x2 cell with a weight is mixing its pixels with the inverse transform of that weight. So the whole is
            # one strided convolution, and the coefficients are never written to memory.
            return F.conv2d(pad_to_even(x), idwt2d(self.weight), self.bias, stride=2)
        return F.conv2d(dwt2d(x, self.wavelet), self.weight, self.bias)


class WaveletMlp(nn.Module):
    """DWT and the MLP of its level: two 1x1 convolutions on the stacked sub-bands, with an activation between.

    `(B, in_features, H, W)` -> `(B, out_features, ceil(H / 2), ceil(W / 2))`.
    """

    def __init__(
            self,
            in_features: int,
            hidden_features: int,
            out_features: int,
            wavelet: str = 'haar',
            act_layer: Type[nn.Module] = nn.GELU,
            drop: Union[float, Tuple[float, float]] = 0.,
            device=None,
            dtype=None,
    ):
        dd = {'device': device, 'dtype': dtype}
        super().__init__()
        drop1, drop2 = to_2tuple(drop)
        self.fc1 = WaveletConv2d(in_features, hidden_features, wavelet, **dd)
        self.act = act_layer()
        self.drop1 = nn.Dropout(drop1)
        self.fc2 = nn.Conv2d(hidden_features, out_features, 1, **dd)
        self.drop2 = nn.Dropout(drop2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc1(x)
        x = self.act(x)
        x = self.drop1(x)
        x = self.fc2(x)
        x = self.drop2(x)
        return x


class UpConv2d(nn.ConvTranspose2d):
    """Transposed convolution to exactly `stride` times the size, with one pixel of overlap between neighbours.

    `(B, in_channels, H, W)` -> `(B, out_channels, stride * H, stride * W)`.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, device=None, dtype=None):
        super().__init__(
            in_channels, out_channels, stride + 2, stride=stride, padding=1, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stride, bias = self.stride[0], self.bias
        assert bias is not None  # for TorchScript
        if self.out_channels > 4:
            return F.conv_transpose2d(x, self.weight, bias, self.stride, self.padding)
        # Few output channels leave the vector lanes of a transposed convolution empty (measured on CPUs). A kernel of
        # stride + 2 reaches only the neighbouring inputs, so it is also a 3x3 convolution to one channel for each
        # pixel of a stride x stride cell.
        weight = F.pad(self.weight, [stride - 1] * 4)
        weight = weight.view(self.in_channels, self.out_channels, 3, stride, 3, stride).flip(2, 4)
        weight = weight.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)
        x = F.conv2d(x, weight, bias.repeat_interleave(stride * stride), padding=1)
        return F.pixel_shuffle(x, stride)


class WaveMixBlock(nn.Module):
    """WaveMix block, section 3.2 and figure 1 of the paper. `(B, dim, H, W)` -> `(B, dim, H, W)`.

    Level l takes the LL sub-band of level l - 1 through an MLP and a transposed convolution back to H x W, to its
    share of the channels. A depth-wise convolution mixes the levels.

    Raises:
        ImportError, ValueError: as `check_wavelet`.
        ValueError: there are more levels than channels.
    """

    def __init__(
            self,
            dim: int,
            levels: int = 4,
            proj_drop: float = 0.,
            drop_path: float = 0.,
            wavelet: str = 'haar',
            act_layer: Type[nn.Module] = nn.GELU,
            norm_layer: Type[nn.Module] = nn.BatchNorm2d,
            device=None,
            dtype=None,
    ):
        dd = {'device': device, 'dtype': dtype}
        super().__init__()
        if not 1 <= levels <= dim:
            raise ValueError(
                f'levels={levels} cannot split dim={dim} channels: every level needs at least one, so levels must be '
                f'from 1 to {dim}.')
        self.wavelet = wavelet
        self.mlps = nn.ModuleList([
            WaveletMlp(dim, dim, dim, wavelet, act_layer, drop=proj_drop, **dd) for _ in range(levels)])
        self.ups = nn.ModuleList([
            # the first dim % levels levels take one channel more
            UpConv2d(dim, (dim + levels - 1 - i) // levels, stride=2 ** (i + 1), **dd) for i in range(levels)])
        self.conv_dw = nn.Conv2d(dim, dim, 5, padding=2, groups=dim, **dd)
        self.act = act_layer()
        self.norm = norm_layer(dim, **dd)
        self.drop_path = DropPath(drop_path) if drop_path > 0. else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        shortcut = ll = x
        outs = []
        for i, (mlp, up) in enumerate(zip(self.mlps, self.ups)):
            if i > 0:
                ll = low_pass(ll, self.wavelet)
            outs.append(up(mlp(ll))[..., :height, :width])
        x = self.conv_dw(torch.cat(outs, dim=1))
        x = self.norm(self.act(x))
        return shortcut + self.drop_path(x)


class WaveMixLiteBlock(nn.Module):
    """WaveMix-Lite block, section 3.3 and figure 2 of the paper. `(B, dim, H, W)` -> `(B, dim, H, W)`.

    Raises:
        ImportError, ValueError: as `check_wavelet`.
        ValueError: `levels` is not 1, or `dim` cannot be divided by 4.
    """

    def __init__(
            self,
            dim: int,
            levels: int = 1,
            proj_drop: float = 0.,
            drop_path: float = 0.,
            wavelet: str = 'haar',
            act_layer: Type[nn.Module] = nn.GELU,
            norm_layer: Type[nn.Module] = nn.BatchNorm2d,
            device=None,
            dtype=None,
    ):
        dd = {'device': device, 'dtype': dtype}
        super().__init__()
        if levels != 1:
            raise ValueError(f'A WaveMix-Lite block has levels=1, not {levels}; the wavemix_* models have more.')
        if dim % 4 != 0:
            raise ValueError(
                f'dim={dim} cannot be split into the four sub-bands of a WaveMix-Lite block: use a multiple of 4, '
                f'such as {dim + -dim % 4}.')
        self.conv_pw = nn.Conv2d(dim, dim // 4, 1, **dd)
        self.mlp = WaveletMlp(dim // 4, 2 * dim, dim, wavelet, act_layer, drop=(proj_drop, 0.), **dd)
        self.up = UpConv2d(dim, dim, stride=2, **dd)
        self.norm = norm_layer(dim, **dd)
        self.drop_path = DropPath(drop_path) if drop_path > 0. else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        shortcut = x
        x = self.conv_pw(x)
        x = self.mlp(x)
        x = self.up(x)[..., :height, :width]
        x = self.norm(x)
        return shortcut + self.drop_path(x)

    @torch.jit.ignore
    def reparameterize(self) -> None:
        """Fold the batch norm into the transposed convolution, for inference."""
        if type(self.norm) is not nn.BatchNorm2d or not self.norm.track_running_stats:
            return
        self.up.weight, self.up.bias = fuse_conv_bn_weights(
            self.up.weight, self.up.bias, self.norm.running_mean, self.norm.running_var, self.norm.eps,
            self.norm.weight, self.norm.bias, transpose=True)
        self.norm = nn.Identity()


class Stem(nn.Sequential):
    """Two 3x3 convolutions, section 4.3 of the paper. `(B, in_chans, H, W)` -> `(B, dim, H / stride², W / stride²)`.

    Raises:
        ValueError: `dim` is odd.
    """

    def __init__(self, in_chans: int, dim: int, stride: int = 1, device=None, dtype=None):
        dd = {'device': device, 'dtype': dtype}
        if dim % 2 != 0:
            raise ValueError(f'dim={dim} cannot be halved by the stem: use an even number, such as {dim + 1}.')
        super().__init__(
            nn.Conv2d(in_chans, dim // 2, 3, stride=stride, padding=1, **dd),
            nn.Conv2d(dim // 2, dim, 3, stride=stride, padding=1, **dd),
        )
        self.in_chans = in_chans

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _assert(
            x.shape[1] == self.in_chans,
            f'Input has {x.shape[1]} channels, the model takes {self.in_chans}: '
            f'create it with in_chans={x.shape[1]} or convert the images.')
        for conv in self:
            x = conv(x)
        return x


class WaveMix(nn.Module):
    """WaveMix image classifier, section 3.1 of the paper. `(B, in_chans, H, W)` -> `(B, num_classes)`.

    Any H and W from 1 up work: a level with an odd side is zero-padded and the result cropped, so that every block
    keeps the size of the map.

    Args:
        dim: Channels of every block (the first number in the paper's names).
        depth: Number of blocks (the second number).
        block: Block type, `WaveMixBlock` or `WaveMixLiteBlock`.
        levels: DWT levels of a block. The paper takes as many as bring the image to 2x2.
        stem_stride: Stride of each of the two stem convolutions (the paper: 1 up to 64x64 pixels, 2 for 256x256).
        img_size: Image size in pixels, only to check that it gives `levels`. Other sizes still work. Where a
            registered model is asked for other `levels` than its own, it defaults to the size of its pretrained_cfg.
        in_chans: Number of image channels.
        num_classes: Number of classes, 0 for no classifier.
        global_pool: Global pooling type, '' for none.
        drop_rate: Dropout rate before the classifier.
        proj_drop_rate: Dropout rate in the MLPs.
        drop_path_rate: Stochastic depth rate of the last block, rising linearly from 0 at the first.
        wavelet: 'haar', or any other discrete wavelet of PyWavelets with the extra `wavelets`.
        act_layer: Activation layer.
        norm_layer: Normalization layer.

    Raises:
        ImportError: `wavelet` needs the extra `wavelets`.
        ValueError: `dim` or `img_size` does not go with `levels`, or `wavelet` is unknown.
    """

    def __init__(
            self,
            dim: int,
            depth: int,
            block: Type[nn.Module] = WaveMixBlock,
            levels: int = 4,
            stem_stride: int = 1,
            img_size: Optional[Union[int, Tuple[int, int]]] = None,
            in_chans: int = 3,
            num_classes: int = 1000,
            global_pool: str = 'avg',
            drop_rate: float = 0.,
            proj_drop_rate: float = 0.5,
            drop_path_rate: float = 0.,
            wavelet: str = 'haar',
            act_layer: LayerType = 'gelu',
            norm_layer: LayerType = 'batchnorm2d',
            device=None,
            dtype=None,
    ):
        dd = {'device': device, 'dtype': dtype}
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.num_features = dim
        self.grad_checkpointing = False

        reduction = stem_stride ** 2
        if img_size is not None:
            # a level halves at least one side: the stem's map of n pixels along its longer side has ceil(log2(n))
            max_levels = max(1, ((max(to_2tuple(img_size)) - 1) // reduction).bit_length())
            if levels > max_levels:
                raise ValueError(
                    f'levels={levels} is more than an image of img_size={img_size} gives: use levels up to '
                    f'{max_levels}, or img_size={reduction * 2 ** (levels - 1) + 1} and more if your images have it.')

        self.stem = Stem(in_chans, dim, stem_stride, **dd)
        drop_path_rates = calculate_drop_path_rates(drop_path_rate, depth)
        self.blocks = nn.Sequential(*[
            block(
                dim,
                levels=levels,
                proj_drop=proj_drop_rate,
                drop_path=drop_path_rates[i],
                wavelet=wavelet,
                act_layer=get_act_layer(act_layer),
                norm_layer=get_norm_layer(norm_layer),
                **dd,
            )
            for i in range(depth)])
        self.feature_info = [dict(num_chs=dim, reduction=reduction, module=f'blocks.{i}') for i in range(depth)]
        self.head = ClassifierHead(dim, num_classes, pool_type=global_pool, drop_rate=drop_rate, **dd)
        self.head_hidden_size = dim * self.head.global_pool.feat_mult()

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> Dict[str, Any]:
        return dict(stem=r'^stem', blocks=r'^blocks\.(\d+)')

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: Optional[str] = None) -> None:
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)
        self.head_hidden_size = self.num_features * self.head.global_pool.feat_mult()
        self.head.to(self.stem[0].weight)

    def forward_intermediates(
            self,
            x: torch.Tensor,
            indices: Optional[Union[int, List[int]]] = None,
            norm: bool = False,
            stop_early: bool = False,
            output_fmt: str = 'NCHW',
            intermediates_only: bool = False,
    ) -> Union[List[torch.Tensor], Tuple[torch.Tensor, List[torch.Tensor]]]:
        """Forward features that returns the outputs of blocks.

        Args:
            x: Images `(B, in_chans, H, W)`.
            indices: Take the last n blocks if int, all if None, the blocks of these indices if a sequence.
            norm: No effect, there is no final norm.
            stop_early: Stop after the last block asked for.
            output_fmt: 'NCHW', the only one.
            intermediates_only: Return only the list.

        Returns:
            The final features and a list of maps, each `(B, dim, H / stem_stride², W / stem_stride²)`.
        """
        assert output_fmt == 'NCHW', 'Output format must be NCHW.'
        intermediates = []
        take_indices, max_index = feature_take_indices(len(self.blocks), indices)

        x = self.stem(x)
        if torch.jit.is_scripting() or not stop_early:  # can't slice blocks in torchscript
            blocks = self.blocks
        else:
            blocks = self.blocks[:max_index + 1]
        for i, block in enumerate(blocks):
            if self.grad_checkpointing and not torch.jit.is_scripting():
                x = checkpoint(block, x)
            else:
                x = block(x)
            if i in take_indices:
                intermediates.append(x)

        if intermediates_only:
            return intermediates

        return x, intermediates

    def prune_intermediate_layers(
            self,
            indices: Union[int, List[int]] = 1,
            prune_norm: bool = False,
            prune_head: bool = True,
    ) -> List[int]:
        """Prune the layers that the intermediates of these indices don't need.

        Args:
            indices: As for `forward_intermediates`.
            prune_norm: No effect, there is no final norm.
            prune_head: Prune pooling and classifier too.

        Returns:
            The indices of the blocks whose outputs remain.
        """
        take_indices, max_index = feature_take_indices(len(self.blocks), indices)
        self.blocks = self.blocks[:max_index + 1]
        if prune_head:
            self.reset_classifier(0, '')
        return take_indices

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():
            x = checkpoint_seq(self.blocks, x)
        else:
            x = self.blocks(x)
        return x

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return self.head(x, pre_logits=pre_logits) if pre_logits else self.head(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.forward_features(x)
        x = self.forward_head(x)
        return x


def checkpoint_filter_fn(state_dict: Dict[str, torch.Tensor], model: nn.Module) -> Dict[str, torch.Tensor]:
    """Check that weights are those of this architecture before any of them is loaded.

    The first convolution and the classifier may differ in shape: timm adapts them to `in_chans` and `num_classes`.

    Raises:
        ValueError: the weights do not fit; names the first keys that don't.
    """
    state_dict = state_dict.get('state_dict', state_dict)
    own = {k: v.shape for k, v in model.state_dict().items() if not k.startswith('head.')}
    given = {k: v.shape for k, v in state_dict.items() if not k.startswith('head.')}
    misfits = [
        k for k in {**own, **given}
        if k not in own or k not in given or own[k] != given[k] and k != 'stem.0.weight']
    if misfits:
        raise ValueError(
            f'The weights are not of this model, {len(misfits)} keys or shapes differ, first {", ".join(misfits[:3])}: '
            'create the model whose weights they are, with the arguments that it was trained with.')
    return state_dict


def _cfg(url: str = '', **kwargs: Any) -> Dict[str, Any]:
    return {
        'url': url, 'num_classes': 10, 'input_size': (3, 32, 32), 'pool_size': (32, 32),
        'crop_pct': 1.0, 'interpolation': 'bicubic',
        'mean': (0.5, 0.5, 0.5), 'std': (0.5, 0.5, 0.5),
        'first_conv': 'stem.0', 'classifier': 'head.fc',
        'paper_ids': 'arXiv:2203.03689',
        'paper_name': 'WaveMix: Resource-efficient Token Mixing for Images',
        'license': 'mit',
        **kwargs
    }


WEIGHTS = Path(__file__).parent / 'weights'  # those that come with the package

default_cfgs = generate_default_cfgs({
    'wavemix_16_5.fashion_mnist': _cfg(
        file=str(WEIGHTS / 'wavemix_16_5.fashion_mnist.safetensors'),
        input_size=(3, 28, 28), pool_size=(28, 28), mean=(0.2860, 0.2860, 0.2860), std=(0.3530, 0.3530, 0.3530),
        label_names=(
            'T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat',
            'Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot')),
    'wavemix_32_5.untrained': _cfg(),
    'wavemix_64_5.untrained': _cfg(),
    'wavemix_lite_128_7.untrained': _cfg(),
    'wavemix_lite_256_7.untrained': _cfg(),
    'wavemix_lite_256_7_s2.untrained': _cfg(num_classes=1000, input_size=(3, 256, 256), pool_size=(64, 64)),
})


def _create_wavemix(variant: str, pretrained: bool = False, **kwargs: Any) -> WaveMix:
    hub_org = os.environ.get('TIMM_WAVEMIX_HUB_ORG')
    if hub_org:
        # our own weights from there, not from the package; a file that the caller names goes before
        overlay = kwargs.get('pretrained_cfg_overlay') or {}
        cfg = resolve_pretrained_cfg(variant, kwargs.get('pretrained_cfg'), overlay)
        if cfg.file and Path(cfg.file).parent == WEIGHTS and 'file' not in overlay:
            kwargs['pretrained_cfg_overlay'] = dict(overlay, file=None, hf_hub_id=f'{hub_org}/{variant}.{cfg.tag}')
    if 'levels' in kwargs:
        cfg = resolve_pretrained_cfg(variant, kwargs.get('pretrained_cfg'), kwargs.get('pretrained_cfg_overlay'))
        kwargs.setdefault('img_size', cfg.input_size[1:])
    try:
        return build_model_with_cfg(
            WaveMix, variant, pretrained,
            pretrained_filter_fn=checkpoint_filter_fn,
            feature_cfg=dict(out_indices=3, feature_cls='getter'),  # the last three of blocks that are all of one size
            **kwargs,
        )
    except (SafetensorError, UnpicklingError, EOFError, LookupError) as e:  # what readers make of a damaged file
        if not pretrained:
            raise
        raise RuntimeError(
            f'The weights of {variant} cannot be read, their file is damaged ({e!r}): '
            'fetch or install it again.') from e


@register_model
def wavemix_16_5(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-16/5 (table 1 of the paper)."""
    model_args = dict(dim=16, depth=5)
    return _create_wavemix('wavemix_16_5', pretrained=pretrained, **dict(model_args, **kwargs))


@register_model
def wavemix_32_5(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-32/5 (table 1 of the paper)."""
    model_args = dict(dim=32, depth=5)
    return _create_wavemix('wavemix_32_5', pretrained=pretrained, **dict(model_args, **kwargs))


@register_model
def wavemix_64_5(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-64/5 (table 1 of the paper)."""
    model_args = dict(dim=64, depth=5)
    return _create_wavemix('wavemix_64_5', pretrained=pretrained, **dict(model_args, **kwargs))


@register_model
def wavemix_lite_128_7(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-128/7 (WaveMix-128/7 in the paper's tables)."""
    model_args = dict(dim=128, depth=7, block=WaveMixLiteBlock, levels=1)
    return _create_wavemix('wavemix_lite_128_7', pretrained=pretrained, **dict(model_args, **kwargs))


@register_model
def wavemix_lite_256_7(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-256/7 (WaveMix-256/7 in the paper's tables)."""
    model_args = dict(dim=256, depth=7, block=WaveMixLiteBlock, levels=1)
    return _create_wavemix('wavemix_lite_256_7', pretrained=pretrained, **dict(model_args, **kwargs))


@register_model
def wavemix_lite_256_7_s2(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-256/7 for 256x256 images: stem strides of 2 (section 4.3 of the paper)."""
    model_args = dict(dim=256, depth=7, block=WaveMixLiteBlock, levels=1, stem_stride=2)
    return _create_wavemix('wavemix_lite_256_7_s2', pretrained=pretrained, **dict(model_args, **kwargs))
