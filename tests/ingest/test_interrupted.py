"""The run after an interrupted one marks duplicates, and retries what could not be read."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd

Ingest = Callable[..., CompletedProcess[str]]
Rows = Callable[[], pd.DataFrame]


def test_a_stopped_run_is_repeated_even_if_its_cause_vanishes(
    ingest: Ingest, rows: Rows, data: Path, maskmill: Callable[..., CompletedProcess[str]]
) -> None:
    ingest()
    shutil.copy(data / "test/images/0.png", data / "ood/images/copy.png")
    for number in range(3):  # of the same shard
        shutil.copy(data / f"ood/images/{number % 2}.png", data / f"ood/images/x{number}.png")
    (data / "labeled/images/9.png").write_bytes((data / "labeled/images/0.png").read_bytes())
    (data / "labeled/masks/9.png").write_bytes(b"no mask")
    assert ingest().returncode == 1
    for kind in ("images", "masks"):
        (data / "labeled" / kind / "9.png").unlink()
    for number in range(3):
        (data / f"ood/images/x{number}.png").unlink()
    ingest()
    assert rows().status["ood/images/copy.png"] == "duplicate"
    assert "nothing to do" in ingest().stderr


def test_an_image_without_read_permission_is_tried_again(
    ingest: Ingest, rows: Rows, data: Path
) -> None:
    path = data / "ood/images/0.png"
    path.chmod(0)
    uid = os.geteuid()
    for folder in data.parents:  # a user who is not root must get there
        if folder.stat().st_uid == uid and folder.stat().st_mode & 0o777 == 0o700:
            folder.chmod(0o711)
    if uid == 0:
        os.chown(data.parent, 65534, 65534)
        os.seteuid(65534)
    try:
        stderr = ingest().stderr
    finally:
        os.seteuid(uid)
    assert stderr.endswith("cannot be read: Permission denied; the next run tries again\n")
    assert rows().status["ood/images/0.png"] == "failed"
    assert rows().error_message["ood/images/0.png"] == "cannot be read: Permission denied"
    if uid:
        path.chmod(0o644)
    done = ingest()
    reason = "changed" if uid else "could not be read"  # permissions are part of the stamp
    assert f"ingest: 1 image {reason}: shard 1\n" in done.stderr
    assert rows().status["ood/images/0.png"] == "ok"


def test_the_reason_of_a_shard_without_images_is_that_they_are_gone(
    maskmill: Callable[..., CompletedProcess[str]],
    ingest: Ingest,
    data: Path,
    tiny: dict[str, Any],
    write_config: Callable[..., Path],
) -> None:
    ingest()
    for image in (data / "ood/images").iterdir():
        image.unlink()
    shutil.copy(data / "unlabeled/images/0.png", data / "ood/images/new.png")
    (data / "unlabeled/images/0.png").unlink()
    (data / "unlabeled/images/1.png").unlink()
    shutil.copy(data / "ood/images/new.png", data / "unlabeled/images/new.png")
    printed = maskmill("status", "--config", write_config(tiny)).stdout
    assert "ingest: 4 images gone: shard 1\n" in printed
    assert "none" not in printed
