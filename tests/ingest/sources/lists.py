"""A list source of a few images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.files.config_paths import ConfigPaths
from stages.ingest.sources.base import Listed
from stages.ingest.sources.list import ListConfig, ListSource

List = Callable[..., list[Listed]]


def without_stamps(source: ListSource) -> list[Listed]:
    stampless = {"stamp": None, "mask_stamp": None}
    return [Listed(**(row | stampless)) for row in source.list().to_pylist()]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ("a.jpg", "sub/b.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.fixture
def build(data: Path, tmp_path: Path) -> Callable[..., ListSource]:
    def build(file: str, **keys: Any) -> ListSource:
        with ConfigPaths(tmp_path / "config.yaml").being_read():
            config = ListConfig.model_validate({"file": file, **keys})
        where = "config.yaml: web"
        return ListSource(config, data=data, cache=tmp_path, where=where)

    return build


@pytest.fixture
def listed(build: Callable[..., ListSource]) -> List:
    return lambda file, **keys: without_stamps(build(file, **keys))
