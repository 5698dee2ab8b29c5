"""What is durable is on the disk under its temporary name before it gets its own name."""

import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from safetensors.torch import save_file

from pipeline.files import storage
from stages.models.segmenters.weights import replace

Event = tuple[str, str]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """Calls of the system, in order: ("fsync", path as it was named then), ("rename", new path)."""
    found: list[Event] = []
    fsync = os.fsync

    def synced(descriptor: int) -> None:
        found.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def recording(rename: Callable[..., None]) -> Callable[..., None]:
        def renamed(source: Any, target: Any, **keys: Any) -> None:
            found.extend([("from", str(source)), ("rename", str(target))])
            rename(source, target, **keys)

        return renamed

    monkeypatch.setattr(os, "fsync", synced)
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, recording(getattr(os, name)))
    return found


def assert_durable(events: list[Event], path: Path) -> None:
    """Content first, then the name, then the folder that holds the name."""
    at = events.index(("rename", str(path)))
    kind, temporary = events[at - 1]
    assert kind == "from"
    assert ("fsync", temporary) in events[:at], f"the bytes of {path} may be lost"
    assert ("fsync", str(path.parent)) in events[at:], f"the name of {path} may be lost"


def test_a_durable_file_is_synced_before_and_its_folder_after(
    tmp_path: Path, events: list[Event]
) -> None:
    path = tmp_path / "new" / "file"
    storage.write_bytes(path, b"content")
    assert_durable(events, path)
    assert len(events) == 4


def test_a_durable_move_syncs_both_folders(tmp_path: Path, events: list[Event]) -> None:
    source, target = tmp_path / "one" / "file", tmp_path / "two" / "file"
    storage.write_bytes(source, b"content", durable=False)
    assert [kind for kind, _ in events] == ["from", "rename"]
    events.clear()
    storage.move(source, target)
    assert_durable(events, target)
    assert ("fsync", str(source.parent)) in events[2:]


def test_weights_are_durable(tmp_path: Path, events: list[Event]) -> None:
    import torch

    path = tmp_path / "model.safetensors"
    replace(path, lambda temporary: save_file({"weight": torch.zeros(1)}, temporary))
    assert_durable(events, path)


def test_all_that_a_run_is_made_of_is_durable(
    tiny: dict[str, Any],
    write_config: Callable[..., Path],
    maskmill: Callable[..., CompletedProcess[str]],
    events: list[Event],
) -> None:
    """Parts, labels, weights; an index, a page or a picture can be made again."""
    train = {
        "model": {"name": "small_unet", "encoder_weights": None},
        "perturbation": "unimatch",
        "label_sources": [{"name": "stored", "labeler": "own"}],
        "crop_px": 32,
        "batch_size": 2,
        "steps": 2,
        "checkpoint_every": 1,
    }
    ood = tiny["ingest"]["sources"]["ood"]["source"]
    ood.update(images="val/images", masks="val/masks")
    del tiny["ingest"]["sources"]["val"]
    labels = {"size_px": 32, "labelers": {"own": {"name": "files"}}}
    config = write_config({**tiny, "pseudolabel": labels, "train": train})
    assert maskmill("run", "--config", config).returncode == 0
    named = {Path(path) for kind, path in events if kind == "rename"}
    precious = [
        path
        for path in named
        if path.name.startswith("part-")
        or path.suffix in (".safetensors", ".pt", ".json")
        or "/c/" in str(path)
    ]
    kinds = {path.suffix for path in precious}
    assert kinds >= {".parquet", ".safetensors", ".pt", ".json", ""}
    for path in precious:
        assert_durable(events, path)
