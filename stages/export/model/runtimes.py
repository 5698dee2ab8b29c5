"""Writes a network for ONNX, TorchScript or any reader of safetensors, and compares it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.errors import ConfigError
from stages.export.model.parity import Parity, Size, compare
from stages.models.segmenters.description import HEADER_KEY, ModelDescription
from stages.models.segmenters.onnx_file import INPUT, OUTPUT, OnnxNetwork

_OTHER = (0.75, 1.25)
"""Sides of the second size that is compared, as shares of the first."""


@dataclass(frozen=True)
class Written:
    """A file that was written.

    Attributes:
        name: Its name.
        parity: How it compares with the network; None where it is the weights themselves.
        size: The only (height, width) that it takes; None: any.
    """

    name: str
    parity: Parity | None
    size: Size | None


def write_onnx(network: nn.Module, about: ModelDescription, folder: Path, size: Size) -> Written:
    """Writes model.onnx with its description; any number and size of images where that is possible.

    Raises:
        ConfigError: A library is missing.
        WeightsError: The graph differs from the network.
    """
    if missing := [name for name in ("onnx", "onnxruntime", "onnxscript") if not find_spec(name)]:
        what = f"--to onnx needs the library {missing[0]}"
        raise ConfigError(what, where="export", fix="pip install 'maskmill[onnx]'")
    import onnx

    path = folder / "model.onnx"
    fixed = None
    dynamic = torch.export.Dim.DYNAMIC
    try:
        _export(network, path, size, {0: dynamic, 2: dynamic, 3: dynamic})
        sizes = [size, _other(size)]
    except Exception:  # the exporter's own types; a graph of one size may still be possible
        _export(network, path, size, {0: dynamic})
        fixed, sizes = size, [size, size]
    model = onnx.load(str(path))
    entry = model.metadata_props.add()
    entry.key, entry.value = HEADER_KEY, about.to_json()
    content = model.SerializeToString(deterministic=True)
    path.write_bytes(content)
    parity = compare(network, OnnxNetwork(content, path), sizes)
    return Written(path.name, parity, fixed)


def write_torchscript(
    network: nn.Module, about: ModelDescription, folder: Path, size: Size
) -> Written:
    """Writes model.ts: the network traced, for `torch.jit.load`; takes any size if it can.

    Raises:
        WeightsError: It differs from the network.
    """
    path = folder / "model.ts"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of its own deprecation, and of sizes as constants
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            network, torch.zeros(1, 3, *size), check_trace=False
        )
        traced.save(str(path), _extra_files={f"{HEADER_KEY}.json": about.to_json()})
        loaded: Callable[[Tensor], Tensor] = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    try:
        return Written(path.name, compare(network, loaded, [size, _other(size)]), None)
    except Exception:  # a size that became a constant
        return Written(path.name, compare(network, loaded, [size, size]), size)


def write_safetensors(
    network: nn.Module, about: ModelDescription, folder: Path, size: Size
) -> Written:
    """Writes model.safetensors: Maskmill's own model file, whose header describes the network."""
    del size
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={HEADER_KEY: about.to_json()})
    return Written("model.safetensors", None, None)


RUNTIMES = {"onnx": write_onnx, "torchscript": write_torchscript, "safetensors": write_safetensors}
"""Functions that write the file of each kind."""


def _export(network: nn.Module, path: Path, size: Size, dynamic: dict[int, object]) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(2, 3, *size),),
            str(path),
            dynamo=True,
            dynamic_shapes=(dynamic,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            external_data=False,
            verbose=False,
        )


def _other(size: Size) -> Size:
    """Another size, of sides that all networks take."""
    pairs = zip(size, _OTHER, strict=True)
    height, width = (max(32, round(side * share / 32) * 32) for side, share in pairs)
    return height, width
