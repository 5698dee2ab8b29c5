"""The image trunk of the tiny CLIP: a small residual network for open_clip, timm and smp."""

from typing import Any

import timm.models
from timm.models import byobnet
from torch import nn

NAME = "maskmill_trunk"
"""Name of the trunk in timm, after `register`."""

default_cfgs = timm.models.generate_default_cfgs(
    {NAME: {"input_size": (3, 128, 128), "first_conv": "stem.conv", "classifier": "head.fc"}}
)
"""Defaults that timm reads from this module; the name is required by timm."""

_BLOCKS = byobnet.ByoModelCfg(
    blocks=(
        byobnet.ByoBlockCfg(type="basic", d=1, c=64, s=2),
        byobnet.ByoBlockCfg(type="basic", d=2, c=128, s=2),
        byobnet.ByoBlockCfg(type="basic", d=3, c=192, s=1),
    ),
    stem_chs=32,
    stem_pool="",
)


def maskmill_trunk(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A ByobNet of basic blocks with batch norm and ReLU, 2.5 M parameters, total stride 8.

    With `features_only` it returns 32, 64 and 192 channels at strides 2, 4 and 8.

    Args:
        pretrained: Required by timm; this trunk has no weights to download.
        **kwargs: Arguments of timm's builder and of ByobNet.

    Returns:
        The network.
    """
    network: nn.Module = timm.models.build_model_with_cfg(
        byobnet.ByobNet,
        NAME,
        pretrained,
        model_cfg=_BLOCKS,
        feature_cfg={"out_indices": (0, 1, 2), "flatten_sequential": True},
        **kwargs,
    )
    return network


def register() -> None:
    """Registers the trunk with timm; may be called several times."""
    if not timm.models.is_model(NAME):
        timm.models.register_model(maskmill_trunk)
