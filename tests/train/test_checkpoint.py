import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim import SGD, Optimizer

from pipeline.errors import StorageError
from stages.models.segmenters.networks.base import frozen_copy
from stages.models.segmenters.weights import replace
from stages.train.loop.checkpoint import Checkpoint, Stateful
from tests.file_limits import files_limited_to


def trained(seed: int) -> tuple[nn.Module, nn.Module, Optimizer]:
    """A network after a step, another one as its teacher, and an optimizer with momentum."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 2, kernel_size=1), nn.BatchNorm2d(2))
    teacher = frozen_copy(network)
    optimizer = SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.randn(2, 3, 4, 4)).square().sum().backward()
    optimizer.step()
    return network, teacher, optimizer


def parts(network: nn.Module, teacher: nn.Module, optimizer: Optimizer) -> dict[str, Stateful]:
    return {"network": network, "teacher": teacher, "optimizer": optimizer}


def numbers(network: nn.Module, teacher: nn.Module, optimizer: Optimizer) -> list[torch.Tensor]:
    moments = [state["momentum_buffer"] for state in optimizer.state.values()]
    return [*network.state_dict().values(), *teacher.state_dict().values(), *moments]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints" / "variant" / "last.pt"


def test_what_was_saved_comes_back(path: Path) -> None:
    saved, fresh = trained(seed=0), trained(seed=1)
    Checkpoint(path, {"train.version": 1, "list": [1, 2]}).save(7, parts(*saved))
    step = Checkpoint(path, {"list": [1, 2], "train.version": 1}).load(parts(*fresh))
    assert step == 7
    assert all(map(torch.equal, numbers(*saved), numbers(*fresh)))


def test_without_a_file_there_is_nothing_to_resume(path: Path) -> None:
    assert Checkpoint(path, {}).load(parts(*trained(seed=0))) == 0


def test_a_checkpoint_of_another_training_is_left_alone(path: Path) -> None:
    Checkpoint(path, {"train.steps": 10}).save(7, parts(*trained(seed=0)))
    fresh = trained(seed=1)
    assert Checkpoint(path, {"train.steps": 20}).load(parts(*fresh)) == 0
    assert all(map(torch.equal, numbers(*fresh), numbers(*trained(seed=1))))


def test_a_newer_checkpoint_replaces_the_file_and_leaves_no_other(path: Path) -> None:
    checkpoint = Checkpoint(path, {})
    checkpoint.save(1, parts(*trained(seed=0)))
    checkpoint.save(2, parts(*trained(seed=0)))
    assert checkpoint.load(parts(*trained(seed=1))) == 2
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"hello\n", b"PK\x03\x04 torn"])
def test_a_damaged_checkpoint_is_an_error_with_a_way_out(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(StorageError, match=rf"{path}: .*delete it"):
        Checkpoint(path, {}).load(parts(*trained(seed=0)))


def test_bits_that_fell_over_are_damage(path: Path) -> None:
    Checkpoint(path, {}).save(1, parts(*trained(seed=0)))
    whole = path.read_bytes()
    tensors = trained(seed=0)[0].state_dict()
    place = whole.index(tensors["0.weight"].numpy().tobytes())
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(StorageError, match=rf"{path}: .*delete it"):
        Checkpoint(path, {}).load(parts(*trained(seed=0)))


def test_a_checkpoint_without_a_part_or_of_other_shapes_is_reported(path: Path) -> None:
    network, teacher, optimizer = trained(seed=0)
    Checkpoint(path, {}).save(1, {"network": nn.Linear(2, 2), "optimizer": optimizer})
    with pytest.raises(StorageError, match="saved it, without teacher; delete"):
        Checkpoint(path, {}).load(parts(network, teacher, optimizer))
    with pytest.raises(
        StorageError,
        match=rf"{path}: the checkpoint is whole, but cannot be resumed here .*delete it",
    ):
        Checkpoint(path, {}).load({"network": network})


def test_a_value_that_is_none_is_named(path: Path) -> None:
    network, teacher, optimizer = trained(seed=0)
    optimizer.state_dict()["state"][0]["momentum_buffer"].view(-1)[0] = torch.nan
    Checkpoint(path, {}).save(1, parts(network, teacher, optimizer))
    what = "optimizer.state.0.momentum_buffer has values that are NaN or infinite; delete it"
    with pytest.raises(StorageError, match=f"{path}: {what}"):
        Checkpoint(path, {}).load(parts(*trained(seed=1)))


def test_a_folder_in_its_place_is_damage_too(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StorageError, match=rf"{path}: .*delete it"):
        Checkpoint(path, {}).load(parts(*trained(seed=0)))


def test_a_full_disk_keeps_the_checkpoint_before(path: Path) -> None:
    checkpoint = Checkpoint(path, {})
    checkpoint.save(1, parts(*trained(seed=0)))
    with files_limited_to(500), pytest.raises(StorageError, match=rf"{path}: .*free some space"):
        checkpoint.save(2, parts(*trained(seed=0)))
    assert checkpoint.load(parts(*trained(seed=1))) == 1
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_no_weights(path: Path) -> None:
    network, *_ = trained(seed=0)
    with files_limited_to(100), pytest.raises(StorageError, match=rf"{path}: .*free some space"):
        replace(path, lambda temporary: save_file(network.state_dict(), temporary))
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_others_may_read_weights_as_they_may_any_file(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        replace(path, lambda temporary: save_file({"weight": torch.zeros(1)}, temporary))
        path.with_name("log.jsonl").touch()
    finally:
        os.umask(before)
    assert path.stat().st_mode == path.with_name("log.jsonl").stat().st_mode
