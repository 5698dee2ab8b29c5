"""Paths in a config start at the config file, those of --set in the current folder."""

import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from pipeline.config.config import Config, load
from pipeline.config.config_section import Section
from pipeline.files.config_paths import ConfigLocation, LocalPath, MaybePath
from stages.graph import GRAPH
from stages.models.clip.clip_weights import ModelName

Maskmill = Callable[..., CompletedProcess[str]]
SECTIONS = {stage.name: stage.Config for stage in GRAPH}


class Paths(Section):
    data: ConfigLocation | None = None
    file: LocalPath | None = None
    weights: MaybePath | None = None
    model: ModelName | None = None


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the folder `configs` in it; files of both are called a.pt."""
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def read(here: Path) -> Callable[..., Config]:
    def read(values: str, *overrides: str, path: Path = Path("configs/run.yaml")) -> Config:
        path.write_text(f"{{run: a, vocabulary: vocabulary.yaml, paths: {values}}}")
        (path.parent / "vocabulary.yaml").write_text(
            "{name: a, classes: [{name: a, color: '#000000'}]}"
        )
        return load(path, {"paths": Paths}, overrides)

    return read


KINDS = {"data": "", "file": "", "weights": "", "model": "local-dir:"}


@pytest.mark.parametrize("key", KINDS)
def test_a_path_starts_at_the_config_file(
    key: str, here: Path, read: Callable[..., Config]
) -> None:
    prefix = KINDS[key]
    for written, meant in (
        ("b/a.pt", "configs/b/a.pt"),
        ("a.pt", "configs/a.pt"),
        ("../c/a.pt", "c/a.pt"),
        ("../../a.pt", "../a.pt"),
        ("/x/a.pt", "/x/a.pt"),
    ):
        for path in (Path("configs/run.yaml"), here / "configs/run.yaml"):
            config = read(f"{{{key}: '{prefix}{written}'}}", path=path)
            value = str(getattr(config.sections["paths"], key)).removeprefix(prefix)
            assert os.path.abspath(value) == os.path.abspath(meant)
            assert os.path.isabs(value) == (
                meant[0] == "/" or (".." in meant and path.is_absolute())
            )
            assert config.warnings == ()


@pytest.mark.parametrize("key", KINDS)
def test_a_path_of_an_override_starts_in_the_current_folder(
    key: str, read: Callable[..., Config]
) -> None:
    config = read("{}", f"paths.{key}={KINDS[key]}b/a.pt")
    assert str(getattr(config.sections["paths"], key)) == f"{KINDS[key]}b/a.pt"
    config = read("{}", f"paths={{{key}: '{KINDS[key]}../a.pt'}}")
    assert str(getattr(config.sections["paths"], key)) == f"{KINDS[key]}../a.pt"


@pytest.mark.parametrize("key", KINDS)
def test_a_path_of_the_other_rule_is_used_with_a_warning(
    key: str, here: Path, read: Callable[..., Config]
) -> None:
    prefix = KINDS[key]
    (here / "a.pt").touch()
    config = read(f"{{{key}: '{prefix}a.pt'}}")
    assert str(getattr(config.sections["paths"], key)) == f"{prefix}a.pt"
    [warning] = config.warnings
    assert warning == (
        "configs/run.yaml: a.pt: this path should start at the config file; write ../a.pt"
    )
    (here / "configs/a.pt").touch()
    config = read(f"{{{key}: '{prefix}a.pt'}}")
    assert str(getattr(config.sections["paths"], key)) == f"{prefix}configs/a.pt"
    assert config.warnings == ()
    (here / "a.pt").unlink()
    config = read("{}", f"paths.{key}={prefix}a.pt")
    [warning] = config.warnings
    assert warning.endswith(
        "a.pt: this path should start at the current folder; write configs/a.pt"
    )


def test_names_addresses_and_homes_are_not_paths_of_the_config(read: Callable[..., Config]) -> None:
    config = read("{weights: openai, model: ViT-B-16, data: 's3://bucket/a', file: ~/a.txt}")
    found = config.sections["paths"]
    assert isinstance(found, Paths)
    assert (found.weights, found.model) == ("openai", "ViT-B-16")
    assert str(found.data) == "s3://bucket/a"
    assert found.file == Path.home() / "a.txt"


def test_a_file_without_ending_is_a_path_where_it_is(
    here: Path, read: Callable[..., Config]
) -> None:
    (here / "configs/openai").touch()
    found = read("{weights: openai}").sections["paths"]
    assert isinstance(found, Paths)
    assert found.weights == "configs/openai"


def test_the_workspace_is_in_the_current_folder(here: Path, read: Callable[..., Config]) -> None:
    assert read("{}").manifests == Path("manifests/a")
    assert read("{}", "workspace=out").manifests == Path("out/manifests/a")


def test_a_run_of_the_former_rule_stays_fresh_and_says_what_to_write(
    maskmill: Maskmill,
    tiny: dict[str, Any],
    write_config: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Images are their bytes: neither the former spelling nor the new one makes any stale."""
    monkeypatch.chdir(tmp_path)
    write_config({**tiny, "workspace": ".", "data": "data"})
    assert maskmill("run", "--config", "config.yaml").returncode == 0
    (tmp_path / "configs").mkdir()
    for name in ("config.yaml", "vocabulary.yaml"):
        (tmp_path / name).rename(tmp_path / "configs" / name)
    status = maskmill("status", "--config", "configs/config.yaml")
    assert "fresh │     2 │     0 │       0 │" in status.stdout
    assert status.stderr == (
        "warning: configs/config.yaml: data: this path should start at the config file; "
        "write ../data\n"
    )
    path = tmp_path / "configs/config.yaml"
    path.write_text(path.read_text().replace("data: data", "data: ../data"))
    for config in ("configs/config.yaml", path):
        status = maskmill("status", "--config", config)
        assert "fresh │     2 │     0 │       0 │" in status.stdout
        assert status.stderr == ""
