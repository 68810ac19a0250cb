"""WaveMix: image classification with a fixed 2-D wavelet transform as token mixer.

Papers:
    `WaveMix: Resource-efficient Token Mixing for Images` - https://arxiv.org/abs/2203.03689
    `WaveMix: A Resource-efficient Neural Network for Image Analysis` - https://arxiv.org/abs/2205.14375
Official code and weights: https://github.com/pranavphoenix/WaveMix, https://huggingface.co/cloudwalker/wavemix

A model is a stem of two 3x3 convolutions, a stack of blocks that keep the size of the map, global average pooling and a
linear classifier (section 3.1 of the first paper). Its blocks are WaveMix (section 3.2), WaveMix-Lite (section 3.3),
the cascade of the second paper, or the blocks of mixers.py. Widths that the text leaves open give table 1's counts.
"""
import os
import re
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Type, Union

import torch
import torch.nn as nn
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import ClassifierHead, DropPath, calculate_drop_path_rates, get_act_layer, get_norm_layer, to_2tuple
from timm.layers.typing import LayerType
from timm.models import build_model_with_cfg, checkpoint, checkpoint_seq, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch.types import Device

from .layers import WaveletMlp, conv_transpose2d, fuse_up, keep_grad_format, upsample2d
from .mixers import FNet2dBlock, MlpMixer2dBlock
from .wavelet import LLSubband, crop, is_haar, stock_ll_subband

__all__ = ['WaveMix']

torch.fx.wrap('crop')  # torch.fx needs this in every module that calls the function
torch.fx.wrap('keep_grad_format')


