"""The command `predict` with the trainings of a run."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pandas as pd
import pytest

from tests.finished_run import call, data, outcome, run_folder, values, write

__all__ = ["call", "data", "outcome", "run_folder", "values", "write"]

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture
def predict(run_folder: Path, maskmill: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """``predict("data/ood/images", "--run", "tiny/web")`` in the workspace of the run."""
    monkeypatch.chdir(run_folder / "workspace")
    return lambda *words: maskmill("predict", *words, "--out", "out", "--device", "cpu")


def test_a_training_of_a_run_predicts(predict: Command, data: Path) -> None:
    done = predict(str(data / "ood/images"), "--run", "tiny/web", "--to", "masks,overlays")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 images predicted, 2 of them now: out\n"
    rows = pd.read_parquet("out/predictions.parquet")
    assert rows.status.tolist() == ["ok", "ok"]
    assert all(Path(f"out/{kind}").is_dir() for kind in ("masks", "overlays"))
    again = predict(str(data / "ood/images"), "--run", "tiny/web", "--to", "masks,overlays")
    assert again.stdout == "2 images predicted, 0 of them now: out\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--run", "tiny"), "the run has several variants; name one of: tiny/plain, tiny/web"),
        (("--run", "tiny/none"), "the run has no such training; name one of: tiny/plain"),
        (("--run", "other"), "no finished training in manifests; runs here: tiny; or name a file"),
        (("--model", "gone.safetensors"), "there is no such file; train it, or name the"),
    ],
)
def test_what_is_not_there_is_named(
    words: tuple[str, ...], text: str, predict: Command, data: Path
) -> None:
    done = predict(str(data / "ood/images"), *words)
    assert done.returncode == 1
    assert text in done.stderr
    assert not Path("out").exists()
