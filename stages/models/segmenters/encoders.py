"""Encoders of the field's libraries, timm and segmentation_models_pytorch, with their weights."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from stages.models.segmenters.normalization import IMAGENET, Normalization
from stages.models.segmenters.pretrained import hub_file, misfit, read_tensors, weights_file

if TYPE_CHECKING:
    from torch import nn

OF_TIMM = "tu-"
"""Prefix of the names of timm's encoders in segmentation_models_pytorch."""

_HALF = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_PUBLISHED = (
    (r"(inceptionresnetv2|inceptionv4|xception|timm-tf_efficientnet_lite\d) .*", _HALF),
    (r"(timm-)?efficientnet-b\d advprop", _HALF),
    (r"dpn\d+b? .*", Normalization((124 / 255, 117 / 255, 104 / 255), (0.2348247,) * 3)),
)
"""What segmentation_models_pytorch published for weights that are not normalized as ImageNet's, by
encoder and tag. It keeps the numbers in files of its hub, which cannot always be reached."""

_CANNOT_DILATE = (ValueError, TypeError, NotImplementedError, AssertionError, RuntimeError)


def convolutional_encoder(
    name: str, weights: str | None, where: str, *, output_stride: int = 32
) -> nn.Module:
    """An encoder of segmentation_models_pytorch: images to features at strides 1, 2, 4, ...

    Args:
        name: Of it (resnet101), or of one of timm after tu- (tu-resnet101s.gluon_in1k).
        weights: A tag of it, imagenet for that of a timm name; a file; or None = random.
        where: The config's key for the weights.
        output_stride: Stride of the deepest features; less than 32 by dilation.

    Raises:
        ConfigError: There is no such encoder or tag, or it cannot be dilated.
        WeightsError: The weights are missing, cannot be downloaded, or are those of another one.
    """
    from segmentation_models_pytorch.encoders import encoders, get_encoder

    options: dict[str, Any] = {}
    if name.startswith(OF_TIMM):
        options = _timm_weights(name.removeprefix(OF_TIMM), weights, where)
        has_weights = options.pop("pretrained", None)
    elif name in encoders:
        has_weights = None
    else:
        known = ", ".join(get_close_matches(name, list(encoders)) or ["resnet50", "resnet101"])
        raise ConfigError(
            f"segmentation_models_pytorch has no encoder {name!r}",
            where="model.encoder",
            fix=f"use one it has, such as {known}, or one of timm, such as tu-resnet50s.gluon_in1k",
        )
    try:
        encoder: nn.Module = get_encoder(
            name, weights=has_weights, output_stride=output_stride, **options
        )
    except _CANNOT_DILATE as error:
        if has_weights and isinstance(error, RuntimeError):
            raise misfit(error, name, where) from error
        what = f"the encoder {name!r} cannot be dilated: {' '.join(str(error).split())[:160]}"
        fix = "use a residual network, such as resnet101"
        raise ConfigError(what, where="model.encoder", fix=fix) from error
    if weights is not None and not has_weights:
        _load_published(encoder, name, weights, where)
    return encoder


def timm_encoder(name: str, weights: str | None, where: str, **options: Any) -> nn.Module:
    """A model of timm without its classifier.

    Args:
        name: Of it, with the tag of its weights (vit_base_patch14_dinov2.lvd142m).
        weights: None = random; a file; any other = those of the tag.
        where: The config's key for the weights.
        **options: What the model takes.

    Raises:
        ConfigError: There is no such model or tag.
        WeightsError: The weights are missing, cannot be downloaded, or are those of another one.
    """
    import timm

    options |= {"num_classes": 0, **_timm_weights(name, weights, where)}
    try:
        model: nn.Module = timm.create_model(name, **options)
    except RuntimeError as error:
        raise misfit(error, name, where) from error
    return model


def _timm_weights(name: str, weights: str | None, where: str) -> dict[str, Any]:
    """Arguments that make timm load all of the weights or none.

    By itself timm downloads them, and ignores missing tensors.
    """
    import timm

    try:
        known = timm.is_model(name)
        settings = timm.get_pretrained_cfg(name) if known else None
    except RuntimeError:  # a tag that it has not
        settings = None
    if settings is None:
        close = get_close_matches(name, timm.list_models(pretrained=True), n=3)
        fix = f"use one it has, such as {', '.join(close or ['vit_base_patch14_dinov2.lvd142m'])}"
        raise ConfigError(f"timm has no {name!r}", where="model.encoder", fix=fix)
    if weights is None:
        return {}
    path = weights_file(weights)
    if path is None:
        if not settings.hf_hub_id:
            what, fix = f"timm has no weights of {name}", "use null, a file, or another encoder"
            raise ConfigError(what, where=where, fix=fix)
        path = hub_file(settings.hf_hub_id, where)
    classifier = settings.classifier or ()
    heads = (classifier,) if isinstance(classifier, str) else classifier
    tensors = {
        key: tensor
        for key, tensor in read_tensors(path, where).items()
        if not key.startswith(tuple(f"{head}." for head in heads))
    }
    return {
        "num_classes": 0,
        "pretrained": True,
        "pretrained_strict": True,
        "pretrained_cfg_overlay": {"state_dict": tensors, "classifier": None},
    }


def _load_published(encoder: nn.Module, name: str, weights: str, where: str) -> None:
    """Fills one of the library's own encoders."""
    from segmentation_models_pytorch.encoders import encoders

    published = encoders[name]["pretrained_settings"]
    path: Path | None = weights_file(weights)
    if path is None:
        if weights not in published:
            what = f"the encoder {name!r} has no weights {weights!r}"
            raise ConfigError(what, where=where, fix="use null, a file, or another encoder")
        source = published[weights]
        path = hub_file(source["repo_id"], where, source["revision"])
    tensors = read_tensors(path, where)
    try:
        encoder.load_state_dict(tensors)
    except (RuntimeError, KeyError) as error:
        raise misfit(error, name, where) from error


def pretrained_normalization(name: str, weights: str | None) -> Normalization:
    """What the images of an encoder's pretraining were normalized by; ImageNet's for random ones.

    Args:
        name: See `convolutional_encoder`, or a model of timm.
        weights: See there; a file is taken for one of the weights that the name stands for.

    Raises:
        ConfigError: There is no such encoder.
    """
    import timm
    from segmentation_models_pytorch.encoders import encoders

    if weights is None:
        return IMAGENET
    if name in encoders:
        tags = encoders[name]["pretrained_settings"]
        tag = weights if weights in tags else next(iter(tags), "")
        found = (each for names, each in _PUBLISHED if re.fullmatch(names, f"{name} {tag}"))
        return next(found, IMAGENET)
    try:
        config = timm.get_pretrained_cfg(name.removeprefix(OF_TIMM))
    except RuntimeError:  # building it names the tag that is not there
        config = None
    mean, std = (None, None) if config is None else (config.mean, config.std)
    if mean is None or std is None or len(mean) != 3:
        return IMAGENET
    return Normalization((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
