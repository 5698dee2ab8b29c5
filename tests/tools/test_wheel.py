"""The wheel contains the embedded models and configs, but not the tools; it works by itself."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from setuptools import find_namespace_packages

from stages.models.embedded.models import CLIP, SAM
from tests.repository import ROOT, present, shipped

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


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the wheel of an sdist, without its dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    source, target = folder / "source", folder / "installed"
    source.mkdir()
    for name in (*PACKAGES, "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    script = "from setuptools.build_meta import build_sdist; print(build_sdist('.'))"
    archive = [sys.executable, "-c", script]
    done = subprocess.run(archive, cwd=source, check=True, capture_output=True, text=True)
    sdist = source / done.stdout.splitlines()[-1]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = ["--no-deps", "--no-index", "--no-build-isolation"]
    build = [*pip, "wheel", *offline, "--wheel-dir", str(folder), str(sdist)]
    subprocess.run(build, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    install = [*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    return target


@pytest.mark.slow
def test_an_installed_wheel_works_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    def call(*arguments: str) -> str:
        command = [sys.executable, str(installed / "bin/maskmill"), *arguments]
        env = {**os.environ, "PYTHONPATH": str(installed)}
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert call("--version").startswith("maskmill 0.")
    assert "sam_clip" in call("list", "labelers")
    assert "cityscapes" in call("list", "vocabularies")
    assert "unimatch-v2" in call("list", "presets")
    assert "datasets/voc" in call("configs")
    assert call("status").startswith(f"run sandbox ({installed}/maskmill/configs/sandbox.yaml)")
    assert not any(tmp_path.iterdir())
    few = [
        part
        for role in ("labeled", "unlabeled", "ood", "val", "test")
        for part in ("--set", f"sandbox.{role}=2")
    ]
    call("run", "ingest", *few)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifacts", "manifests"]
    call("configs", "copy", "datasets/chase-db1")
    for path in shipped("configs/**/*"):
        assert (installed / "maskmill" / path.relative_to(ROOT)).read_bytes() == path.read_bytes()
