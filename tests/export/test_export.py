"""What every export has in common: where it goes on, what it refuses, what it leaves out."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from PIL import Image

from pipeline.config import components
from stages.export.export import FAMILY
from stages.export.names import export_names
from tests.killed_calls import content

Maskmill = Callable[..., CompletedProcess[str]]
FORMATS = components.names(FAMILY)


@pytest.fixture
def to(run: Path, maskmill: Maskmill) -> Callable[..., CompletedProcess[str]]:
    """``to("coco", folder, "--roles", "ood")``."""

    def call(form: str, out: Path, *more: str) -> CompletedProcess[str]:
        roles = () if "--roles" in more else ("--roles", "labeled,val,ood")
        return maskmill(
            "export", "labels", "--config", run, "--to", form, "--out", out, *roles, *more
        )

    return call


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_is_the_same_each_time_and_done_once(
    form: str, to: Maskmill, tmp_path: Path
) -> None:
    assert to(form, tmp_path / "whole").returncode == 0
    whole = content(tmp_path / "whole")
    assert to(form, tmp_path / "again").returncode == 0
    assert content(tmp_path / "again") == whole
    again = to(form, tmp_path / "again")
    assert "nothing to do, it was exported before" in again.stdout
    assert content(tmp_path / "again") == whole


def test_formats_in_one_call_get_a_folder_each(to: Maskmill, tmp_path: Path) -> None:
    done = to("png,coco", tmp_path / "both")
    assert done.returncode == 0
    assert {path.name for path in (tmp_path / "both").iterdir()} == {"png", "coco"}
    assert "18 images exported" in done.stdout


def test_a_folder_of_other_things_is_refused(to: Maskmill, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    done = to("png", tmp_path / "full")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "the folder is not empty" in done.stderr
    assert content(tmp_path / "full") == {"mine.txt": b"mine"}
    assert to("png", tmp_path / "out").returncode == 0
    for more in (("--roles", "ood"), ("--min-confidence", "0.5"), ("--split", "0.5")):
        done = to("png", tmp_path / "out", *more)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), more
        assert "the folder holds other exported labels: " in done.stderr
    done = to("coco", tmp_path / "out")
    assert "png -> coco" in done.stderr


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (("--to", "jpeg"), f"no format 'jpeg'; use one of: {', '.join(FORMATS)}"),
        (("--labeler", "sam"), "no labeler 'sam'; name one of: --labeler files"),
        (("--roles", "test"), "no image of the roles test has a label"),
        (("--roles", "web"), "'web' is no role; use some of: labeled, unlabeled, ood, val, test"),
        (("--to", "png,png"), "a format is named twice"),
    ],
)
def test_what_cannot_be_is_one_line(
    more: tuple[str, ...], text: str, run: Path, maskmill: Maskmill, tmp_path: Path
) -> None:
    to = () if "--to" in more else ("--to", "png")
    done = maskmill("export", "labels", "--config", run, "--out", tmp_path / "out", *to, *more)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert text in done.stderr
    assert not (tmp_path / "out").exists()


def test_unsure_pixels_are_ignored_and_splits_are_by_chance(to: Maskmill, tmp_path: Path) -> None:
    done = to("png", tmp_path / "out", "--split", "0.5", "--min-confidence", "0.9")
    assert done.returncode == 0
    counts = [
        len((tmp_path / f"out/{split}.txt").read_text().splitlines()) for split in ("train", "val")
    ]
    assert sum(counts) == 18
    assert min(counts) > 2


def test_a_file_that_is_gone_is_left_out_and_counted(
    to: Maskmill, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "labeled/images/ring.png").unlink()
    Image.new("RGB", (64, 48)).save(tmp_path / "val/images/ring.png")
    done = to("coco", tmp_path / "out")
    assert done.returncode == 0
    assert (
        "warning: 2 images left out, as a file is gone or has changed; first: ring" in done.stderr
    )
    assert "16 images exported" in done.stdout
    assert len((tmp_path / "out/maskmill.csv").read_text().splitlines()) == 17


def test_images_without_a_stored_label_are_counted(
    config: Path, maskmill: Maskmill, tmp_path: Path
) -> None:
    (tmp_path / "ood/masks/ring.png").unlink()
    assert maskmill("run", "pseudolabel", "--config", config).returncode in (0, 1)
    out = tmp_path / "out"
    done = maskmill("export", "labels", "--config", config, "--to", "png", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "1 image left out: without a stored label" in done.stderr
    assert "5 images exported" in done.stdout


def test_predictions_are_exported_with_the_classes_of_their_model(
    maskmill: Maskmill, tmp_path: Path
) -> None:
    from tests.predict.conftest import picture, write_model

    model = write_model(tmp_path / "model.safetensors")
    (tmp_path / "new").mkdir()
    for seed in range(3):
        picture(seed).save(tmp_path / f"new/{seed}.png")
    (tmp_path / "new/bad.png").write_bytes(b"")
    predicted = tmp_path / "predicted"
    call = ("predict", tmp_path / "new", "--model", model, "--out", predicted)
    assert maskmill(*call).returncode == 0
    done = maskmill("export", "predictions", predicted, "--to", "png", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "1 image left out: not predicted" in done.stderr
    for seed in range(3):
        with (
            Image.open(tmp_path / f"out/masks/{seed}.png") as one,
            Image.open(predicted / f"masks/{seed}.png") as other,
        ):
            assert one.tobytes() == other.tobytes()
    done = maskmill(
        "export", "predictions", tmp_path / "new", "--to", "png", "--out", tmp_path / "o"
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "name the folder of a finished `maskmill predict --to masks`" in done.stderr


def test_names_are_safe_and_different() -> None:
    images = [
        ("/a/photo one.v2.jpg", "0" * 16),
        ("/b/x.png", "1" * 16),
        ("/c/X.png", "2" * 16),
        ("/d/\u00e4\u00f6.png", "3" * 16),
        ("web/0.tar#7.jpg@512+100", "4" * 16),
        ("/e/x.png", "1" * 16),
    ]
    names = export_names(images)
    assert names[0] == "photo_one_v2"
    assert names[3:5] == ["image", "7"]
    assert names[1].startswith("x-111111111111")
    assert len({name.lower() for name in names}) == len(names)
