"""Checkpoints in the forms that their authors publish, simulated on one tiny network."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor, nn

from stages.models.checkpoint_file import NotTensorsError, TorchScriptError, read_checkpoint


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


TENSORS: dict[str, Tensor] = network().state_dict()
OPTIONS = argparse.Namespace(lr=0.1, name="run")
SCALARS = {"best": np.float32(0.5), "epoch": np.int64(3), "miou": np.float64(0.25)}
ARRAYS = {name: each.numpy() for name, each in TENSORS.items()}
FORMS: dict[str, Callable[[Path], Any]] = {
    "bare": lambda path: torch.save(TENSORS, path),
    "wrapped": lambda path: torch.save({"state_dict": TENSORS, "epoch": 3}, path),
    "twice": lambda path: torch.save({"model": {"state_dict": TENSORS}}, path),
    "ddp": lambda path: torch.save({f"module.{k}": v for k, v in TENSORS.items()}, path),
    "options": lambda path: torch.save({"model": TENSORS, "args": OPTIONS, **SCALARS}, path),
    "arrays": lambda path: torch.save({"model": ARRAYS, "__author__": "me"}, path),
    "legacy": lambda path: torch.save(
        {"model": TENSORS, **SCALARS}, path, _use_new_zipfile_serialization=False
    ),
    "parameters": lambda path: torch.save(dict(network().named_parameters()) | TENSORS, path),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_tensors(form: str, tmp_path: Path) -> None:
    FORMS[form](tmp_path / "model.pth")
    found = read_checkpoint(tmp_path / "model.pth")
    assert found.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(found.tensors[name], TENSORS[name]) for name in TENSORS)
    assert (found.is_as_written, found.is_of_openai) == (False, False)


def test_safetensors_may_be_given_on_as_they_are(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors")
    assert read_checkpoint(tmp_path / "model.safetensors").is_as_written
    save_file({f"module.{k}": v for k, v in TENSORS.items()}, tmp_path / "ddp.safetensors")
    found = read_checkpoint(tmp_path / "ddp.safetensors")
    assert (found.is_as_written, found.tensors.keys()) == (False, TENSORS.keys())


def test_the_numbers_of_openais_loader_are_no_weights(tmp_path: Path) -> None:
    numbers = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
    own = {name: torch.tensor(value) for name, value in numbers.items()}
    torch.save({**TENSORS, **own}, tmp_path / "model.pt")
    found = read_checkpoint(tmp_path / "model.pt")
    assert found.is_of_openai
    assert found.tensors.keys() == TENSORS.keys()


class Runs:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return eval, ("open('unpickled', 'w')",)


class Unwritten:
    """An array of which a file holds only the shape: memory that nobody has written to."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __reduce__(self) -> Any:
        return np.array(0).__reduce__()[0], (np.ndarray, (self.size,), b"f4")


def with_header(change: Callable[[str], str]) -> Callable[[Path], Any]:
    """Writes safetensors with another header."""

    def write(path: Path) -> None:
        content = save(TENSORS)
        length = int.from_bytes(content[:8], "little")
        header = change(content[8 : 8 + length].decode()).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])

    return write


def twice(header: str) -> str:
    name, value = next(iter(json.loads(header).items()))
    return header.rstrip()[:-1] + f", {json.dumps(name)}: {json.dumps(value)}}}"


