"""Whatever is edited, added, changed, removed or killed: a rerun equals a run from scratch."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import VOCABULARY
from tests.pipeline.killing import images, labels, leftovers, run

ROLES = ("labeled", "ood", "val")
NAMES = tuple("abcdef")
SEVERAL: dict[str, Any] = {
    "suppress_health_check": list(HealthCheck),
    "deadline": None,
    "database": None,
}

put = st.tuples(st.just("put"), st.sampled_from(ROLES), st.sampled_from(NAMES), st.integers(0, 7))
remove = st.tuples(st.just("remove"), st.sampled_from(ROLES), st.sampled_from(NAMES))
spoil = st.tuples(st.just("spoil"), st.just("ood"), st.sampled_from(NAMES))
edit = st.tuples(
    st.just("edit"),
    st.sampled_from(
        [
            ("size_px", 32),
            ("size_px", 48),
            ("roles", ["ood"]),
            ("roles", ["val", "ood"]),
            ("labelers", {"truth": "files"}),
            ("labelers", {"truth": "files", "other": "files"}),
        ]
    ),
)
kill = st.tuples(st.just("kill"), st.integers(1, 80))
a_round = st.lists(put | remove | spoil | edit | kill, min_size=1, max_size=4)


class World:
    """Images in folders, a config, and a workspace that is run again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pseudolabel: dict[str, Any] = {"size_px": 32, "labelers": {"truth": "files"}}
        (folder / "vocabulary.yaml").write_text(yaml.safe_dump(VOCABULARY))
        for number, role in enumerate(ROLES):
            self.put(role, "z", 100 + number)  # of every role an image counts, come what may
        self.put("labeled", "a", 0)

    def config(self, workspace: str) -> Path:
        sources = {
            role: {
                "role": role,
                "source": {"name": "folder", "images": f"{role}/images", "masks": f"{role}/masks"},
            }
            for role in ROLES
        }
        values = {
            "run": "tiny",
            "workspace": str(self.folder / workspace),
            "data": str(self.folder / "data"),
            "vocabulary": "vocabulary.yaml",
            "ingest": {"shard_size": 2, "sources": sources},
            "pseudolabel": self.pseudolabel,
        }
        path = self.folder / f"{workspace}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    def put(self, role: str, name: str, content: int) -> None:
        """An image and its label file, both a function of `content`: equal ones are duplicates."""
        rng = np.random.default_rng(content)
        for kind, high, shape in (("images", 256, (6, 8, 3)), ("masks", 3, (6, 8))):
            path = self._file(role, kind, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, high, shape, dtype=np.uint8)).save(path)

    def remove(self, role: str, name: str) -> None:
        for kind in ("images", "masks"):
            self._file(role, kind, name).unlink(missing_ok=True)

    def spoil(self, role: str, name: str) -> None:
        """An image that cannot be read."""
        self.put(role, name, 0)
        self._file(role, "images", name).write_bytes(b"no image")

    def edit(self, change: tuple[str, Any]) -> None:
        self.pseudolabel[change[0]] = change[1]

    def kill(self, change: int) -> None:
        assert run(self.config("workspace"), change).code in (-9, 0)

    def check(self) -> None:
        """Runs to the end, and from scratch, and compares."""
        config, scratch = self.config("workspace"), self.config("scratch")
        shutil.rmtree(self.folder / "scratch", ignore_errors=True)
        assert run(config).code == 0
        assert run(scratch).code == 0
        assert self._rows(config) == self._rows(scratch)
        assert labels(config) == labels(scratch)
        assert leftovers(self.folder / "workspace") == []
        assert run(config).code == 0

    def _rows(self, config: Path) -> dict[tuple[str, str], tuple[Any, ...]]:
        """What the images manifest says; not which of equal images counts, for that is a matter
        of rows, which never move.
        """
        found: dict[tuple[str, str], tuple[Any, ...]] = {}
        for row in images(config).to_dict("records"):
            if row["status"] == "ok":
                found[row["role"], row["image_id"]] = (row["width"], row["height"], row["mask_id"])
            elif row["status"] != "duplicate":
                found[row["role"], row["uri"]] = (row["status"], row["error_message"])
        return found

    def _file(self, role: str, kind: str, name: str) -> Path:
        return self.folder / "data" / role / kind / f"{name}.png"


def play(sequence: Sequence[Sequence[tuple[Any, ...]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        for steps in sequence:
            for name, *arguments in steps:
                getattr(world, name)(*arguments)
            world.check()


@given(a_round)
@settings(max_examples=2, derandomize=True, phases=[Phase.generate], **SEVERAL)
def test_a_rerun_equals_a_run_from_scratch(steps: list[tuple[Any, ...]]) -> None:
    play([steps])


@pytest.mark.slow
@given(st.lists(a_round, min_size=1, max_size=3))
@settings(max_examples=200, **SEVERAL)
def test_many_reruns_equal_runs_from_scratch(sequence: list[list[tuple[Any, ...]]]) -> None:
    play(sequence)
