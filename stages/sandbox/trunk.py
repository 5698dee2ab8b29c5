"""The sandbox's image trunk: a small residual network that open_clip, timm and smp can build."""

from typing import Any

import timm.models
from timm.models import byobnet
from torch import nn

NAME = "maskmill_trunk"
"""What timm knows it by, once `register` has been called."""

default_cfgs = timm.models.generate_default_cfgs(
    {NAME: {"input_size": (3, 128, 128), "first_conv": "stem.conv", "classifier": "head.fc"}}
)
"""Where timm looks for the facts about a network; the name is timm's."""

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

    With `features_only` it gives 32, 64 and 192 channels at strides 2, 4 and 8.

    Args:
        pretrained: Part of timm's contract; this trunk has no weights to download.
        **kwargs: What timm's builder and ByobNet take.

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
    """Makes `timm.create_model("maskmill_trunk")` work; calling it again changes nothing."""
    if not timm.models.is_model(NAME):
        timm.models.register_model(maskmill_trunk)
