"""The command `label`: config, stage one and export in one."""

import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pandas as pd
import pytest

from tests.init.test_init import draw

Maskmill = Callable[..., CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with three photos."""
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        draw(tmp_path / f"photos/{number}.jpg", number)
    return tmp_path


@pytest.fixture
def label(maskmill: Maskmill) -> Maskmill:
    def call(*more: str, classes: str = "car, dog") -> CompletedProcess[str]:
        return maskmill("label", "photos", "--classes", classes, "--out", "out", *more)

    return call


def test_a_folder_is_labeled_once_and_more_images_later(folder: Path, label: Maskmill) -> None:
    (folder / "photos/bad.jpg").write_bytes(b"")
    done = label("--to", "png,coco", "--allow-stand-in")
    assert done.returncode == 0, done.stderr
    assert "3 images exported to out/png as png" in done.stdout
    assert len([*(folder / "out/png/masks").iterdir()]) == 3
    images = pd.read_parquet("out/run/manifests/photos/images")
    assert images.status.value_counts().to_dict() == {"ok": 3, "rejected": 1}
    again = label("--to", "png,coco", "--allow-stand-in")
    assert again.stdout.count("nothing to do, it was exported before") == 2
    draw(folder / "photos/more.jpg", 9)
    done = label("--to", "png", "--allow-stand-in")
    assert done.returncode == 1
    assert "pseudolabel: 1/1 shards, 1/1 images" in done.stderr
    assert "the folder holds other exported labels: labels" in done.stderr
    assert "or move this one away" in done.stderr
    shutil.move("out/png", "former")
    done = label("--to", "png", "--allow-stand-in")
    assert "4 images exported to out/png as png" in done.stdout
    assert "pseudolabel: nothing to do" in done.stderr


def test_without_weights_it_stops_with_the_line_that_fetches_them(
    folder: Path, label: Maskmill
) -> None:
    done = label()
    assert done.returncode == 1
    assert "--local-dir" in done.stderr
    assert not (folder / "out/png").exists()


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--to", "jpeg"], "no format 'jpeg'; use one of: coco, "),
        (["--classes", ""], "a name is empty"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_done(
    more: list[str], text: str, folder: Path, label: Maskmill
) -> None:
    done = label(*more)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert text in done.stderr
    assert not (folder / "out").exists()


def test_other_classes_need_another_folder(folder: Path, label: Maskmill) -> None:
    assert label("--allow-stand-in").returncode == 0
    done = label("--allow-stand-in", classes="cat")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "an earlier call with other classes labeled into this folder" in done.stderr
