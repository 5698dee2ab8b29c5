"""A folder source of a few touched files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.files.config_paths import ConfigPaths
from stages.ingest.sources.folder import FolderConfig, FolderSource

List = Callable[..., list[tuple[str, str | None]]]
Build = Callable[..., FolderSource]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """A source of `tmp_path`: ``build(images="a", masks="b")``."""

    def build(only_masked: bool = False, **keys: Any) -> FolderSource:
        with ConfigPaths(tmp_path / "config.yaml").being_read():
            config = FolderConfig.model_validate({"images": "images", **keys})
        where = "config.yaml: web"
        return FolderSource(
            config, data=tmp_path, cache=tmp_path, where=where, only_masked=only_masked
        )

    return build


@pytest.fixture
def listed(build: Build, tmp_path: Path) -> List:
    """Lists such a source, as paths below `tmp_path`."""

    def listed(**keys: Any) -> list[tuple[str, str | None]]:
        return [
            (
                one["image"].removeprefix(f"{tmp_path}/"),
                None if one["mask"] is None else one["mask"].removeprefix(f"{tmp_path}/"),
            )
            for one in build(**keys).list().to_pylist()
        ]

    return listed


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
