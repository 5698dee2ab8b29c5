"""Model files: a trained network in one safetensors file that describes itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import WeightsError
from pipeline.files import storage
from stages.models.finite import finite_weights
from stages.models.segmenters.description import (
    HEADER_KEY,
    ModelDescription,
    not_safetensors,
    parse_description,
    read_description,
    unreadable,
)
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.models.segmenters.predictor import Predictor
from stages.models.segmenters.protocol import Protocol
from stages.models.segmenters.weights import replace


def save_model_file(
    path: Path, weights: Mapping[str, Tensor], description: ModelDescription
) -> None:
    """Writes a trained network, all or nothing.

    The description is one entry of the metadata, because safetensors writes several in random
    order: equal weights and descriptions give equal bytes.

    Args:
        path: The file; what was there before is replaced.
        weights: The network's `state_dict`.
        description: The network's description.

    Raises:
        StorageError: There is no room.
    """
    tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
    metadata = {HEADER_KEY: description.to_json()}
    replace(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))


def load_model_file(
    path: Path,
    device: torch.device,
    *,
    vocabulary: Vocabulary | None = None,
    protocol: Protocol | None = None,
) -> Predictor:
    """Builds the network of a model file, or of an ONNX file, from this file only.

    Args:
        path: The file.
        device: Where the network will run.
        vocabulary: The vocabulary of a run, whose classes must be the network's; None: any.
        protocol: How images are predicted; None: as the file says.

    Raises:
        WeightsError: The file is missing, is not a model file of this version, holds a network for
            other classes, or one that cannot be built here.
    """
    try:
        content = storage.read_bytes(path)
    except (OSError, storage.NoPlainFileError) as error:
        raise unreadable(error, path) from error
    is_onnx = path.suffix.lower() == ".onnx"
    description = read_description(path) if is_onnx else parse_description(content, path)
    if vocabulary is not None:
        description.check_classes(vocabulary, path)
    network = _of_onnx(content, path) if is_onnx else _of_tensors(content, description, path)
    return Predictor(
        network.to(device).eval(),
        device,
        protocol or description.protocol,
        description.normalization,
    )


def _of_onnx(content: bytes, path: Path) -> nn.Module:
    from stages.models.segmenters.onnx_file import OnnxNetwork  # an optional library

    return OnnxNetwork(content, path)


def _of_tensors(content: bytes, description: ModelDescription, path: Path) -> SegmentationNetwork:
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise not_safetensors(path) from error
    finite_weights(tensors, str(path))
    network = _built(description, path)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        what = f"its tensors do not fit the network that it describes: {_one_line(error)}"
        raise WeightsError(what, where=str(path), fix=_same_versions(description)) from error
    return network


def _built(description: ModelDescription, path: Path) -> SegmentationNetwork:
    """The network with random weights."""
    builder = description.model.create()
    try:
        return builder.build(description.vocabulary, architecture=description.architecture)
    except Exception as error:  # libraries fail in many ways on keys that they do not know
        what = f"the network that it describes cannot be built here: {_one_line(error)}"
        raise WeightsError(what, where=str(path), fix=_same_versions(description)) from error


def _same_versions(description: ModelDescription) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in description.versions.items())
    return f"install the versions that wrote the file ({versions}), or train again"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
