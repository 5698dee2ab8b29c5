"""Trainings that torchrun starts several processes for, on CPUs and gloo."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from stages.train import distributed
from stages.train.distributed import local_rows
from tests.conftest import COUNTS, WITH_MASKS
from tests.repository import ROOT
from tests.shapes import draw_shapes
from tests.train import parallel
from tests.trainings import training_folder

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
GAME = ("loss/adversarial", "loss/discriminator")
RUN = ["-m", "maskmill", "run", "train", "--config"]


def call(command: list[str], code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("count", [4, 8, 16])
def test_the_shares_of_a_batch_are_even_and_make_it_up(count: int, world: int) -> None:
    shares = [local_rows(count, rank, world) for rank in range(world)]
    assert sorted(row for share in shares for row in share) == list(range(count))
    assert {len(share) for share in shares} == {count // world}


def test_alone_all_is_what_it_is_without_processes() -> None:
    value = torch.tensor([1.0, 2.0], requires_grad=True)
    for same in (distributed.global_sum(value), distributed.global_mean(value)):
        assert torch.equal(same, value)
        assert not same.requires_grad
    assert [distributed.denominator(torch.tensor(n)).item() for n in (0, 7)] == [1, 7]
    assert distributed.all_gather("a") == ["a"]


@pytest.fixture(scope="session")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The images, and the folder of all trainings that two processes do."""
    data, folder = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("together")
    draw_shapes(data, COUNTS, WITH_MASKS)
    call([*TORCHRUN, "-m", parallel.__name__, str(data), str(folder)])
    return data, folder


def test_a_training_of_two_processes_that_is_resumed_ends_as_an_undisturbed_one(
    together: tuple[Path, Path],
) -> None:
    """In both processes, bit by bit, with the running statistics of BatchNorm."""
    _, folder = together
    for kind in ("student", "teacher"):
        found = [
            load_file(folder / name / f"{kind}-{rank}.safetensors")
            for name in ("undisturbed", "resumed")
            for rank in (0, 1)
        ]
        assert not torch.equal(found[0]["encoder.1.running_mean"], torch.zeros(8))
        for other in found[1:]:
            assert all(torch.equal(other[name], tensor) for name, tensor in found[0].items())


def test_two_processes_train_the_network_that_one_trains(
    together: tuple[Path, Path], tmp_path: Path
) -> None:
    alone, (data, folder) = tmp_path / "alone", together
    parallel.main(data, alone)
    torch.manual_seed(0)
    start = parallel.GroupNetwork().state_dict()
    for own in parallel.CASES:
        logs = [
            [json.loads(line) for line in (place / own / "log.jsonl").read_text().splitlines()]
            for place in (alone, folder)
        ]
        assert len(logs[0]) == len(logs[1]) == parallel.STEPS
        for one, two in zip(*logs, strict=True):
            # Adam divides by the gradient's size, and so enlarges what rounding does to small ones.
            judged = {name: one.pop(name) for name in GAME}
            assert judged == pytest.approx({name: two.pop(name) for name in GAME}, abs=1e-3)
            assert one == pytest.approx(two, abs=1e-5)
        assert logs[0][0]["loss/ema_unlabeled"] > 0
        one, two = (load_file(f / own / "model.safetensors") for f in (alone, folder))
        moved = one["encoder.0.weight"] - start["encoder.0.weight"]
        assert moved.abs().max() > 1e-3
        for name, tensor in one.items():
            torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=0)


@pytest.fixture
def values(tiny: dict[str, Any]) -> dict[str, Any]:
    train = {
        "model": {"name": "small_unet", "encoder_weights": None},
        "perturbation": "unimatch",
        "label_sources": [{"name": "student"}],
        "crop_px": 32,
        "batch_size": 2,
        "steps": 2,
        "log_every": 1,
        "validate_every": 1,
        "checkpoint_every": 1,
    }
    return {**tiny, "train": train}


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """The command `maskmill`, as pip installs it."""
    path = tmp_path / "bin" / "maskmill"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\nfrom maskmill.cli.main import main\nmain()\n")
    path.chmod(0o755)
    return path


@pytest.mark.slow
def test_the_command_runs_under_torchrun_as_one(
    values: dict[str, Any],
    write_config: Callable[..., Path],
    command: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the leader prints and writes; the others help it to train, and end with it."""
    config = write_config(values)
    printed = call([*TORCHRUN, *RUN, str(config)]).stderr
    for line in ("ingest: not done yet", "train: not done yet: default seed 0", "train: done in"):
        assert printed.count(line) == 1, printed
    metrics = pd.read_parquet(Path(values["workspace"]) / "manifests/tiny/metrics")
    losses = metrics[(metrics["name"] == "loss/total") & (metrics["split"] == "train")]
    assert sorted(losses["step"]) == [1, 2]
    assert len(metrics[(metrics["name"] == "miou") & (metrics["split"] == "val")]) == 2
    folder = training_folder(Path(values["workspace"]), "default")
    assert {"model.safetensors", "best.safetensors", "log.jsonl"} <= {
        path.name for path in folder.iterdir()
    }
    (part,) = (Path(values["workspace"]) / "manifests/tiny/metrics").glob("part-train-*")
    part.unlink()
    # A user's own `pipeline.py` and `stages` in the current folder are not taken for Maskmill's.
    own = tmp_path / "own"
    (own / "stages").mkdir(parents=True)
    for file in ("pipeline.py", "stages/__init__.py"):
        (own / file).write_text("raise SystemExit('this is not Maskmill')")
    monkeypatch.chdir(own)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    again = call([*TORCHRUN, "--no-python", str(command), *RUN[2:], str(config)]).stderr
    assert "train default seed 0: resumes after step 2" in again
    assert "train: nothing to do, 1 fresh" in call([*TORCHRUN, *RUN, str(config)]).stderr


def test_a_batch_that_cannot_be_shared_is_one_line(
    values: dict[str, Any],
    write_config: Callable[..., Path],
    maskmill: Callable[..., subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    values["train"]["batch_size"] = 3
    config = write_config(values)
    done = maskmill("run", "train", "--config", config)
    assert done.returncode == 1
    message = (
        f"error: {config}: train.batch_size: 3 crops a micro-batch cannot be "
        "shared evenly by 2 processes; set `batch_size` to a multiple of 2\n"
    )
    assert done.stderr == message
