"""ONNX files that Maskmill exported: a network as a graph, and its description beside it.

A file is read as bytes and run from them, so it can name no other file; operators that
onnxruntime does not have make it fail. Needs the libraries of `pip install 'maskmill[onnx]'`.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import WeightsError
from pipeline.files import storage

ENDING = ".onnx"
INPUT, OUTPUT = "image", "logits"
"""Names of the graph's input (N, 3, H, W), normalized, and output (N, C, H, W)."""
_FIX = "name a file that `maskmill export model --to onnx` wrote"


class OnnxNetwork(nn.Module):
    """A graph in the place of a network.

    Args:
        content: The file.
        path: Its place, for errors.

    Raises:
        WeightsError: It is damaged, or needs files or operators of others.
    """

    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__()
        import onnxruntime

        try:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its own types, which are no subclass of any other
            raise WeightsError(_one_line(error), where=str(path), fix=_FIX) from error
        self._path = path

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C, H, W) of normalized images (N, 3, H, W).

        Raises:
            WeightsError: The graph takes images of another size only.
        """
        try:
            found = self._session.run([OUTPUT], {INPUT: images.cpu().numpy()})[0]
        except Exception as error:
            height, width = images.shape[-2:]
            what = f"it takes no images of {width} x {height} px: {_one_line(error)}"
            fix = "export it with --size HEIGHTxWIDTH, or use the model file"
            raise WeightsError(what, where=str(self._path), fix=fix) from error
        return torch.from_numpy(np.ascontiguousarray(found)).to(images.device)


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file.

    Raises:
        WeightsError: The file is missing, damaged, or has weights in other files.
    """
    model = _parsed(path)
    if any(each.data_location == each.EXTERNAL for each in model.graph.initializer):
        what = "its weights are in another file, which is not read"
        raise WeightsError(what, where=str(path), fix=_FIX)
    return {each.key: each.value for each in model.metadata_props}


def _parsed(path: Path) -> Any:
    if find_spec("onnx") is None or find_spec("onnxruntime") is None:
        fix = "pip install 'maskmill[onnx]'"
        raise WeightsError("ONNX files need onnx and onnxruntime", where=str(path), fix=fix)
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load_model_from_string(storage.read_bytes(path))
    except (DecodeError, ValueError) as error:
        what = "not an ONNX file, or a damaged one"
        raise WeightsError(what, where=str(path), fix=_FIX) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
