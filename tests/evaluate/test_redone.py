"""What is done again on request makes stale what was made from it, and says so."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.records import part_file
from pipeline.records.redone import Redone
from tests.finished_run import not_fresh, states

Call = Callable[..., CompletedProcess[str]]
AGAIN = "made again on request (--force)"


def reasons() -> dict[str, list[str]]:
    return {name: state.reasons for name, state in states().items() if state.reasons}


def test_forced_labels_make_stale_what_reads_them(call: Call, manifests: Path) -> None:
    call("run pseudolabel --force")
    found = reasons()
    assert found["train"] == [f"ood labels of clip {AGAIN}: web seed 0"]
    assert found["evaluate"] == [
        f"labels of clip {AGAIN}: labeler clip on test",
        "train is not fresh",
    ]
    assert f"labels of clip {AGAIN}: picture of labels of clip" in found["report"]
    assert not {"ingest", "pseudolabel"} & found.keys()
    kept = [*manifests.glob(".kept/**/*.parquet")]
    call("run")
    assert reasons() == {}
    assert len([*manifests.glob(".kept/**/*.parquet")]) > len(kept)  # the former training


def test_a_forced_shard_makes_stale_what_reads_it(call: Call) -> None:
    call("run pseudolabel --force --shards 0")
    found = reasons()
    assert not {"pseudolabel", "train"} & found.keys()  # its web images are in the other shard
    assert f"labels of clip {AGAIN}: labeler clip on test" in found["evaluate"]
    call("run")
    assert reasons() == {}


def test_forced_trainings_make_stale_what_reads_them(call: Call) -> None:
    call("run train --force")
    found = reasons()
    assert "train" not in found
    assert {f"training {name} seed 0 {AGAIN}" for name in ("plain", "web")} <= {
        reason.partition(":")[0] for reason in found["evaluate"]
    }
    assert any(f"training plain seed 0 {AGAIN}" in reason for reason in found["report"])
    call("run evaluate")
    assert not_fresh().keys() == {"report"}


def test_what_is_forced_and_stale_anyway_is_not_counted(call: Call) -> None:
    """Its facts are others, which say enough."""
    changed = "pseudolabel.labelers.clip.threshold=0.66"
    call("run pseudolabel --force", changed)
    assert states(changed)["train"].reasons == ["ood labels of clip changed: web seed 0"]


@pytest.fixture
def older_torch(manifests: Path) -> None:
    """The parts of labels and trainings say that another torch made them."""
    for part in [*manifests.glob("pseudo_labels/*/*"), *manifests.glob("metrics/part-train-*")]:
        table = pq.read_table(part, partitioning=None)
        metadata = dict(table.schema.metadata)
        record = json.loads(metadata[b"maskmill"])
        record["versions"]["torch"] = "1.0"
        text = json.dumps(record)
        metadata |= {b"maskmill": text, b"maskmill.checksum": part_file.digest(text)}
        pq.write_table(table.replace_schema_metadata(metadata), part)


@pytest.mark.usefixtures("older_torch")
def test_status_tells_of_other_versions_in_a_line(call: Call) -> None:
    torch = part_file.installed(("torch",))["torch"]
    printed = call("status").stdout
    fix = "they stay fresh, `--strict-versions` does them again"
    assert f"pseudolabel: 2 units made by other versions (torch 1.0 -> {torch}); {fix}" in printed
    assert f"train: 2 units made by other versions (torch 1.0 -> {torch}); {fix}" in printed
    assert not_fresh() == {}


@pytest.mark.usefixtures("older_torch")
def test_strict_versions_do_again_what_others_made(call: Call) -> None:
    torch = part_file.installed(("torch",))["torch"]
    printed = call("status --strict-versions").stdout
    assert f"pseudolabel: torch 1.0 -> {torch}: shards 0, 1" in printed
    assert f"train: torch 1.0 -> {torch}: 2 units" in printed
    done = call("run --strict-versions").stderr
    assert f"train: torch 1.0 -> {torch}: plain seed 0" in done
    assert "by other versions" not in call("status").stdout
    assert not_fresh() == {}


def test_versions_that_no_part_recorded_do_not_differ(call: Call, manifests: Path) -> None:
    (part, *_) = sorted(manifests.glob("pseudo_labels/*/*"))
    record = part_file.read_record(part)
    assert record is not None
    assert {"torch", "open_clip_torch", "timm", "numpy"} <= record.versions.keys()
    assert "by other versions" not in call("status --strict-versions").stdout


def test_going_back_to_former_keys_finds_what_was_made_from_them_fresh(call: Call) -> None:
    other = "pseudolabel.labelers.clip.threshold=0.3"
    call("run pseudolabel", other)
    call("run pseudolabel --force", other)
    assert not_fresh() == {}


def test_what_merges_labels_that_were_done_again_is_stale_at_every_level(
    call: Call, write: Callable[..., Path], values: dict[str, Any], manifests: Path
) -> None:
    clip = values["pseudolabel"]["labelers"]["clip"]
    values["pseudolabel"]["labelers"] |= {
        "other": {**clip, "stride_px": 16},
        "both": {"name": "ensemble", "rule": "confidence", "members": ["clip", "other"]},
        "top": {"name": "ensemble", "rule": "confidence", "members": ["both", "other"]},
    }
    del values["train"], values["evaluate"], values["report"]
    write(values)
    call("run")
    part = manifests / "pseudo_labels/labeler=clip/part-00001.parquet"
    Redone(manifests).add([(part, part_file.read_facts(part) or {})])
    assert set(not_fresh()["pseudolabel"]) == {"both shard 1", "top shard 1"}
    call("run")
    assert not_fresh() == {}


def test_counts_are_of_a_part_with_its_facts(manifests: Path) -> None:
    part = manifests / "pseudo_labels/labeler=clip/part-00000.parquet"
    facts = part_file.read_facts(part)
    Redone(manifests).add([(part, facts or {})])
    assert Redone(manifests).count([part]) == 1
    assert Redone(manifests).count([part.with_name("part-00001.parquet")]) == 0
    (manifests / ".redone.json").write_text("[1]")
    assert Redone(manifests).is_empty
    assert not_fresh() == {}
