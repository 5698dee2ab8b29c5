"""All images of a role are gone, and the user has accepted it: every command says just that."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

from tests.finished_run import artifacts, call, data, outcome, run_folder

__all__ = ["artifacts", "call", "data", "outcome", "run_folder"]


def test_the_error_says_that_all_images_of_a_role_are_gone(
    outcome: Callable[..., CompletedProcess[str]], data: Path
) -> None:
    (data / "ood").rename(data / "elsewhere")
    for line in ("run --accept-gone", "run", "status", "run --only train"):
        done = outcome(line)
        assert done.returncode == 1
        assert done.stderr.endswith(
            "error: config.yaml: ingest.sources: all 2 ood images are gone "
            "(first: data/ood/images/0.png); put them back, or remove the source and what reads "
            "it\n"
        ), line


def test_what_a_stage_with_a_fault_has_done_is_unknown_where_it_cannot_be_planned(
    outcome: Callable[..., CompletedProcess[str]], data: Path
) -> None:
    (data / "ood").rename(data / "elsewhere")
    outcome("run --accept-gone")
    shown = json.loads(outcome("status --json").stdout)["stages"]
    (train,) = (stage for stage in shown if stage["name"] == "train")
    assert train["state"] == "unknown"
    assert train["shards"] == {"fresh": None, "stale": None, "missing": None}
    (row,) = (line for line in outcome("status").stdout.splitlines() if " unknown " in line)
    assert [word for word in row.split() if word.isalpha() or word == "-"][-4:] == [
        "unknown",
        *"---",
    ]


def test_an_index_of_a_former_version_goes_though_nothing_is_done(
    call: Callable[..., CompletedProcess[str]], run_folder: Path
) -> None:
    folder = run_folder / "workspace/manifests/tiny/images"
    former = folder / "_index.parquet"
    former.write_bytes((folder / "part-00000.parquet").read_bytes())
    call("run ingest")
    assert not former.exists()
