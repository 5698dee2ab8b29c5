"""A source of archives in a folder."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stages.ingest.sources.base import Listed
from stages.ingest.sources.webdataset import WebdatasetConfig, WebdatasetSource

WriteShard = Callable[[Path, int, list[str | None]], Path]
Build = Callable[..., WebdatasetSource]
Add = Callable[..., None]
Jpeg = Callable[[str], bytes]


@pytest.fixture
def web(tmp_path: Path) -> Path:
    folder = tmp_path / "data/web"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def build(web: Path, tmp_path: Path) -> Build:
    def build(**keys: Any) -> WebdatasetSource:
        config = WebdatasetConfig.model_validate({"shards": "web", **keys})
        where, cache = "config.yaml: web", tmp_path / "cache"
        return WebdatasetSource(config, data=web.parent, cache=cache, where=where)

    return build


def list_images(source: WebdatasetSource) -> list[Listed]:
    return [Listed(**row) for row in source.list().to_pylist()]


def shown(source: WebdatasetSource, web: Path) -> dict[str, str | None]:
    """Problems by address, without folder and position."""
    listed = {one.image: one.problem for one in list_images(source)}
    return {re.sub(r"@\d+\+\d+$", "", k.removeprefix(f"{web}/")): v for k, v in listed.items()}
