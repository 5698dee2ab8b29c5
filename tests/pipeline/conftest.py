import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def stage_one(tiny: dict[str, Any]) -> dict[str, Any]:
    """Label files as labels: four shards of images, of which two are labeled."""
    pseudolabel = {
        "size_px": 32,
        "roles": ["labeled", "val", "test"],
        "labelers": {"truth": "files"},
    }
    ingest = {**tiny["ingest"], "shard_size": 2}
    return {**tiny, "ingest": ingest, "pseudolabel": pseudolabel}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 128 kB; only root can have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount") or "mount"
    command = [mount, "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("cannot mount a small disk here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
