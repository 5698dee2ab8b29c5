"""Builds the networks of trainings before any work, and passes crops through their shapes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from pipeline.config.config import Config
from pipeline.engine import torchrun
from pipeline.engine.findings import Findings
from pipeline.errors import ConfigError, error_context
from stages.models.device import pick_device
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.train.config import VariantConfig
from stages.train.loop.optimizer import build_optimizer
from stages.train.loop.torch_errors import batch_norm_errors
from stages.train.step.perturbations.base import PerturbationConfig

_UNFIT = (RuntimeError, ValueError, AssertionError)
"""What networks raise for a size that they cannot take."""


def rehearse(
    config: Config,
    variants: Mapping[str, VariantConfig],
    findings: Findings,
    *,
    downloads: bool,
) -> None:
    """Finds devices that are not there, and networks that cannot be built or trained.

    Each network is built as the training will do it; without downloads, with random weights.
    Tensors of the device `meta` have shapes and no values, so that passing crops costs no time.
    """
    seen: set[str] = set()
    for name, variant in variants.items():
        if torchrun.world() == 1:
            with findings.collecting(), error_context(config.where("train", "variants", name)):
                pick_device(variant.device)
        keys = variant.model_dump(mode="json", include=_KEYS)
        if (text := json.dumps(keys, sort_keys=True)) not in seen:
            seen.add(text)
            where = config.where("train", "variants", name)
            with findings.collecting(), _named(where):
                builder = variant.model.create()
                architecture = None if downloads else builder.architecture()
                network = builder.build(config.vocabulary, architecture=architecture)
                build_optimizer(network, variant)
                _pass_crops(network, variant, config, name)


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Adds the place of the variant to errors that only name a key of the model."""
    try:
        yield
    except ConfigError as error:
        if error.where.startswith("model."):
            raise error.moved(f"{where}: {error.where}") from error
        raise


_KEYS = {
    "model",
    "perturbation",
    "label_sources",
    "feature_discriminator",
    "crop_px",
    "batch_size",
    "accumulate",
    "layer_decay",
    "freeze_encoder",
}
"""Keys on which it depends whether a network can be trained."""


def _pass_crops(
    network: SegmentationNetwork, variant: VariantConfig, config: Config, name: str
) -> None:
    if variant.freeze_encoder:
        network.freeze_encoder()
    network = network.to("meta").train()
    crops = torch.empty(_least_batch(variant), 3, variant.crop_px, variant.crop_px, device="meta")
    with torch.no_grad(), batch_norm_errors(config.where("train", "variants", name)):
        try:
            network(crops)
        except NotImplementedError:
            pass  # something that shapes alone do not tell
        except _UNFIT as error:
            if "more than 1 value per channel" in str(error):
                raise
            reason = " ".join(str(error).split())[:160].rstrip(".")
            what = f"the network cannot take crops of {variant.crop_px} px: {reason}"
            where = config.where("train", "variants", name, "crop_px")
            fix = "use a larger multiple of 32, or another network"
            raise ConfigError(what, where=where, fix=fix) from error


def _least_batch(variant: VariantConfig) -> int:
    """The smallest batch that passes through the network in train mode, all processes together."""
    count, perturbation = variant.micro_batch_size, variant.perturbation.component
    keys = variant.perturbation.config
    assert isinstance(keys, PerturbationConfig)
    alone = "ood" in variant.roles and keys.separate_domains
    if perturbation.sees_weak_views or variant.feature_discriminator is not None:
        batches = [count * (1 + len(variant.roles) - alone), *([count] if alone else [])]
    else:
        batches = [count]
    if variant.roles:
        batches.append(count * len(perturbation.strong_weights))
    return min(batches)
