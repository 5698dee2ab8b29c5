"""Folders that a config names in any spelling hold a whole run."""

import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.files import locations
from pipeline.files.machine_cache import cache_folder
from pipeline.records import manifest, tables
from pipeline.records.label_reader import LabelReader, StoredLabel

Call = Callable[..., CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, home/me: neither the config's folder nor that of the data.

    In it `link` leads to far/away, whose `..` is far and not the working directory.
    """
    working = tmp_path / "home" / "me"
    working.mkdir(parents=True)
    (tmp_path / "far" / "away").mkdir(parents=True)
    (working / "link").symlink_to(tmp_path / "far" / "away")
    (working / "a").mkdir()
    monkeypatch.chdir(working)
    monkeypatch.setenv("HOME", str(working))
    return working


SPELLINGS = {
    "../x": "home/x",
    "./a/../b": "home/me/b",
    "link/../b": "far/b",
    "link/b": "far/away/b",
    "~/x": "home/me/x",
    "x": "home/me/x",
    ".": "home/me",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_workspace_works_in_any_spelling(
    spelling: str,
    folder: Path,
    stage_one: dict[str, Any],
    write_config: Callable[..., Path],
    call: Call,
    tmp_path: Path,
) -> None:
    config = write_config({**stage_one, "workspace": spelling})
    call("run pseudolabel", config, code=0)
    workspace = tmp_path / SPELLINGS[spelling]
    parts = workspace / "manifests/tiny/pseudo_labels/labeler=truth"
    labels = manifest.read(parts, tables.PSEUDO_LABELS)
    assert labels.num_rows == 4
    for row in labels.to_pylist():
        ((mask, _),) = LabelReader().read([StoredLabel.of(workspace, row)])
        assert len({*mask.flat}) > 1
    assert "no damage" in call("verify", config, code=0).stdout
    assert "nothing to do" in call("run --dry-run pseudolabel", config, code=0).stdout
    image_id = labels["image_id"][0].as_py()
    shown = call(f"show {image_id}", config, code=0).stdout
    assert (workspace / f"artifacts/tiny/show/{image_id}.png").is_file()
    if not spelling.startswith(("~", "link/..")):
        assert f"picture: {Path(os.path.normpath(spelling), 'artifacts/tiny/show')}/" in shown


def moved(config: Path, folder: Path) -> Path:
    """A config, and its vocabulary, in another folder."""
    config.with_name("vocabulary.yaml").rename(folder / "vocabulary.yaml")
    return config.rename(folder / config.name)


@pytest.mark.parametrize("spelling", ["link/../data", "~/data", "../../data", "a/../data"])
def test_images_lie_where_the_config_says(
    spelling: str,
    folder: Path,
    data: Path,
    stage_one: dict[str, Any],
    write_config: Callable[..., Path],
    call: Call,
    tmp_path: Path,
) -> None:
    """As `data`, and as the folders of a source, whose labels stay fresh in another spelling."""
    for place in (folder / "data", tmp_path / "far" / "data"):
        place.symlink_to(data)
    config = moved(write_config({**stage_one, "data": spelling}), folder)
    call("run pseudolabel", config, code=0)
    sources = stage_one["ingest"]["sources"].values()
    for source in sources:
        for key in {"images", "masks"} & source["source"].keys():
            source["source"][key] = f"{spelling}/{source['source'][key]}"
    config = moved(write_config({**stage_one, "data": "."}), folder)
    call("run ingest", config, code=0)
    plan = call("run --dry-run pseudolabel", config, code=0).stdout
    assert "pseudolabel: nothing to do, 3 fresh" in plan


def test_paths_lose_inner_steps_back_as_the_system_reads_them(folder: Path, tmp_path: Path) -> None:
    (folder / "a" / "deep").mkdir()
    for spelling in (
        "../x",
        "a/../b",
        "link/../b",
        "link/x/../y",
        "a/deep/../../../z",
        "a/..",
        "/..",
    ):
        assert os.path.realpath(locations.local_path(spelling)) == os.path.realpath(spelling)
    assert str(locations.local_path("a/../b")) == "b"
    assert str(locations.local_path("../../x/../y")) == "../../y"
    assert locations.local_path("link/../b") == tmp_path / "far" / "b"
    assert locations.local_path("./~x") == Path("~x")


def test_the_cache_may_be_in_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKMILL_CACHE", "~/c")
    assert cache_folder() == folder / "c"
    monkeypatch.setenv("MASKMILL_CACHE", "~nobody-here/c")
    with pytest.raises(ConfigError) as error:
        cache_folder()
    assert str(error.value) == (
        "MASKMILL_CACHE: '~nobody-here/c' is wrong; "
        "~nobody-here is no home folder; write the path out"
    )


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("workspace", "~nobody-here/x", "~nobody-here is no home folder; write the path out"),
        ("workspace", 5, "write a path"),
        ("data", "~nobody-here", "~nobody-here is no home folder; write the path out"),
        ("data", "gs://bucket", "use a path or an address s3://bucket/prefix, not gs://bucket"),
        ("vocabulary", "s3://bucket/x", "use a path on this machine, not s3://bucket/x"),
    ],
)
def test_a_wrong_location_is_named(
    key: str,
    value: object,
    message: str,
    tiny: dict[str, Any],
    write_config: Callable[..., Path],
    call: Call,
) -> None:
    config = write_config({**tiny, key: value})
    assert call("status", config, code=1).stderr == (
        f"error: {config}: {key}: {value!r} is wrong; {message}\n"
    )


CLIP = {"name": "dense_clip", "window_px": 32, "stride_px": 32}


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"pseudolabel": {"labelers": {"a": {**CLIP, "model": "local-dir:~/x"}}}}, "model"),
        ({"pseudolabel": {"labelers": {"a": {**CLIP, "model": "m", "weights": "~/x"}}}}, "weights"),
        ({"pseudolabel": {"labelers": {"a": {"name": "hf", "model": "local-dir:~/x"}}}}, "model"),
        ({"propose": {"model": "vit_b", "weights": "~/x"}}, "weights"),
    ],
)
def test_models_may_be_in_the_home_folder(
    section: dict[str, Any],
    key: str,
    folder: Path,
    tiny: dict[str, Any],
    write_config: Callable[..., Path],
    call: Call,
) -> None:
    """The error for a missing file has the expanded path; that for an unknown user has the key."""
    (stage,) = section
    config = write_config({**tiny, **section})
    call("run ingest", config, code=0)
    assert f"{folder}/x" in call(f"run --only {stage}", config, code=1).stderr
    config.write_text(config.read_text().replace("~/x", "~nobody-here/x"))
    wrong = call("status", config, code=1).stderr
    assert f".{key}: '" in wrong
    assert wrong.endswith("~nobody-here is no home folder; write the path out\n")
