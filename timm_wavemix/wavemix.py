"""WaveMix: image classification with a fixed 2-D wavelet transform as token mixer.

Papers:
    `WaveMix: Resource-efficient Token Mixing for Images` - https://arxiv.org/abs/2203.03689
    `WaveMix: A Resource-efficient Neural Network for Image Analysis` - https://arxiv.org/abs/2205.14375
Official code and weights: https://github.com/pranavphoenix/WaveMix, https://huggingface.co/cloudwalker/wavemix

A model is a stem of two 3x3 convolutions, a stack of WaveMix (section 3.2) or WaveMix-Lite (section 3.3) blocks that
keep the size of the map, global average pooling and a linear classifier. It takes images of any size.
Where the text of the paper leaves a width open, it is the one that gives the parameter counts of table 1.
The second paper's models, which are those of the official weights, have WaveMix-Lite or cascaded blocks, and most of
them patches at the end of the stem.
"""
import errno
import os
import re
import struct
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Callable, Dict, List, Optional, Tuple, Type, Union

import torch
import torch.nn as nn
from safetensors import SafetensorError
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
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
from torch.types import Device

from .layers import WaveletMlp, conv_transpose2d, fuse_batch_norm
from .wavelet import LLSubband, crop, is_haar

__all__ = ['IsotropicNet', 'WaveMix']


