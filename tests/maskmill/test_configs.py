"""The configs that come with Maskmill, listed and copied."""

import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from maskmill import shipped_configs
from pipeline.config.config import load
from stages.graph import GRAPH
from tests.repository import ROOT, shipped

Maskmill = Callable[..., CompletedProcess[str]]
SECTIONS = {stage.name: stage.Config for stage in GRAPH}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MASKMILL_DATA", raising=False)
    return folder


def test_every_config_has_a_line(maskmill: Maskmill) -> None:
    done = maskmill("configs")
    assert done.returncode == 0
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    files = [*shipped("configs/*.yaml"), *shipped("configs/datasets/*.yaml")]
    names = {path.relative_to(ROOT / "configs").with_suffix("").as_posix() for path in files}
    assert names <= lines.keys()
    assert all(text.endswith(".") and len(text) > 20 for text in lines.values())


@pytest.mark.parametrize("name", shipped_configs.names())
def test_a_copy_has_all_that_it_names(name: str, maskmill: Maskmill, here: Path) -> None:
    done = maskmill("configs", "copy", name)
    assert done.returncode == 0, done.stderr
    copied = Path(done.stdout.strip())
    assert copied == Path(f"configs/{name}.yaml")
    config = load(copied, SECTIONS)
    assert not os.path.isabs(config.data)
    assert config.data.parts[0] != "configs"  # below the current folder or next to it
    for path in (path for path in here.rglob("*") if path.is_file()):
        original = ROOT / path.relative_to(here)
        assert path.read_bytes() == original.read_bytes()


def test_splits_are_copied_with_their_config(maskmill: Maskmill, here: Path) -> None:
    maskmill("configs", "copy", "datasets/chase-db1", "mine")
    lists = {path.relative_to(here / "mine").as_posix() for path in here.rglob("*.txt")}
    assert "datasets/splits/chase-db1/5/labeled.txt" in lists
    assert "datasets/splits/chase-db1/test.txt" in lists
    maskmill("configs", "copy", "camvid.yaml", "mine")
    assert (here / "mine/camvid/dusk.txt").is_file()


def test_nothing_is_overwritten(maskmill: Maskmill, here: Path) -> None:
    assert maskmill("configs", "copy", "configs/sandbox-table.yaml").returncode == 0
    again = maskmill("configs", "copy", "sandbox-table")
    assert (again.returncode, again.stderr) == (0, "")
    for name in ("sandbox.yaml", "vocabularies/sandbox.yaml"):
        (here / "configs" / name).write_text("mine")
    (here / "configs/sandbox-table.yaml").unlink()
    done = maskmill("configs", "copy", "sandbox-table")
    assert done.returncode == 1
    assert done.stderr == "".join(
        f"error: configs/{name}: another file is there; "
        "copy into another folder, or move this file away\n"
        for name in ("sandbox.yaml", "vocabularies/sandbox.yaml")
    )
    assert (here / "configs/sandbox.yaml").read_text() == "mine"
    assert not (here / "configs/sandbox-table.yaml").exists()


def test_an_unknown_name_lists_those_there_are(maskmill: Maskmill) -> None:
    done = maskmill("configs", "copy", "sandbax")
    assert done.returncode == 1
    assert done.stderr.startswith("error: sandbax: no such config comes with Maskmill; use one of")
    assert "sandbox-table" in done.stderr


def test_the_sandbox_is_the_default_where_there_is_no_config(
    maskmill: Maskmill, here: Path
) -> None:
    options = [
        part
        for role in ("labeled", "unlabeled", "ood", "val", "test")
        for part in ("--set", f"sandbox.{role}=2")
    ]
    done = maskmill("run", "ingest", *options)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in here.iterdir()) == ["artifacts", "manifests"]
    assert maskmill("list", "runs").stdout.startswith("sandbox  images, scenes; last written 20")
    assert maskmill("list", "runs", "--workspace", "..").stdout == ""
    shipped_configs.copy("sandbox", Path("configs"))
    own = here / "configs/sandbox.yaml"
    own.write_text(own.read_text().replace("run: sandbox", "run: mine"))
    assert maskmill("status").stdout.startswith("run mine (configs/sandbox.yaml)\n")


def test_a_vocabulary_is_copied_alone(maskmill: Maskmill, here: Path) -> None:
    assert maskmill("configs", "copy", "vocabularies/voc").returncode == 0
    copied = {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
    schemas = {"configs/config.schema.json", "configs/vocabulary.schema.json"}
    assert copied == {"configs/vocabularies/voc.yaml", *schemas}
