"""Image encoders of CLIPs, and the feature for each location that they give."""

from typing import Any, TypeAlias

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import ConfigError
from stages.models.clip import attention
from stages.models.clip.clip_weights import Dense

Tower: TypeAlias = Any
"""An image encoder of open_clip, a torch module without type annotations."""

_RESNET_STRIDE = 32


def dense_features(visual: Tower, windows: Tensor, dense: Dense) -> Tensor:
    """Computes a feature for each location, by a tower that passed `check`.

    Args:
        visual: open_clip's image encoder.
        windows: (B, 3, H, W) float, normalised; for a transformer, of the size it is prepared for.
        dense: The variant of attention.

    Returns:
        (B, D, h, w), in the joint space of images and texts, of any length.
    """
    if isinstance(visual, VisionTransformer):
        tokens = attention.projected_tokens(visual, windows, dense)
        return _as_map(tokens, windows.shape[-2] // visual.patch_size[0])
    if isinstance(visual, ModifiedResNet):
        return _attention_pool_features(visual, windows)
    if _is_timm_transformer(visual):
        return _timm_transformer_features(visual, windows, dense)
    return location_features(visual, visual.trunk.forward_features(windows))


def check(visual: Tower, model: str, window_px: int, dense: Dense) -> None:
    """Checks that a tower supports what a config asks of it.

    Raises:
        ConfigError: The tower has no features to compare with text, or not the variant, or its
            stride does not divide the windows.
    """
    variants: tuple[str, ...]
    if isinstance(visual, VisionTransformer) and visual.attn_pool is None:
        stride, kind, variants = visual.patch_size[0], "a ViT", attention.VARIANTS
    elif isinstance(visual, ModifiedResNet):
        # The position embeddings of its attention pool fit one size; the value path needs none.
        stride, kind, variants = _RESNET_STRIDE, "a ResNet", ("maskclip",)
    elif _is_timm_transformer(visual):
        stride, kind = visual.trunk.patch_embed.patch_size[0], "a ViT of timm"
        variants = ("vanilla", "maskclip")
    elif isinstance(visual, TimmModel) and not hasattr(visual.trunk, "patch_embed"):
        stride = visual.trunk.feature_info[-1]["reduction"]
        kind, variants = "a network without attention", ("vanilla", "maskclip")
    else:
        what = "this image encoder has no per-location features to compare with text"
        fix = "use a ViT such as ViT-B-16, or a ResNet or ConvNeXt"
        raise ConfigError(what, where=f"model: {model}", fix=fix)
    if dense.variant not in variants:
        what = f"{model} is {kind}, which does not support this variant"
        raise ConfigError(what, where=f"variant: {dense.variant}", fix=f"use {_either(variants)}")
    if not (dense.residual and dense.ffn) and not isinstance(visual, VisionTransformer):
        what = f"{model} is {kind}, which does not support these keys"
        fix = "leave out both keys, or use a ViT of open_clip such as ViT-B-16"
        raise ConfigError(what, where="residual, ffn", fix=fix)
    if window_px % stride:
        below = window_px // stride * stride
        sizes = f"{below} or {below + stride}" if below else f"{stride}"
        what = f"it must be a multiple of {stride}, the stride of {model}"
        raise ConfigError(what, where=f"window_px: {window_px}", fix=f"use {sizes}")


def prepared(visual: Tower, window_px: int, precision: torch.dtype, dense: Dense) -> Tower:
    """Prepares a tower for a window size, a precision and a variant of attention.

    Position embeddings are resized bicubically: those of timm's transformers by timm, antialiased;
    those of open_clip's antialiased for `gem`, otherwise plainly, as MaskCLIP, SCLIP and SemiVL do.
    """
    if _is_timm_transformer(visual):
        visual.trunk.set_input_size(img_size=(window_px, window_px))
    elif isinstance(visual, VisionTransformer):
        _resize_positions(visual, window_px, antialias=dense.variant == "gem")
    elif next(visual.parameters()).is_cuda:
        visual.to(memory_format=torch.channels_last)  # the layout that tensor cores convolve in
    return visual.to(precision)


def whole_px(visual: Tower, window_px: int) -> int:
    """Side of the square that a tower prepared for `window_px` needs for a whole image.

    The position embeddings of a ResNet's attention pool only fit the size of its training.
    """
    if not isinstance(visual, ModifiedResNet):
        return window_px
    size = visual.image_size
    return int(size[0] if isinstance(size, tuple) else size)


def _is_timm_transformer(visual: Tower) -> bool:
    """Whether it is a plain ViT or an EVA of timm; a Swin has no attribute `blocks`."""
    needed = ("set_input_size", "blocks", "num_prefix_tokens")
    return isinstance(visual, TimmModel) and all(hasattr(visual.trunk, name) for name in needed)


def _attention_pool_features(visual: ModifiedResNet, windows: Tensor) -> Tensor:
    """MaskCLIP's value path through the attention pool, without position embeddings."""
    last = visual.forward_intermediates(windows, indices=1, intermediates_only=True)
    values = visual.attnpool.v_proj(last["image_intermediates"][0].movedim(1, -1))
    features: Tensor = visual.attnpool.c_proj(values)
    return features.movedim(-1, 1)


def location_features(visual: TimmModel, maps: Tensor) -> Tensor:
    """Applies the heads of trunk and model to each location as if it were a whole image.

    Args:
        visual: A tower without attention.
        maps: (B, C, h, w), output of its last stage.

    Returns:
        (B, D, h, w), in the joint space of images and texts, of any length.
    """
    last = maps.movedim(1, -1)
    locations = last.flatten(0, 2)[..., None, None]
    features: Tensor = visual.head(visual.trunk.forward_head(locations))
    return features.reshape(*last.shape[:3], -1).movedim(-1, 1)


def _timm_transformer_features(visual: TimmModel, windows: Tensor, dense: Dense) -> Tensor:
    """Applies the heads to each patch as if it were all tokens of an image."""
    trunk = visual.trunk

    def only_itself(block: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, Any]:
        count = args[0].shape[1]
        mask = args[0].new_full((count, count), -torch.inf).fill_diagonal_(0)
        return args, {**kwargs, "attn_mask": mask}

    if dense.variant == "maskclip":
        with trunk.blocks[-1].register_forward_pre_hook(only_itself, with_kwargs=True):
            tokens = trunk.forward_features(windows)
    else:
        tokens = trunk.forward_features(windows)
    patches = tokens[:, trunk.num_prefix_tokens :]
    repeated = patches.flatten(0, 1)[:, None].expand(-1, 1 + trunk.num_prefix_tokens, -1)
    features: Tensor = visual.head(trunk.forward_head(repeated))
    rows = windows.shape[-2] // trunk.patch_embed.patch_size[0]
    return _as_map(features.reshape(*patches.shape[:2], -1), rows)


def _resize_positions(visual: VisionTransformer, window_px: int, *, antialias: bool) -> None:
    """Resizes the position embeddings of a transformer to squares of a size, bicubically."""
    grid = (window_px // visual.patch_size[0], window_px // visual.patch_size[1])
    if grid == visual.grid_size:
        return
    first, patches = visual.positional_embedding[:1], visual.positional_embedding[1:]
    maps = patches.T.unflatten(1, visual.grid_size)[None]
    resized = F.interpolate(maps, grid, mode="bicubic", antialias=antialias)
    positions = torch.cat([first, resized[0].flatten(1).T])
    visual.positional_embedding = nn.Parameter(positions, requires_grad=False)
    visual.grid_size, visual.image_size = grid, (window_px, window_px)


def _as_map(tokens: Tensor, rows: int) -> Tensor:
    """(B, h w, D) to (B, D, h, w)."""
    count, length, channels = tokens.shape
    return tokens.reshape(count, rows, length // rows, channels).movedim(-1, 1)


def _either(variants: tuple[str, ...]) -> str:
    return " or ".join(variants)