WRONG: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "code": ("a.pth", lambda path: torch.save({"model": Runs()}, path), "it holds eval, which is"),
    "a module": (
        "a.pth",
        lambda path: torch.save(network(), path),
        "Sequential, which",
    ),
    "objects": ("a.pth", lambda path: torch.save({"a": np.array([None])}, path), "ObjectDType"),
    "no values": ("a.pth", lambda path: torch.save(Unwritten(10**6), path), "without its values"),
    "huge": ("a.pth", lambda path: torch.save(Unwritten(10**13), path), "without its values"),
    "complex": (
        "a.pth",
        lambda path: torch.save({"a": torch.zeros(1, dtype=torch.complex64)}, path),
        "a is no tensor of plain numbers: complex64",
    ),
    "nowhere": (
        "a.pth",
        lambda path: torch.save({"a": torch.zeros(1, device="meta")}, path),
        "a is no tensor of plain numbers: float32 on meta",
    ),
    "whole numbers": (
        "a.pth",
        lambda path: torch.save({"a.weight": torch.zeros(1, dtype=torch.int32)}, path),
        "a.weight holds whole numbers, not weights",
    ),
    "text": ("a.pth", lambda path: path.write_text("<html>quota exceeded</html>"), "UnpicklingErr"),
    "cut": ("a.pth", lambda path: path.write_bytes(b"PK\3\4" + bytes(50)), "Error"),
    "a list": ("a.pth", lambda path: torch.save([torch.zeros(1)], path), "a list, not tensors by"),
    "no tensor": ("a.pth", lambda path: torch.save({"epoch": 1}, path), "it holds no tensors"),
    "null": (
        "a.safetensors",
        with_header(lambda header: '{"__metadata__": null, ' + header.lstrip()[1:]),
        "the `__metadata__` in its header is no mapping",
    ),
    "doubled": ("a.safetensors", with_header(twice), "twice"),
    "integers": (
        "a.safetensors",
        lambda path: save_file({n: v.to(torch.int32) for n, v in TENSORS.items()}, path),
        "holds whole numbers, not weights",
    ),
    "empty": ("a.safetensors", lambda path: path.write_bytes(b""), "its header is not that of"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_checkpoint_is_one_line_and_runs_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, write, text = WRONG[kind]
    write(tmp_path / name)
    with pytest.raises(NotTensorsError) as caught:
        read_checkpoint(tmp_path / name)
    assert text in str(caught.value)
    assert all(char.isprintable() for char in str(caught.value))
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_program_is_not_run(tmp_path: Path) -> None:
    """OpenAI publishes its CLIPs as TorchScript."""
    torch.jit.save(torch.jit.script(network()), tmp_path / "ViT-B-16.pt")
    with pytest.raises(TorchScriptError, match="a TorchScript archive, a program"):
        read_checkpoint(tmp_path / "ViT-B-16.pt")


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    for name in ("a.pth", "a.safetensors"):
        with pytest.raises(FileNotFoundError):
            read_checkpoint(tmp_path / name)


NUMBERS = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}


@pytest.mark.parametrize(
    "numbers",
    [
        {name: torch.tensor(value) for name, value in NUMBERS.items()},
        NUMBERS,
        {name: np.int64(value) for name, value in NUMBERS.items()},
        {f"module.{name}": torch.tensor(value) for name, value in NUMBERS.items()},
    ],
)
def test_files_of_openais_loader_are_known_by_their_numbers(
    numbers: dict[str, Any], tmp_path: Path
) -> None:
    prefix = "module." if next(iter(numbers)).startswith("module.") else ""
    tensors = {f"{prefix}{name}": each for name, each in TENSORS.items()}
    torch.save({**tensors, **numbers}, tmp_path / "a.pt")
    read = read_checkpoint(tmp_path / "a.pt")
    assert read.is_of_openai
    assert read.tensors.keys() == TENSORS.keys()


def test_the_mapping_that_holds_tensors_is_taken(tmp_path: Path) -> None:
    for other in (
        {"model": {"name": "vit"}, "network": TENSORS},
        {"state_dict": {}, "ema": TENSORS},
    ):
        torch.save(other, tmp_path / "a.pt")
        assert read_checkpoint(tmp_path / "a.pt").tensors.keys() == TENSORS.keys()


def test_a_mapping_inside_itself_ends(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content |= {"model": content, "state_dict": content}
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(NotTensorsError, match="it holds no tensors"):
        read_checkpoint(tmp_path / "a.pt")


def test_a_damaged_zip_of_a_strange_version_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(TENSORS, path)
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 6] = 230  # the version that is needed to extract it
    content[content.index(b"PK\x03\x04")] = 0
    path.write_bytes(content)
    with pytest.raises(NotTensorsError):
        read_checkpoint(path)


def test_a_header_without_end_is_one_line(tmp_path: Path) -> None:
    deep = b"[" * 100_000
    (tmp_path / "a.safetensors").write_bytes(len(deep).to_bytes(8, "little") + deep)
    with pytest.raises(NotTensorsError, match="its header is not that of safetensors"):
        read_checkpoint(tmp_path / "a.safetensors")
