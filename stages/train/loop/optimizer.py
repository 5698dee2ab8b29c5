"""The optimizer of a training, with gradient scaling and clipping."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, AdamW, Optimizer

from pipeline.errors import ConfigError
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.train.config import VariantConfig


def build_optimizer(network: SegmentationNetwork, config: VariantConfig) -> Optimizer:
    """Builds the optimizer, with the groups of `SegmentationNetwork.parameter_groups`.

    Raises:
        ConfigError: The encoder has no blocks whose learning rates could decay.
    """
    if config.layer_decay != 1 and not network.encoder_blocks():
        what = (
            "the encoder has no transformer blocks, so that rates cannot decay from block to block"
        )
        raise ConfigError(what, where="train.layer_decay", fix="leave the key out")
    groups = [
        dict(group)
        for group in network.parameter_groups(
            encoder_multiplier=config.encoder_multiplier,
            decoder_multiplier=config.decoder_multiplier,
            layer_decay=config.layer_decay,
            weight_decay=config.weight_decay,
            decay_encoder_norms=config.decay_encoder_norms,
        )
    ]
    if config.optimizer == "sgd":
        return SGD(groups, config.learning_rate, momentum=0.9)
    return AdamW(groups, config.learning_rate)


class OptimizerStep:
    """Scales losses, clips the gradient and moves the weights.

    Args:
        optimizer: The optimizer; see `build_optimizer`.
        config: Precision and largest norm of the gradient.
        device: The device of the network.

    Attributes:
        optimizer: The optimizer.
        scaler: Keeps float16 gradients from vanishing; does nothing in other precisions.
    """

    def __init__(self, optimizer: Optimizer, config: VariantConfig, device: torch.device) -> None:
        self.optimizer = optimizer
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
        self._clip_norm = math.inf if config.clip_norm is None else config.clip_norm

    def begin(self, rate: float) -> None:
        """Sets the base learning rate of the next step, and clears the gradient."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["multiplier"]
        self.optimizer.zero_grad(set_to_none=True)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of a loss."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self) -> str | None:
        """Moves the weights by the gradient.

        Returns:
            None; or what is wrong with the gradient, and then the weights have not moved.
        """
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = clip_grad_norm_(parameters, self._clip_norm).item()
        # Float16 gradients may overflow: then the scaler skips the step and lowers the scale.
        if not math.isfinite(norm) and self.scaler.get_scale() <= 1:
            return f"the gradient became {norm}"
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return None