class WaveMixBlock(nn.Module):
    """WaveMix block, section 3.2 and figure 1 of the paper. `(B, dim, H, W)` -> `(B, dim, H, W)`.

    Level l takes the LL sub-band of level l - 1 through an MLP and a transposed convolution back to H x W, to its
    share of the channels. A depth-wise convolution mixes the levels.
    """

    def __init__(
            self, dim: int, levels: int = 4, mlp_ratio: float = 1., ff_dim: Optional[int] = None, wavelet: str = 'haar',
            proj_drop: float = 0., drop_path: float = 0., act_layer: Type[nn.Module] = nn.GELU,
            norm_layer: Type[nn.Module] = nn.BatchNorm2d, device: Device = None, dtype: Optional[torch.dtype] = None,
    ):
        dd: Dict[str, Any] = {'device': device, 'dtype': dtype}
        super().__init__()
        ff_dim = ff_dim or dim
        assert 1 <= levels <= dim, f'{levels} levels cannot share {dim} channels: use 1 to {dim}.'
        self.lls = nn.ModuleList([nn.Identity(), *[LLSubband(wavelet) for _ in range(levels - 1)]])
        self.mlps = nn.ModuleList([
            WaveletMlp(dim, int(mlp_ratio * ff_dim), ff_dim, wavelet, act_layer, drop=proj_drop, **dd)
            for _ in range(levels)])
        self.ups = nn.ModuleList([
            # the first dim % levels levels take one channel more
            conv_transpose2d(ff_dim, (dim + levels - 1 - i) // levels, stride=2 ** (i + 1), **dd)
            for i in range(levels)])
        self.conv_dw = nn.Conv2d(dim, dim, 5, padding=2, groups=dim, **dd)
        self.act = act_layer()
        self.norm = norm_layer(dim, **dd)
        self.drop_path = DropPath(drop_path) if drop_path > 0. else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        shortcut = ll = x
        outs = []
        for ll_subband, mlp, up in zip(self.lls, self.mlps, self.ups):
            ll = ll_subband(ll)
            outs.append(crop(up(mlp(ll)), height, width))
        x = torch.cat(outs, dim=1)
        x = self.conv_dw(x)
        x = self.act(x)
        x = self.norm(x)
        return shortcut + self.drop_path(x)

    @torch.jit.ignore
    def reparameterize(self) -> None:
        """Replace the LL sub-bands by stock convolutions, if the model is to be exported."""
        self.lls = nn.ModuleList([stock_ll_subband(ll, self.conv_dw.weight) for ll in self.lls])


class WaveMixLiteBlock(nn.Module):
    """WaveMix-Lite block, section 3.3 and figure 2 of the paper. `(B, dim, H, W)` -> `(B, dim, H, W)`."""

    def __init__(
            self, dim: int, levels: int = 1, mlp_ratio: float = 2., ff_dim: Optional[int] = None, wavelet: str = 'haar',
            upsample: str = 'deconv', proj_drop: float = 0., drop_path: float = 0.,
            act_layer: Type[nn.Module] = nn.GELU, norm_layer: Type[nn.Module] = nn.BatchNorm2d,
            device: Device = None, dtype: Optional[torch.dtype] = None,
    ):
        dd: Dict[str, Any] = {'device': device, 'dtype': dtype}
        super().__init__()
        assert levels == 1, f"A WaveMix-Lite block has one level, not {levels}: use block_type='cascade' for more."
        ff_dim = ff_dim or dim
        self.conv_pw = nn.Conv2d(dim, dim // 4, 1, **dd)
        self.mlp = WaveletMlp(dim // 4, int(mlp_ratio * ff_dim), ff_dim, wavelet, act_layer, (proj_drop, 0.), **dd)
        self.up = upsample2d(ff_dim, dim, upsample, **dd)
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
        """Fuse the batch norm into the convolution before it, for inference."""
        self.up, self.norm = fuse_up(self.mlp, self.up, self.norm)


class WaveMixCascadeBlock(nn.Module):
    """Cascaded WaveMix block, of the second paper (arXiv 2205.14375). `(B, dim, H, W)` -> `(B, dim, H, W)`.

    As in WaveMix-Lite the channels are reduced first, then decomposed over all levels. From the coarsest level down,
    the output of each, at twice its size, is stacked after the sub-bands of the next finer one. With one level it is
    a WaveMix-Lite block.
    """

    def __init__(
            self, dim: int, levels: int = 3, mlp_ratio: float = 2., ff_dim: Optional[int] = None, wavelet: str = 'haar',
            upsample: str = 'deconv', proj_drop: float = 0., drop_path: float = 0.,
            act_layer: Type[nn.Module] = nn.GELU, norm_layer: Type[nn.Module] = nn.BatchNorm2d,
            device: Device = None, dtype: Optional[torch.dtype] = None,
    ):
        dd: Dict[str, Any] = {'device': device, 'dtype': dtype}
        super().__init__()
        assert levels >= 1, f'{levels} levels leave a block nothing to do: use 1 or more.'
        self.lls = nn.ModuleList([LLSubband(wavelet) for _ in range(levels - 1)])
        out_dims = [dim // 2] * (levels - 1) + [dim]  # of each level, from the coarsest, as they run
        extra_dims = [0] + out_dims[:-1]
        self.conv_pw = nn.Conv2d(dim, dim // 4, 1, **dd)
        # bilinear up-sampling keeps the channels, so the MLP gives their number
        ff_dims = [out_dim if upsample == 'bilinear' else ff_dim or dim for out_dim in out_dims]
        self.mlps = nn.ModuleList([
            WaveletMlp(dim // 4, int(mlp_ratio * (ff_dim or dim)), ff, wavelet, act_layer, (proj_drop, 0.), extra, **dd)
            for ff, extra in zip(ff_dims, extra_dims)])
        self.ups = nn.ModuleList([upsample2d(ff, out_dim, upsample, **dd) for ff, out_dim in zip(ff_dims, out_dims)])
        self.norms = nn.ModuleList([norm_layer(out_dim, **dd) for out_dim in out_dims])
        self.drop_path = DropPath(drop_path) if drop_path > 0. else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        lls = [self.conv_pw(x)]
        for ll_subband in self.lls:
            lls.append(ll_subband(lls[-1]))
        coarser: Optional[torch.Tensor] = None
        for mlp, up, norm in zip(self.mlps, self.ups, self.norms):
            ll = lls.pop()
            x = crop(up(mlp(ll, coarser)), ll.shape[-2], ll.shape[-1])
            coarser = x = norm(x)
        return shortcut + self.drop_path(x)

    @torch.jit.ignore
    def reparameterize(self) -> None:
        """Fuse the batch norms into the convolutions before them, and treat the LL sub-bands as `WaveMixBlock` does."""
        for i, mlp in enumerate(self.mlps):
            self.ups[i], self.norms[i] = fuse_up(mlp, self.ups[i], self.norms[i])
        self.lls = nn.ModuleList([stock_ll_subband(ll, self.conv_pw.weight) for ll in self.lls])


BLOCK_TYPES: Dict[str, Type[nn.Module]] = dict(
    wavemix=WaveMixBlock, lite=WaveMixLiteBlock, cascade=WaveMixCascadeBlock, fnet=FNet2dBlock, mixer=MlpMixer2dBlock)


class WaveMix(nn.Module):
    """WaveMix image classifier, section 3.1 of the paper. `(B, in_chans, H, W)` -> `(B, num_classes)`.

    Any H and W from 1 up work, with a `patch_size` from one patch up: a level with an odd side is zero-padded and the
    result cropped, so that every block keeps the size of the map. Only 'mixer' blocks take images of one size.

    Args:
        dim: Channels of every block (the first number in the paper's names).
        depth: Number of blocks (the second number).
        block_type: 'wavemix', 'lite', 'cascade', 'fnet' or 'mixer', or a class that takes `dim` and the keywords
            `proj_drop`, `drop_path`, `act_layer`, `norm_layer`, `device` and `dtype`.
        levels: DWT levels of a block, None for the default of its type: 4 for 'wavemix', 1 for 'lite', 3 for
            'cascade'. The paper uses enough of them to reduce the map to 2x2.
        mlp_ratio: Hidden channels of the MLPs as a multiple of `ff_dim` (the authors' `mult`), None for the default of
            the block type: 1 for 'wavemix', 2 for 'lite' and 'cascade'.
        ff_dim: Channels between the MLP and the transposed convolution (the authors' `ff_channel`), None for `dim`.
        wavelet: A discrete wavelet of PyWavelets, None for 'haar'. Raises ImportError without this package, and
            ValueError for an unknown name.
        upsample: 'deconv' (None), or 'bilinear' in 'lite' and 'cascade' (small models of the authors' README).
        stem_stride: Stride of the two stem convolutions, a pair if they differ (the paper: 1 up to 64x64 pixels, 2 for
            256x256).
        patch_size: Size and stride of the patches at the end of the stem, None for a stem without them.
        img_size: Size in pixels of the images that 'mixer' blocks take.
        proj_drop_rate: Dropout rate in the MLPs.
        in_chans, num_classes, global_pool, drop_rate, drop_path_rate, act_layer, norm_layer, device, dtype: As in
            other timm models.
    """

    def __init__(
            self,
            dim: int, depth: int, block_type: Union[str, Type[nn.Module]] = 'wavemix', levels: Optional[int] = None,
            mlp_ratio: Optional[float] = None, ff_dim: Optional[int] = None,
            wavelet: Optional[str] = None, upsample: Optional[str] = None,
            stem_stride: Union[int, Tuple[int, int]] = 1, patch_size: Optional[int] = None,
            img_size: Optional[Union[int, Tuple[int, int]]] = None,
            in_chans: int = 3, num_classes: int = 1000, global_pool: str = 'avg',
            drop_rate: float = 0., proj_drop_rate: float = 0., drop_path_rate: float = 0.,
            act_layer: LayerType = 'gelu', norm_layer: LayerType = 'batchnorm2d',
            device: Device = None, dtype: Optional[torch.dtype] = None,
    ):
        dd: Dict[str, Any] = {'device': device, 'dtype': dtype}
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.num_features = dim
        self.grad_checkpointing = False
        act, norm = get_act_layer(act_layer), get_norm_layer(norm_layer)

        stride1, stride2 = to_2tuple(stem_stride)
        stem_dim = dim if patch_size is None else dim // 2
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, stem_dim // 2, 3, stride=stride1, padding=1, **dd),
            nn.Conv2d(stem_dim // 2, stem_dim, 3, stride=stride2, padding=1, **dd),
        )
        if patch_size is not None:  # as in the second paper (arXiv 2205.14375)
            self.stem.extend([nn.Conv2d(stem_dim, dim, patch_size, stride=patch_size, **dd), act(), norm(dim, **dd)])

        block_args: Dict[str, Any] = dict(
            levels=levels, mlp_ratio=mlp_ratio, ff_dim=ff_dim, wavelet=wavelet, upsample=upsample)
        if img_size is not None:
            sides = ((side - 1) // (stride1 * stride2) + 1 for side in to_2tuple(img_size))
            block_args['size'] = tuple(side // (patch_size or 1) for side in sides)
        block_args = {k: v for k, v in block_args.items() if v is not None}  # else the default of the block
        assert block_type in BLOCK_TYPES or not isinstance(block_type, str), f'block_type: use one of {[*BLOCK_TYPES]}'
        block = BLOCK_TYPES[block_type] if isinstance(block_type, str) else block_type
        self.blocks = nn.Sequential(*[
            block(
                dim, proj_drop=proj_drop_rate, drop_path=drop_path, act_layer=act, norm_layer=norm, **block_args, **dd)
            for drop_path in calculate_drop_path_rates(drop_path_rate, depth)])
        reduction = stride1 * stride2 * (patch_size or 1)
        self.feature_info = [dict(num_chs=dim, reduction=reduction, module=f'blocks.{i}') for i in range(depth)]
        self.head = ClassifierHead(dim, num_classes, pool_type=global_pool, drop_rate=drop_rate, **dd)
        self.head_hidden_size = self.head.num_features

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
        first = next(self.parameters())
        self.head.reset(num_classes, global_pool, device=first.device, dtype=first.dtype)
        self.head_hidden_size = self.head.num_features

    def forward_intermediates(
            self, x: torch.Tensor, indices: Optional[Union[int, List[int]]] = None, norm: bool = False,
            stop_early: bool = False, output_fmt: str = 'NCHW', intermediates_only: bool = False,
    ) -> Union[List[torch.Tensor], Tuple[torch.Tensor, List[torch.Tensor]]]:
        """The final features and those of the blocks of `indices` (the last n if an int, all if None), as in timm.

        Images `(B, in_chans, H, W)` -> `(B, dim, h, w)` and a list of such maps. There is no final `norm`.
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
            self, indices: Union[int, List[int]] = 1, prune_norm: bool = False, prune_head: bool = True) -> List[int]:
        """Remove the blocks after the last of `indices`, and the head. Returns the indices as positive numbers."""
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


def checkpoint_filter_fn(state_dict: Dict[str, Any], model: nn.Module) -> Dict[str, Any]:
    """Take the weights out of what a training loop saved, and give official ones our names and order."""
    for container in 'state_dict', 'model_state_dict', 'net':
        state_dict = state_dict.get(container, state_dict)
    first = [m for k in state_dict if (m := re.fullmatch(r'(.*?)(stem\.0|layers\.0\.reduction)\.weight', k))]
    if len(first) != 1:  # what else does not fit, load_state_dict names
        found = f'several models ({", ".join(m[0] for m in first)})' if first else f'{[*state_dict][:3]}, not a WaveMix'
        raise ValueError(f'The checkpoint holds {found}: load the weights of one model of this package.')
    prefix, official = first[0][1], not first[0][2].startswith('stem')
    tops = ('conv.', 'layers.', 'pool.') if official else ('stem.', 'blocks.', 'head.')
    state_dict = {k[len(prefix):]: v for k, v in state_dict.items() if k.startswith(tuple(prefix + t for t in tops))}
    return _convert_official(state_dict) if official else state_dict


def _convert_official(state_dict: Dict[str, torch.Tensor]) -> Dict[str, torch.Tensor]:
    levels = sum(re.match(r'layers\.0\.feedforward\d\.0\.weight', k) is not None for k in state_dict)
    names = {'0': 'mlp{}.fc1', '3': 'mlp{}.fc2', '4': 'up{}', '5': 'norm{}'}
    out = {}
    for k, v in state_dict.items():
        k = re.sub(r'^conv\.', 'stem.', re.sub(r'^layers\.', 'blocks.', re.sub(r'^pool\.2\.', 'head.fc.', k)))
        k = re.sub(r'\.reduction\.', '.conv_pw.', k)
        if m := re.search(r'feedforward(\d?)\.([0345])\.', k):  # theirs count levels from the finest, from 1
            level = f's.{levels - int(m[1])}' if m[1] else ''
            k = k.replace(m[0], names[m[2]].format(level) + '.')
        if k.endswith('.fc1.weight'):
            # their transform stacks LL, then LH, HL and HH of the first channel, LH, HL and HH of the second, and so on
            dim = len(state_dict['layers.0.reduction.weight'])
            ll, highs, extra = v.split([dim, 3 * dim, v.shape[1] - 4 * dim], dim=1)
            v = torch.cat([ll, highs.unflatten(1, (dim, 3)).transpose(1, 2).flatten(1, 2), extra], dim=1)
        out[k] = v
    return out


def _cfg(url: str = '', **kwargs: Any) -> Dict[str, Any]:
    return {
        'url': url, 'num_classes': 10, 'input_size': (3, 32, 32), 'pool_size': (32, 32),
        'crop_pct': 1.0, 'interpolation': 'bicubic', 'mean': (0.5, 0.5, 0.5), 'std': (0.5, 0.5, 0.5),
        'first_conv': 'stem.0', 'classifier': 'head.fc',
        'paper_ids': 'arXiv:2203.03689', 'paper_name': 'WaveMix: Resource-efficient Token Mixing for Images',
        'license': 'mit',
        **kwargs
    }


WEIGHTS = Path(__file__).parent / 'weights'


def _own_cfg(name: str, channels: int = 3) -> Dict[str, Any]:
    """Of our own weights, trained on Fashion-MNIST, which come with the package."""
    hub_org = os.environ.get('TIMM_WAVEMIX_HUB_ORG')
    return _cfg(
        **dict(hf_hub_id=f'{hub_org}/{name}') if hub_org else dict(file=str(WEIGHTS / f'{name}.safetensors')),
        input_size=(channels, 28, 28), pool_size=(28, 28), mean=(0.2860,) * channels, std=(0.3530,) * channels,
        label_names=(
            'T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat', 'Sandal', 'Shirt', 'Sneaker', 'Bag', 'Ankle boot'))


def _official_cfg(filename: str, **kwargs: Any) -> Dict[str, Any]:
    """Of weights of the second paper's authors; the preprocessing of ImageNet unless it says otherwise."""
    return _cfg(**{
        'hf_hub_id': 'cloudwalker/wavemix', 'hf_hub_filename': f'Saved_Models_Weights/{filename}',
        'num_classes': 1000, 'input_size': (3, 224, 224), 'pool_size': (56, 56), 'mean': IMAGENET_DEFAULT_MEAN,
        'std': IMAGENET_DEFAULT_STD,
        'origin_url': 'https://github.com/pranavphoenix/WaveMix',
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
_GALAXY10 = dict(num_classes=10, input_size=(3, 256, 256), pool_size=(64, 64), mean=(0., 0., 0.), std=(1., 1., 1.))
_P4 = dict(min_input_size=(3, 4, 4))  # a patch

default_cfgs = generate_default_cfgs({
    'wavemix_16_5.fashion_mnist': _own_cfg('wavemix_16_5.fashion_mnist'),
    'wavemix_32_5.fashion_mnist': _own_cfg('wavemix_32_5.fashion_mnist'),
    'wavemix_64_5.fashion_mnist': _own_cfg('wavemix_64_5.fashion_mnist'),
    'wavemix_lite_8_5.fashion_mnist': _own_cfg('wavemix_lite_8_5.fashion_mnist', channels=1),
    'wavemix_lite_8_10.fashion_mnist': _own_cfg('wavemix_lite_8_10.fashion_mnist', channels=1),
    'wavemix_lite_32_7.fashion_mnist': _own_cfg('wavemix_lite_32_7.fashion_mnist'),
    'wavemix_lite_128_7.fashion_mnist': _own_cfg('wavemix_lite_128_7.fashion_mnist'),
    'wavemix_lite_256_7.fashion_mnist': _own_cfg('wavemix_lite_256_7.fashion_mnist'),
    'wavemix_lite_64_6.untrained': _cfg(),
    'wavemix_lite_256_7_s2.untrained': _cfg(num_classes=1000, input_size=(3, 256, 256), pool_size=(64, 64)),
    'fnet2d_64_5.untrained': _cfg(),
    'fnet2d_128_5.untrained': _cfg(),
    'mlp_mixer2d_64_5.untrained': _cfg(fixed_input_size=True),
    'mlp_mixer2d_128_5.untrained': _cfg(fixed_input_size=True),

    'wavemix_lite_144_7.cifar10': _official_cfg('cifar10/cifar10_94.58.pth', **_CIFAR10),
    'wavemix_lite_320_8.cifar10': _official_cfg('cifar10/cifar10_95.37.pth', **_CIFAR10),
    'wavemix_lite_256_8.cifar100': _official_cfg('cifar100/cifar100_77.82.pth', **_CIFAR100),
    'wavemix_lite_256_10.cifar100': _official_cfg('cifar100/cifar100_78.81.pth', **_CIFAR100),
    'wavemix_lite_256_12.tiny_imagenet': _official_cfg(
        'tinyimagenet/tinyimagenet_62.51.pth', input_size=(3, 64, 64), pool_size=(64, 64), **_TINY_IMAGENET),
    'wavemix_lite_192_16_p4.in1k': _official_cfg('ImageNet/wavemixlite_71.18.pth', **_P4),
    'wavemix_lite_192_16_p4.galaxy10': _official_cfg('galaxy10/galaxy_90.23.pth', **_P4, **_GALAXY10),
    'wavemix_192_16_l3_p4.in1k': _official_cfg('ImageNet/wavemix_192_16_75.06.pth', **_P4),
    'wavemix_192_16_l3_p4.in1k_v1': _official_cfg('ImageNet/imagenet_71.49.pth', **_P4),
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


def _create_wavemix(variant: str, pretrained: bool, model_args: Dict[str, Any], **kwargs: Any) -> WaveMix:
    overlay, cfg = kwargs.get('pretrained_cfg_overlay') or {}, kwargs.get('pretrained_cfg')
    own_weights = not isinstance(cfg, (str, type(None))) or {'file', 'url', 'hf_hub_id', 'state_dict'} & {*overlay}
    if pretrained and not own_weights and not is_haar(kwargs.get('wavelet') or 'haar'):
        raise ValueError(f"The weights of {variant} are for wavelet='haar': leave out wavelet, or pretrained=True.")
    return build_model_with_cfg(
        WaveMix, variant, pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg=dict(out_indices=3, feature_cls='getter'),  # the last three of blocks that are all of one size
        **dict(model_args, **kwargs),
    )


@register_model
def wavemix_16_5(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-16/5 (table 1 of the paper)."""
    return _create_wavemix('wavemix_16_5', pretrained, dict(dim=16, depth=5), **kwargs)


@register_model
def wavemix_32_5(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-32/5 (table 1 of the paper)."""
    return _create_wavemix('wavemix_32_5', pretrained, dict(dim=32, depth=5), **kwargs)


@register_model
def wavemix_64_5(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-64/5 (table 1 of the paper)."""
    return _create_wavemix('wavemix_64_5', pretrained, dict(dim=64, depth=5), **kwargs)


@register_model
def wavemix_lite_8_5(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-8/5 for grayscale images: 7,156 parameters (the authors' README)."""
    return _create_wavemix('wavemix_lite_8_5', pretrained, dict(dim=8, depth=5, block_type='lite'), **kwargs)


@register_model
def wavemix_lite_8_10(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-8/10 for grayscale images, with bilinear up-sampling: 3,566 parameters (the authors' README)."""
    model_args = dict(dim=8, depth=10, block_type='lite', upsample='bilinear')
    return _create_wavemix('wavemix_lite_8_10', pretrained, model_args, **kwargs)


@register_model
def wavemix_lite_32_7(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-32/7 with bilinear up-sampling: 37,058 parameters (the authors' README)."""
    model_args = dict(dim=32, depth=7, block_type='lite', upsample='bilinear')
    return _create_wavemix('wavemix_lite_32_7', pretrained, model_args, **kwargs)


@register_model
def wavemix_lite_64_6(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-64/6: 520,106 parameters (the authors' README)."""
    return _create_wavemix('wavemix_lite_64_6', pretrained, dict(dim=64, depth=6, block_type='lite'), **kwargs)


@register_model
def wavemix_lite_128_7(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-128/7 (WaveMix-128/7 in the paper's tables)."""
    return _create_wavemix('wavemix_lite_128_7', pretrained, dict(dim=128, depth=7, block_type='lite'), **kwargs)


@register_model
def wavemix_lite_256_7(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-256/7 (WaveMix-256/7 in the paper's tables)."""
    return _create_wavemix('wavemix_lite_256_7', pretrained, dict(dim=256, depth=7, block_type='lite'), **kwargs)


@register_model
def wavemix_lite_256_7_s2(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-256/7 for 256x256 images: stem strides of 2 (section 4.3 of the paper)."""
    model_args = dict(dim=256, depth=7, block_type='lite', stem_stride=2)
    return _create_wavemix('wavemix_lite_256_7_s2', pretrained, model_args, **kwargs)


@register_model
def wavemix_lite_144_7(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-144/7, of the official weights."""
    return _create_wavemix('wavemix_lite_144_7', pretrained, dict(dim=144, depth=7, block_type='lite'), **kwargs)


@register_model
def wavemix_lite_320_8(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-320/8, of the official weights."""
    return _create_wavemix('wavemix_lite_320_8', pretrained, dict(dim=320, depth=8, block_type='lite'), **kwargs)


@register_model
def wavemix_lite_256_8(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-256/8, of the official weights."""
    return _create_wavemix('wavemix_lite_256_8', pretrained, dict(dim=256, depth=8, block_type='lite'), **kwargs)


@register_model
def wavemix_lite_256_10(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-256/10, of the official weights."""
    return _create_wavemix('wavemix_lite_256_10', pretrained, dict(dim=256, depth=10, block_type='lite'), **kwargs)


@register_model
def wavemix_lite_256_12(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-256/12, of the official weights."""
    return _create_wavemix('wavemix_lite_256_12', pretrained, dict(dim=256, depth=12, block_type='lite'), **kwargs)


@register_model
def wavemix_lite_192_16_p4(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-Lite-192/16 with patches of 4x4 pixels, of the official weights."""
    model_args = dict(dim=192, depth=16, block_type='lite', patch_size=4)
    return _create_wavemix('wavemix_lite_192_16_p4', pretrained, model_args, **kwargs)


@register_model
def wavemix_192_16_l3_p4(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-192/16 with 3 cascaded levels and patches of 4x4 pixels, of the official weights."""
    model_args = dict(dim=192, depth=16, block_type='cascade', levels=3, patch_size=4)
    return _create_wavemix('wavemix_192_16_l3_p4', pretrained, model_args, **kwargs)


@register_model
def wavemix_256_16_l3_p4(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-256/16 with 3 cascaded levels and patches of 4x4 pixels, of the official weights."""
    model_args = dict(dim=256, depth=16, block_type='cascade', levels=3, patch_size=4)
    return _create_wavemix('wavemix_256_16_l3_p4', pretrained, model_args, **kwargs)


@register_model
def wavemix_256_16_l4(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-256/16 with 4 cascaded levels and stem strides of 2, of the official weights."""
    model_args = dict(dim=256, depth=16, block_type='cascade', levels=4, stem_stride=2)
    return _create_wavemix('wavemix_256_16_l4', pretrained, model_args, **kwargs)


@register_model
def wavemix_256_12_l2_p8(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """WaveMix-256/12 with 2 cascaded levels and patches of 8x8 pixels, of the official weights."""
    model_args = dict(dim=256, depth=12, block_type='cascade', levels=2, patch_size=8)
    return _create_wavemix('wavemix_256_12_l2_p8', pretrained, model_args, **kwargs)


@register_model
def fnet2d_64_5(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """2D FNet-64/5 (table 1 of the paper)."""
    return _create_wavemix('fnet2d_64_5', pretrained, dict(dim=64, depth=5, block_type='fnet'), **kwargs)


@register_model
def fnet2d_128_5(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """2D FNet-128/5 (table 1 of the paper)."""
    return _create_wavemix('fnet2d_128_5', pretrained, dict(dim=128, depth=5, block_type='fnet'), **kwargs)


@register_model
def mlp_mixer2d_64_5(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """2D MLP-Mixer-64/5 (table 1 of the paper)."""
    return _create_wavemix('mlp_mixer2d_64_5', pretrained, dict(dim=64, depth=5, block_type='mixer'), **kwargs)


@register_model
def mlp_mixer2d_128_5(pretrained: bool = False, **kwargs: Any) -> WaveMix:
    """2D MLP-Mixer-128/5 (table 1 of the paper)."""
    return _create_wavemix('mlp_mixer2d_128_5', pretrained, dict(dim=128, depth=5, block_type='mixer'), **kwargs)
