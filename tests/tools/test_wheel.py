"""The wheel contains the embedded models, but not the tools that make them."""

import ast
import tomllib
from fnmatch import fnmatch
from typing import Any

import pytest
from setuptools import find_namespace_packages

from stages.models.embedded.models import CLIP, SAM
from tests.repository import ROOT, present

PACKAGES = ("maskmill", "pipeline", "stages")


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        found: dict[str, Any] = tomllib.load(file)["tool"]["setuptools"]
    return found


def test_packages_hold_the_files_that_runs_need_and_no_tools(settings: dict[str, Any]) -> None:
    packages = find_namespace_packages(str(ROOT), include=settings["packages"]["find"]["include"])
    patterns = settings["package-data"]["*"]
    assert {name.partition(".")[0] for name in packages} == {*PACKAGES}
    merges = CLIP.folder / "bpe.txt.gz"
    presets = present("stages/train/presets/*.yaml")
    for file in (CLIP.weights, CLIP.config, merges, SAM.weights, SAM.config, *presets):
        folder = file.parent.relative_to(ROOT)
        assert ".".join(folder.parts) in packages, file
        assert any(fnmatch(file.name, pattern) for pattern in patterns), file


def test_packages_of_the_wheel_import_no_tools() -> None:
    for path in [path for name in PACKAGES for path in present(f"{name}/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names.append(str(node.module))
            assert not any(name.partition(".")[0] == "tools" for name in names), path
