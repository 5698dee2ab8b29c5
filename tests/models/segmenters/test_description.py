"""Files that are no model files of this version are refused, before any tensor is read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import WeightsError
from stages.models.segmenters.description import HEADER_KEY, parse_description, read_description
from stages.models.segmenters.model_file import load_model_file

CPU = torch.device("cpu")
Rewrite = Callable[[Path, dict[str, str] | None], None]
Described = Callable[..., str]
RETRAIN = (
    "if a training of yours wrote it, delete it and run `maskmill run train`; "
    "otherwise name the model.safetensors of a finished training"
)


def refusal(path: Path) -> str:
    """The message of the error; the reader of the description and the loader agree on it."""
    with pytest.raises(WeightsError) as read:
        read_description(path)
    with pytest.raises(WeightsError) as loaded:
        load_model_file(path, CPU)
    assert str(read.value) == str(loaded.value)
    assert "\n" not in str(read.value)
    return str(read.value)


@pytest.fixture
def file_with(
    path: Path, rewrite: Rewrite, description_in: Callable[[Path], dict[str, Any]]
) -> Described:
    """The message for a file whose description has other values: ``file_with(format=2)``."""

    def changed(**changes: Any) -> str:
        rewrite(path, {HEADER_KEY: json.dumps({**description_in(path), **changes})})
        return refusal(path)

    return changed


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    assert refusal(tmp_path / "model.safetensors") == (
        f"{tmp_path / 'model.safetensors'}: there is no such file; "
        "train it, or name the model.safetensors of a training that is done"
    )
    assert refusal(tmp_path) == f"{tmp_path}: cannot be read: not a plain file; {RETRAIN}"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"PK\x03\x04 a checkpoint of torch",
        b"\xff" * 8 + b"{}",
        (9999).to_bytes(8, "little") + b"[" * 9999,
        (2).to_bytes(8, "little") + b"[]",
        (1).to_bytes(8, "little") + b"3",
    ],
)
def test_a_file_of_another_kind_is_an_error(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    assert refusal(path) == f"{path}: not a safetensors file, or a damaged one; {RETRAIN}"


def test_a_huge_header_is_not_read(path: Path) -> None:
    """Its length is that of a sparse file, which would fill the memory."""
    with path.open("wb") as file:
        file.write((2**40).to_bytes(8, "little"))
        file.truncate(2**24 + 100)
    with pytest.raises(WeightsError, match="not a safetensors file, or a damaged one"):
        read_description(path)


def test_a_file_that_is_cut_off_is_an_error(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError) as raised:
        load_model_file(path, CPU)
    assert str(raised.value) == f"{path}: not a safetensors file, or a damaged one; {RETRAIN}"


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_file_of_another_tool_is_an_error(
    metadata: dict[str, str] | None, path: Path, rewrite: Rewrite
) -> None:
    rewrite(path, metadata)
    assert refusal(path) == (
        f"{path}: not a model file of Maskmill: its header has no description of a network; "
        "name the model.safetensors of a finished training"
    )


def test_a_file_of_an_earlier_version_is_an_error(path: Path, rewrite: Rewrite) -> None:
    rewrite(path, {"about": '{"classes": ["sky"], "fingerprint": "0123"}'})
    assert refusal(path) == (
        f"{path}: an earlier version of Maskmill wrote it, without a description of the network; "
        "delete it and run `maskmill run train` with the config of its training"
    )


def test_a_file_of_a_newer_version_is_an_error(path: Path, file_with: Described) -> None:
    assert file_with(format=2, more="keys") == (
        f"{path}: a newer version of Maskmill wrote it (format 2, this version reads 1); "
        "update Maskmill"
    )


def test_a_network_of_another_version_is_an_error(path: Path, file_with: Described) -> None:
    versions = {"maskmill": "7.1", "torch": "9"}
    assert file_with(model={"name": "segformer"}, versions=versions) == (
        f"{path}: this version of Maskmill has no network 'segformer'; "
        "use Maskmill 7.1, which wrote the file"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": "1"}, "format: write 1"),
        ({"format": True}, "format: "),
        ({"extra": 1}, "unknown key extra"),
        ({"model": {"name": "small_unet", "width": 3}}, "unknown key model.width"),
        ({"model": 3}, "model: write a name"),
        ({"vocabulary": None}, "vocabulary: "),
        ({"protocol": {"flip": "maybe"}}, "protocol.flip: write true or false"),
        ({"protocol": {"flips": True}}, "unknown key protocol.flips"),
        ({"normalization": {"mean": [0, 0, 0], "std": [1, 0, 1]}}, "normalization.std.1: "),
        ({"normalization": {"mean": [0, 0], "std": [1, 1, 1]}}, "normalization.mean"),
        ({"normalization": {"mean": [0, 0, 0], "std": [1, 1, 1], "x": 1}}, "normalization.x: "),
        ({"versions": {"torch": 2}}, "versions.torch: write text"),
        ({"training": {"depends_on": {}, "fingerprint": None}}, "training.fingerprint: "),
    ],
)
def test_values_that_cannot_be_are_errors(
    changes: dict[str, Any], reason: str, path: Path, file_with: Described
) -> None:
    printed = file_with(**changes)
    assert printed.startswith(f"{path}: the description in its header is damaged: {reason}")
    assert printed.endswith(f"; {RETRAIN}")


@pytest.mark.parametrize("text", ["", "{", "3", "[]", "[" * 9999, '{"format": 1}', "NaN"])
def test_a_description_that_is_nonsense_is_an_error(
    text: str, path: Path, rewrite: Rewrite
) -> None:
    rewrite(path, {HEADER_KEY: text})
    printed = refusal(path)
    assert printed.startswith(f"{path}: the description in its header is damaged: ")
    assert printed.endswith(f"; {RETRAIN}")


def test_a_description_that_is_no_text_is_an_error() -> None:
    header = json.dumps({"__metadata__": {HEADER_KEY: 3}}).encode()
    content = len(header).to_bytes(8, "little") + header
    with pytest.raises(WeightsError, match="the description in its header is damaged: not a text"):
        parse_description(content, Path("model.safetensors"))