class WaveMixBlock(nn.Module):
    """WaveMix block, section 3.2 and figure 1 of the paper. `(B, dim, H, W)` -> `(B, dim, H, W)`.

    Level l takes the LL sub-band of level l - 1 through an MLP and a transposed convolution back to H x W, to its
    share of the channels. A depth-wise convolution mixes the levels.

    Raises:
        ImportError, ValueError: as `wavelet.wavelet_filters`.
        ValueError: there are more levels than channels.
    """

    def __init__(
            self,
            dim: int,
            levels: int = 4,
            mlp_ratio: float = 1.,
            proj_drop: float = 0.,
            drop_path: float = 0.,
            wavelet: str = 'haar',
            act_layer: Type[nn.Module] = nn.GELU,
            norm_layer: Type[nn.Module] = nn.BatchNorm2d,
            device: Device = None,
            dtype: Optional[torch.dtype] = None,
    ):
        dd: Dict[str, Any] = {'device': device, 'dtype': dtype}
        super().__init__()
        if not 1 <= levels <= dim:
            raise ValueError(
                f'levels={levels} cannot split dim={dim} channels: every level needs at least one, so levels must be '
                f'from 1 to {dim}.')
        self.ll = LLSubband(dim, wavelet, **dd)
        self.mlps = nn.ModuleList([
            WaveletMlp(dim, int(mlp_ratio * dim), dim, wavelet, act_layer, drop=proj_drop, **dd)
            for _ in range(levels)])
        self.ups = nn.ModuleList([
            # the first dim % levels levels take one channel more
            conv_transpose2d(dim, (dim + levels - 1 - i) // levels, stride=2 ** (i + 1), **dd) for i in range(levels)])
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
                ll = self.ll(ll)
            outs.append(crop(up(mlp(ll)), height, width))
        x = torch.cat(outs, dim=1)
        x = self.conv_dw(x)
        x = self.act(x)
        x = self.norm(x)
        return shortcut + self.drop_path(x)


class WaveMixLiteBlock(nn.Module):
    """WaveMix-Lite block, section 3.3 and figure 2 of the paper. `(B, dim, H, W)` -> `(B, dim, H, W)`.

    Raises:
        ImportError, ValueError: as `wavelet.wavelet_filters`.
        ValueError: `levels` is not 1, or `dim` cannot be divided by 4.
    """

    def __init__(
            self,
            dim: int,
            levels: int = 1,
            mlp_ratio: float = 2.,
            proj_drop: float = 0.,
            drop_path: float = 0.,
            wavelet: str = 'haar',
            act_layer: Type[nn.Module] = nn.GELU,
            norm_layer: Type[nn.Module] = nn.BatchNorm2d,
            device: Device = None,
            dtype: Optional[torch.dtype] = None,
    ):
        dd: Dict[str, Any] = {'device': device, 'dtype': dtype}
        super().__init__()
        if levels != 1:
            raise ValueError(f'A WaveMix-Lite block has levels=1, not {levels}; the wavemix_* models have more.')
        if dim % 4 != 0:
            raise ValueError(
                f'dim={dim} cannot be split into the four sub-bands of a WaveMix-Lite block: use a multiple of 4, '
                f'such as {dim + -dim % 4}.')
        self.conv_pw = nn.Conv2d(dim, dim // 4, 1, **dd)
        self.mlp = WaveletMlp(
            dim // 4, int(mlp_ratio * dim), dim, wavelet, act_layer, drop=(proj_drop, 0.), **dd)
        self.up = conv_transpose2d(dim, dim, stride=2, **dd)
        self.norm = norm_layer(dim, **dd)
        self.drop_path = DropPath(drop_path) if drop_path > 0. else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        shortcut = x
        x = self.conv_pw(x)
        x = self.mlp(x)
        x = crop(self.up(x), height, width)
        x = self.norm(x)
        return shortcut + self.drop_path(x)

    @torch.jit.ignore
    def reparameterize(self) -> None:
        """Fuse the batch norm into the transposed convolution, for inference."""
        self.norm = fuse_batch_norm(self.up, self.norm)


class WaveMixCascadeBlock(nn.Module):
    """Cascaded WaveMix block, of the second paper (arXiv 2205.14375). `(B, dim, H, W)` -> `(B, dim, H, W)`.

    As in WaveMix-Lite the channels are reduced first, then decomposed over all levels. From the coarsest level down,
    the output of each, at twice its size, is stacked after the sub-bands of the next finer one. With one level it is
    a WaveMix-Lite block.

    Raises:
        ImportError, ValueError: as `wavelet.wavelet_filters`.
        ValueError: `levels` is less than 1, or `dim` cannot be divided by 4.
    """

    def __init__(
            self,
            dim: int,
            levels: int = 3,
            mlp_ratio: float = 2.,
            proj_drop: float = 0.,
            drop_path: float = 0.,
            wavelet: str = 'haar',
            act_layer: Type[nn.Module] = nn.GELU,
            norm_layer: Type[nn.Module] = nn.BatchNorm2d,
            device: Device = None,
            dtype: Optional[torch.dtype] = None,
    ):
        dd: Dict[str, Any] = {'device': device, 'dtype': dtype}
        super().__init__()
        if levels < 1:
            raise ValueError(f'levels={levels} leaves a cascaded WaveMix block nothing to do: levels must be from 1.')
        if dim % 4 != 0:
            raise ValueError(
                f'dim={dim} cannot be split into the four sub-bands of a cascaded WaveMix block: use a multiple of 4, '
                f'such as {dim + -dim % 4}.')
        self.ll = LLSubband(dim // 4, wavelet, **dd)
        out_dims = [dim // 2] * (levels - 1) + [dim]  # of each level, from the coarsest, as they run
        extra_dims = [0] + out_dims[:-1]
        self.conv_pw = nn.Conv2d(dim, dim // 4, 1, **dd)
        self.mlps = nn.ModuleList([
            WaveletMlp(dim // 4, int(mlp_ratio * dim), dim, wavelet, act_layer, (proj_drop, 0.), extra_dim, **dd)
            for extra_dim in extra_dims])
        self.ups = nn.ModuleList([conv_transpose2d(dim, out_dim, stride=2, **dd) for out_dim in out_dims])
        self.norms = nn.ModuleList([norm_layer(out_dim, **dd) for out_dim in out_dims])
        self.drop_path = DropPath(drop_path) if drop_path > 0. else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        lls = [self.conv_pw(x)]
        for _ in range(len(self.mlps) - 1):
            lls.append(self.ll(lls[-1]))
        coarser: Optional[torch.Tensor] = None
        for mlp, up, norm in zip(self.mlps, self.ups, self.norms):
            ll = lls.pop()
            x = crop(up(mlp(ll, coarser)), ll.shape[-2], ll.shape[-1])
            coarser = x = norm(x)
        return shortcut + self.drop_path(x)

    @torch.jit.ignore
    def reparameterize(self) -> None:
        """Fuse the batch norms into the transposed convolutions, for inference."""
        self.norms = nn.ModuleList([fuse_batch_norm(up, norm) for up, norm in zip(self.ups, self.norms)])


class Stem(nn.Sequential):
    """Two 3x3 convolutions, section 4.3 of the paper.

    `(B, in_chans, H, W)` -> `(B, dim, ceil(H / stride²), ceil(W / stride²))`. With a `patch_size` they have half the
    channels, and a convolution of patches, activation and norm follow, as in the second paper (arXiv 2205.14375):
    the sides are then divided by `patch_size`, and pixels that fill no patch are left out.

    Raises:
        ValueError: `dim` cannot be divided by 2, or by 4 with a `patch_size`.
    """

    def __init__(
            self,
            in_chans: int,
            dim: int,
            stride: int = 1,
            patch_size: Optional[int] = None,
            act_layer: Type[nn.Module] = nn.GELU,
            norm_layer: Type[nn.Module] = nn.BatchNorm2d,
            device: Device = None,
            dtype: Optional[torch.dtype] = None,
    ):
        dd: Dict[str, Any] = {'device': device, 'dtype': dtype}
        divisor = 2 if patch_size is None else 4  # the channels are halved once, or twice with patches
        if dim % divisor != 0:
            raise ValueError(
                f'dim={dim} cannot be divided by {divisor} for the stem: use a multiple of {divisor}, such as '
                f'{dim + -dim % divisor}.')
        conv_dim = dim if patch_size is None else dim // 2
        super().__init__(
            nn.Conv2d(in_chans, conv_dim // 2, 3, stride=stride, padding=1, **dd),
            nn.Conv2d(conv_dim // 2, conv_dim, 3, stride=stride, padding=1, **dd),
        )
        if patch_size is not None:
            self.extend([
                nn.Conv2d(conv_dim, dim, patch_size, stride=patch_size, **dd), act_layer(), norm_layer(dim, **dd)])
        self.in_chans = in_chans
        self.min_size = 1 if patch_size is None else (patch_size - 1) * stride ** 2 + 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _assert(
            x.dim() == 4,
            f'Input has {x.dim()} dimensions, not the 4 of (B, C, H, W): stack the images, or pass one as x[None].')
        _assert(
            x.shape[1] == self.in_chans,
            f'Input has {x.shape[1]} channels, the model takes {self.in_chans}: '
            f'create it with in_chans={x.shape[1]} or convert the images.')
        _assert(
            (x.shape[-2] >= self.min_size) & (x.shape[-1] >= self.min_size),  # torch.fx traces no `and`
            # without the sizes of x: to print them, torch.compile would make a graph for each
            f'Input has no whole patch: resize the images to at least {self.min_size}x{self.min_size} pixels.')
        for layer in self:
            x = layer(x)
        return x


@torch.fx.wrap  # no tracer can follow control flow that depends on gradients
def keep_grad_format(x: torch.Tensor) -> torch.Tensor:
    """`x`, whose gradient will be in channels_last if `x` is.

    Global average pooling gives its gradient in NCHW, and from block to block the residual connections would carry it
    on: the backward pass of a batch norm on channels_last maps then took six times as long on a CPU.
    """
    if not torch.jit.is_scripting() and x.requires_grad:
        _keep_channels_last(x)
    return x


@torch.jit.unused
def _keep_channels_last(x: torch.Tensor) -> None:
    if x.stride(1) == 1 and not torch.compiler.is_compiling():
        x.register_hook(lambda grad: grad.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2))


def stem_size(img_size: int, stem_stride: int, patch_size: Optional[int]) -> int:
    """Side of the stem's map in pixels, for a side of the image of `img_size` pixels."""
    return ((img_size - 1) // stem_stride ** 2 + 1) // (patch_size or 1)


def check_levels(
        levels: int,
        img_size: Union[int, Tuple[int, int]],
        stem_stride: int = 1,
        patch_size: Optional[int] = None,
) -> None:
    """Check that images of `img_size` pixels give as many DWT levels.

    Raises:
        ValueError: they don't.
    """
    # a level halves at least one side: the stem's map of n pixels along its longer side has ceil(log2(n))
    side = stem_size(max(to_2tuple(img_size)), stem_stride, patch_size)
    max_levels = max(1, (side - 1).bit_length())
    if levels > max_levels:
        enough = ((patch_size or 1) * (2 ** (levels - 1) + 1) - 1) * stem_stride ** 2 + 1
        raise ValueError(
            f'levels={levels} is more than an image of img_size={img_size} gives: use levels up to '
            f'{max_levels}, or img_size={enough} and more if your images have it.')


class IsotropicNet(nn.Module):
    """Image classifier of section 3.1 of the paper, whatever its blocks. `(B, in_chans, H, W)` -> `(B, num_classes)`.

    Args:
        dim: Channels of every block (the first number in the paper's names).
        depth: Number of blocks (the second number).
        block: Makes a block that takes `(B, dim, h, w)` to the same shape, from `dim` and the keywords `proj_drop`,
            `drop_path`, `act_layer`, `norm_layer`, `device` and `dtype`.
        stem_stride: Stride of each of the two stem convolutions (the paper: 1 up to 64x64 pixels, 2 for 256x256).
        patch_size: Size and stride of the patches at the end of the stem, None for a stem without them.
        in_chans: Number of image channels.
        num_classes: Number of classes, 0 for no classifier.
        global_pool: Global pooling type, '' for none.
        drop_rate: Dropout rate before the classifier.
        proj_drop_rate: Dropout rate in the MLPs.
        drop_path_rate: Stochastic depth rate of the last block, rising linearly from 0 at the first.
        act_layer: Activation layer.
        norm_layer: Normalization layer.

    Raises:
        ValueError: the stem cannot have `dim` channels.
    """

    def __init__(
            self,
            dim: int,
            depth: int,
            block: Callable[..., nn.Module],
            stem_stride: int = 1,
            patch_size: Optional[int] = None,
            in_chans: int = 3,
            num_classes: int = 1000,
            global_pool: str = 'avg',
            drop_rate: float = 0.,
            proj_drop_rate: float = 0.,
            drop_path_rate: float = 0.,
            act_layer: LayerType = 'gelu',
            norm_layer: LayerType = 'batchnorm2d',
            device: Device = None,
            dtype: Optional[torch.dtype] = None,
    ):
        dd: Dict[str, Any] = {'device': device, 'dtype': dtype}
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.num_features = dim
        self.grad_checkpointing = False

        act: Type[nn.Module] = get_act_layer(act_layer)
        norm: Type[nn.Module] = get_norm_layer(norm_layer)
        self.stem = Stem(in_chans, dim, stem_stride, patch_size, act, norm, **dd)
        drop_path_rates = calculate_drop_path_rates(drop_path_rate, depth)
        self.blocks = nn.Sequential(*[
            block(
                dim,
                proj_drop=proj_drop_rate,
                drop_path=drop_path_rates[i],
                act_layer=act,
                norm_layer=norm,
                **dd,
            )
            for i in range(depth)])
        reduction = stem_stride ** 2 * (patch_size or 1)
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
        self.head.to(next(self.stem.parameters()))

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
            The final features and a list of maps, each `(B, dim, h, w)` as the stem gives it.
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
        x = keep_grad_format(x)
        x = self.forward_head(x)
        return x


class WaveMix(IsotropicNet):
    """WaveMix image classifier, section 3.1 of the paper. `(B, in_chans, H, W)` -> `(B, num_classes)`.

    Any H and W from 1 up work, with a `patch_size` from one patch up: a level with an odd side is zero-padded and the
    result cropped, so that every block keeps the size of the map.

    Args:
        dim: Channels of every block (the first number in the paper's names).
        depth: Number of blocks (the second number).
        block: Block type, `WaveMixBlock`, `WaveMixLiteBlock` or `WaveMixCascadeBlock`.
        levels: DWT levels of a block. The paper takes as many as bring the image to 2x2.
        mlp_ratio: Hidden channels of the MLPs as a multiple of `dim` (the authors' `mult`), None for that of the block
            type: 1 in `WaveMixBlock`, 2 in the others.
        stem_stride: Stride of each of the two stem convolutions (the paper: 1 up to 64x64 pixels, 2 for 256x256).
        patch_size: Size and stride of the patches at the end of the stem, None for a stem without them.
        img_size: Image size in pixels, only to check that it gives `levels`. Other sizes still work.
        wavelet: 'haar', or any other discrete wavelet of PyWavelets with the extra `wavelets`.
        kwargs: The other arguments of `IsotropicNet`.

    Raises:
        ImportError: `wavelet` needs the extra `wavelets`.
        ValueError: `dim` does not go with `block`, `levels` or `patch_size`, `levels` not with `block` or `img_size`,
            or `wavelet` is unknown.
    """

    def __init__(
            self,
            dim: int,
            depth: int,
            block: Type[nn.Module] = WaveMixBlock,
            levels: int = 4,
            mlp_ratio: Optional[float] = None,
            stem_stride: int = 1,
            patch_size: Optional[int] = None,
            img_size: Optional[Union[int, Tuple[int, int]]] = None,
            wavelet: str = 'haar',
            **kwargs: Any,
    ):
        if img_size is not None:
            check_levels(levels, img_size, stem_stride, patch_size)
        block_args: Dict[str, Any] = dict(levels=levels, wavelet=wavelet)
        if mlp_ratio is not None:
            block_args['mlp_ratio'] = mlp_ratio
        super().__init__(dim, depth, partial(block, **block_args), stem_stride, patch_size, **kwargs)
        self.levels = levels


def _rename_official(state_dict: Dict[str, torch.Tensor], levels: int) -> Dict[str, torch.Tensor]:
    """Give weights of the official code, package `wavemix`, the names of ours."""
    renamed = {}
    for k, v in state_dict.items():
        k = re.sub(r'^conv\.', 'stem.', k)
        k = re.sub(r'^pool\.2\.', 'head.fc.', k)
        k = re.sub(r'^layers\.(\d+)\.', r'blocks.\1.', k)
        k = k.replace('.reduction.', '.conv_pw.')
        if match := re.fullmatch(r'(blocks\.\d+)\.feedforward(\d?)\.([0345])\.(\w+)', k):
            block, level, layer, name = match.groups()
            s = f's.{levels - int(level)}' if level else ''  # theirs count from the finest level, from 1
            layer = {'0': f'mlp{s}.fc1', '3': f'mlp{s}.fc2', '4': f'up{s}', '5': f'norm{s}'}[layer]
            k = f'{block}.{layer}.{name}'
        renamed[k] = v
    return renamed


def _unwrap(checkpoint: Dict[str, Any]) -> Dict[str, torch.Tensor]:
    """The weights in a training checkpoint, without the prefix that a wrapper of the model gave all of them."""
    containers = [
        k for k, v in checkpoint.items()
        if isinstance(v, dict) and v and all(isinstance(w, torch.Tensor) for w in v.values())]
    if len(containers) > 1 and 'state_dict' not in containers:
        raise ValueError(
            f'The checkpoint holds weights in each of {", ".join(containers)}: '
            'save the one that you mean as a file of its own, and load that.')
    if containers:
        checkpoint = checkpoint['state_dict' if 'state_dict' in containers else containers[0]]
    prefixes = ('module.', '_orig_mod.', 'model.', 'net.')  # of DDP, torch.compile and Lightning modules
    while checkpoint and all(k.startswith(prefixes) for k in checkpoint):
        checkpoint = {k.partition('.')[2]: v for k, v in checkpoint.items()}
    return checkpoint


def checkpoint_filter_fn(state_dict: Dict[str, torch.Tensor], model: nn.Module) -> Dict[str, torch.Tensor]:
    """Turn official weights into ours, and check that weights fit before any of them is loaded.

    The first convolution and the classifier may differ in shape: timm adapts them to `in_chans` and `num_classes`.

    Raises:
        ValueError: the weights do not fit; names the first keys that don't.
    """
    state_dict = _unwrap(state_dict)
    official = any(k.startswith('layers.') for k in state_dict)
    if official and isinstance(model, WaveMix):
        state_dict = _rename_official(state_dict, model.levels)

    own = {k: v.shape for k, v in model.state_dict().items() if not k.startswith('head.')}
    given = {k: getattr(v, 'shape', None) for k, v in state_dict.items() if not k.startswith('head.')}
    misfits = [
        k for k in {**own, **given}
        if k not in own or k not in given or (own[k] != given[k] and k != 'stem.0.weight')]
    if misfits:
        raise ValueError(
            f'The weights are not of this model, {len(misfits)} keys or shapes differ, first {", ".join(misfits[:3])}: '
            'create the model whose weights they are, with the arguments that it was trained with.')

    if official:
        # their transform stacks LL, then LH, HL and HH of the first channel, LH, HL and HH of the second, and so on
        dim = state_dict['blocks.0.conv_pw.weight'].shape[1]
        for k, v in state_dict.items():
            if k.endswith('.fc1.weight'):
                ll, highs, extra = v.split([dim // 4, 3 * dim // 4, v.shape[1] - dim], dim=1)
                highs = highs.unflatten(1, (dim // 4, 3)).transpose(1, 2).flatten(1, 2)
                state_dict[k] = torch.cat([ll, highs, extra], dim=1)
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


def _fashion_mnist_cfg(variant: str, channels: int = 3) -> Dict[str, Any]:
    """Of our own weights, trained on Fashion-MNIST."""
    return _cfg(
        file=str(WEIGHTS / f'{variant}.fashion_mnist.safetensors'),
        input_size=(channels, 28, 28), pool_size=(28, 28), mean=(0.2860,) * channels, std=(0.3530,) * channels,
        label_names=(
            'T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat',
            'Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot'))


def _official_cfg(filename: str, **kwargs: Any) -> Dict[str, Any]:
    """Of weights of the second paper's authors; the preprocessing of ImageNet unless it says otherwise."""
    return _cfg(**{
        'hf_hub_id': 'cloudwalker/wavemix', 'hf_hub_filename': f'Saved_Models_Weights/{filename}',
        'num_classes': 1000, 'input_size': (3, 224, 224), 'pool_size': (56, 56),
        'mean': IMAGENET_DEFAULT_MEAN, 'std': IMAGENET_DEFAULT_STD,
        'origin_url': 'https://github.com/pranavphoenix/WaveMix',
        'license': None,  # the authors state none for weights
        'paper_ids': 'arXiv:2205.14375',
        'paper_name': 'WaveMix: A Resource-efficient Neural Network for Image Analysis',
        **kwargs
    })


_CIFAR10 = dict(
    num_classes=10, input_size=(3, 32, 32), pool_size=(32, 32),
    mean=(0.4941, 0.4853, 0.4507), std=(0.2468, 0.2430, 0.2618))
_CIFAR100 = dict(
    num_classes=100, input_size=(3, 32, 32), pool_size=(32, 32),
    mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761))
_TINY_IMAGENET = dict(num_classes=200, mean=(0.4825, 0.4499, 0.3984), std=(0.2764, 0.2691, 0.2825))
_GALAXY10 = dict(
    num_classes=10, input_size=(3, 256, 256), pool_size=(64, 64), mean=(0., 0., 0.), std=(1., 1., 1.))
_P4 = dict(min_input_size=(3, 4, 4))  # a patch

default_cfgs = generate_default_cfgs({
    'wavemix_16_5.fashion_mnist': _fashion_mnist_cfg('wavemix_16_5'),
    'wavemix_32_5.fashion_mnist': _fashion_mnist_cfg('wavemix_32_5'),
    'wavemix_64_5.fashion_mnist': _fashion_mnist_cfg('wavemix_64_5'),
    'wavemix_lite_8_5.fashion_mnist': _fashion_mnist_cfg('wavemix_lite_8_5', channels=1),
    'wavemix_lite_128_7.fashion_mnist': _fashion_mnist_cfg('wavemix_lite_128_7'),
    'wavemix_lite_256_7.fashion_mnist': _fashion_mnist_cfg('wavemix_lite_256_7'),
    'wavemix_lite_256_7_s2.untrained': _cfg(num_classes=1000, input_size=(3, 256, 256), pool_size=(64, 64)),

    'wavemix_lite_144_7.cifar10': _official_cfg('cifar10/cifar10_94.58.pth', **_CIFAR10),
    'wavemix_lite_320_8.cifar10': _official_cfg('cifar10/cifar10_95.37.pth', **_CIFAR10),
    'wavemix_lite_256_8.cifar100': _official_cfg('cifar100/cifar100_77.82.pth', **_CIFAR100),
    'wavemix_lite_256_10.cifar100': _official_cfg('cifar100/cifar100_78.81.pth', **_CIFAR100),
    'wavemix_lite_256_12.tiny_imagenet': _official_cfg(
        'tinyimagenet/tinyimagenet_62.51.pth', input_size=(3, 64, 64), pool_size=(64, 64), **_TINY_IMAGENET),
    'wavemix_lite_192_16_p4.in1k': _official_cfg('ImageNet/wavemixlite_71.18.pth', **_P4),
    'wavemix_lite_192_16_p4.galaxy10': _official_cfg('galaxy10/galaxy_90.23.pth', **_P4, **_GALAXY10),
    'wavemix_192_16_l3_p4.in1k': _official_cfg('ImageNet/wavemix_192_16_75.06.pth', **_P4),
    'wavemix_192_16_l3_p4.in1k_71_49': _official_cfg('ImageNet/imagenet_71.49.pth', **_P4),
    'wavemix_192_16_l3_p4.tiny_imagenet_128': _official_cfg(
        'tinyimagenet/tiny_78.76.pth', input_size=(3, 128, 128), pool_size=(32, 32), **_P4, **_TINY_IMAGENET),
    'wavemix_192_16_l3_p4.tiny_imagenet_64': _official_cfg(
        'tinyimagenet/tiny_71.69.pth', input_size=(3, 64, 64), pool_size=(16, 16), **_P4, **_TINY_IMAGENET),
    'wavemix_192_16_l3_p4.galaxy10': _official_cfg('galaxy10/galaxy_95.42.pth', **_P4, **_GALAXY10),
    'wavemix_256_16_l3_p4.in1k': _official_cfg('ImageNet/ImageNet73.03.pth', **_P4),
    'wavemix_256_16_l4.in1k': _official_cfg('ImageNet/imagenet4level_70.42.pth'),
    'wavemix_256_12_l2_p8.places365': _official_cfg(
        'Places365/places365_54.94.pth', num_classes=365, pool_size=(28, 28), min_input_size=(3, 8, 8)),
})


def _is_of_damaged_file(error: Exception) -> bool:
    """Whether torch, safetensors or timm may raise it for a file that is damaged or holds no weights."""
    if isinstance(error, OSError):
        return error.errno == errno.EINVAL
    if isinstance(error, RuntimeError):
        return re.search('PytorchStreamReader|unexpected EOF|weights_only', str(error)) is not None
    return isinstance(error, (
        SafetensorError, UnpicklingError, EOFError, LookupError, AttributeError, struct.error))


def _create_wavemix(
        variant: str, pretrained: bool = False, model_cls: Type[IsotropicNet] = WaveMix, **kwargs: Any) -> Any:
    hub_org = os.environ.get('TIMM_WAVEMIX_HUB_ORG')
    if hub_org:
        # our own weights from there, not from the package; a file that the caller names goes before
        overlay = kwargs.get('pretrained_cfg_overlay') or {}
        cfg = resolve_pretrained_cfg(variant, kwargs.get('pretrained_cfg'), overlay)
        if cfg.file and Path(cfg.file).parent == WEIGHTS and 'file' not in overlay:
            kwargs['pretrained_cfg_overlay'] = dict(overlay, file=None, hf_hub_id=f'{hub_org}/{variant}.{cfg.tag}')
    pretrained_cfg = kwargs.get('pretrained_cfg')
    if pretrained_cfg is None or isinstance(pretrained_cfg, str):  # a config of the caller's own is left in peace
        wavelet = kwargs.get('wavelet', 'haar')
        overlay = kwargs.get('pretrained_cfg_overlay') or {}
        own_weights = any(overlay.get(k) for k in ('file', 'url', 'state_dict', 'hf_hub_id'))
        if pretrained and not is_haar(wavelet) and not own_weights:
            raise ValueError(
                f"The weights of {variant} were trained with wavelet='haar' and mean nothing to '{wavelet}': leave out "
                "wavelet, or pretrained=True to train from scratch.")
    try:
        return build_model_with_cfg(
            model_cls, variant, pretrained,
            pretrained_filter_fn=checkpoint_filter_fn,
            feature_cfg=dict(out_indices=3, feature_cls='getter'),  # the last three of blocks that are all of one size
            **kwargs,
        )
    except Exception as e:
        if not pretrained or not _is_of_damaged_file(e):
            raise
        # raises it too if an argument is at fault
        _create_wavemix(variant, model_cls=model_cls, **dict(kwargs, device='meta'))
        reason = str(e).split('. ')[0].split('\n')[0] or repr(e)
        raise RuntimeError(
            f'The weights of {variant} cannot be read, their file is damaged or holds more than weights ({reason}): '
            'delete it, from the cache if it is of the Hub, and fetch or install it again.') from e


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
def wavemix_lite_8_5(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-8/5 for grey images, which the authors' README claims to reach 90 % on Fashion-MNIST."""
    model_args = dict(dim=8, depth=5, block=WaveMixLiteBlock, levels=1)
    return _create_wavemix('wavemix_lite_8_5', pretrained=pretrained, **dict(model_args, **kwargs))


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


@register_model
def wavemix_lite_144_7(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-144/7, of the official weights."""
    model_args = dict(dim=144, depth=7, block=WaveMixLiteBlock, levels=1)
    return _create_wavemix('wavemix_lite_144_7', pretrained=pretrained, **dict(model_args, **kwargs))


@register_model
def wavemix_lite_320_8(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-320/8, of the official weights."""
    model_args = dict(dim=320, depth=8, block=WaveMixLiteBlock, levels=1)
    return _create_wavemix('wavemix_lite_320_8', pretrained=pretrained, **dict(model_args, **kwargs))


@register_model
def wavemix_lite_256_8(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-256/8, of the official weights."""
    model_args = dict(dim=256, depth=8, block=WaveMixLiteBlock, levels=1)
    return _create_wavemix('wavemix_lite_256_8', pretrained=pretrained, **dict(model_args, **kwargs))


@register_model
def wavemix_lite_256_10(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-256/10, of the official weights."""
    model_args = dict(dim=256, depth=10, block=WaveMixLiteBlock, levels=1)
    return _create_wavemix('wavemix_lite_256_10', pretrained=pretrained, **dict(model_args, **kwargs))


@register_model
def wavemix_lite_256_12(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-256/12, of the official weights."""
    model_args = dict(dim=256, depth=12, block=WaveMixLiteBlock, levels=1)
    return _create_wavemix('wavemix_lite_256_12', pretrained=pretrained, **dict(model_args, **kwargs))


@register_model
def wavemix_lite_192_16_p4(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-192/16 with patches of 4x4 pixels, of the official weights."""
    model_args = dict(dim=192, depth=16, block=WaveMixLiteBlock, levels=1, patch_size=4)
    return _create_wavemix('wavemix_lite_192_16_p4', pretrained=pretrained, **dict(model_args, **kwargs))


@register_model
def wavemix_192_16_l3_p4(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-192/16 with 3 cascaded levels and patches of 4x4 pixels, of the official weights."""
    model_args = dict(dim=192, depth=16, block=WaveMixCascadeBlock, levels=3, patch_size=4)
    return _create_wavemix('wavemix_192_16_l3_p4', pretrained=pretrained, **dict(model_args, **kwargs))


@register_model
def wavemix_256_16_l3_p4(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-256/16 with 3 cascaded levels and patches of 4x4 pixels, of the official weights."""
    model_args = dict(dim=256, depth=16, block=WaveMixCascadeBlock, levels=3, patch_size=4)
    return _create_wavemix('wavemix_256_16_l3_p4', pretrained=pretrained, **dict(model_args, **kwargs))


@register_model
def wavemix_256_16_l4(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-256/16 with 4 cascaded levels and stem strides of 2, of the official weights."""
    model_args = dict(dim=256, depth=16, block=WaveMixCascadeBlock, levels=4, stem_stride=2)
    return _create_wavemix('wavemix_256_16_l4', pretrained=pretrained, **dict(model_args, **kwargs))


@register_model
def wavemix_256_12_l2_p8(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-256/12 with 2 cascaded levels and patches of 8x8 pixels, of the official weights."""
    model_args = dict(dim=256, depth=12, block=WaveMixCascadeBlock, levels=2, patch_size=8)
    return _create_wavemix('wavemix_256_12_l2_p8', pretrained=pretrained, **dict(model_args, **kwargs))
