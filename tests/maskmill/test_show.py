import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pipeline.images import images
from pipeline.records import manifest, part_file, tables
from pipeline.records.label_store import LabelStore

Maskmill = Callable[..., CompletedProcess[str]]
Show = Callable[[], CompletedProcess[str]]
GROUP = "artifacts/tiny/pseudo_labels/clip.zarr/0123"


@pytest.fixture
def image(
    maskmill: Maskmill, tiny: dict[str, Any], write_config: Callable[..., Path], tmp_path: Path
) -> dict[str, Any]:
    """The row of an ingested labeled image."""
    config = write_config(tiny)
    maskmill("run", "ingest", "--config", config)
    folder = tmp_path / "workspace/manifests/tiny/images"
    rows: list[dict[str, Any]] = manifest.read(folder, tables.IMAGES).to_pylist()
    return next(row for row in rows if row["role"] == "labeled")


@pytest.fixture
def show(maskmill: Maskmill, image: dict[str, Any], tmp_path: Path) -> Show:
    return lambda: maskmill("show", image["image_id"], "--config", tmp_path / "config.yaml")


@pytest.fixture
def labeled(image: dict[str, Any], tmp_path: Path) -> Callable[..., None]:
    """Stores a pseudo-label of class 1, half of it sure: ``labeled(status="failed")``."""

    def write(**columns: Any) -> None:
        workspace = tmp_path / "workspace"
        store = LabelStore(workspace / GROUP, shard_size=4, size_px=32)
        store.grow(1)
        confidence = np.zeros((1, 8, 8), np.uint8)
        confidence[:, :, :4] = 255
        store.write(0, [image["row"]], np.ones((1, 32, 32), np.uint8), confidence)
        row = {key: image[key] for key in ("image_id", "shard", "row")}
        row |= {"store": GROUP, "height": 24, "width": 32, "status": "ok", **columns}
        folder = workspace / "manifests/tiny/pseudo_labels/labeler=clip"
        part = folder / f"part-{image['shard']:05d}.parquet"
        part_file.write_part(part, tables.PSEUDO_LABELS.rows([row]), {}, {})

    return write


def picture(tmp_path: Path, image: dict[str, Any]) -> npt.NDArray[np.int64]:
    path = tmp_path / f"workspace/artifacts/tiny/show/{image['image_id']}.png"
    with Image.open(path) as drawn:
        return np.asarray(drawn).astype(np.int64)


def test_rows_are_printed_and_labels_drawn_next_to_the_image(
    show: Show, labeled: Callable[..., None], image: dict[str, Any], tmp_path: Path
) -> None:
    labeled()
    done = show()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "images"
    assert f"  uri: {image['uri']}" in lines
    assert "pseudo_labels/labeler=clip" in lines
    assert f"  store: {GROUP}" in lines
    assert not any("caption" in line for line in lines)  # null
    drawn = picture(tmp_path, image)
    # Image, hand-made mask, pseudo-label and confidence, 4 px apart.
    assert drawn.shape == (24, 4 * 32 + 3 * 4, 3)
    with Image.open(image["uri"]) as original:
        np.testing.assert_array_equal(drawn[:, :32], np.asarray(original))
    assert not np.array_equal(drawn[:, 36:68], drawn[:, :32])
    assert (drawn[:, 72:104, 0] >= 139).all()  # red, the colour of class 1, over everything
    assert (drawn[:, 108:124] == 255).all()
    assert (drawn[:, 124:140] == 0).all()


def test_a_label_that_failed_is_printed_and_not_drawn(
    show: Show, labeled: Callable[..., None], image: dict[str, Any], tmp_path: Path
) -> None:
    labeled(height=None, width=None, status="failed", error_message="the file is empty")
    done = show()
    assert done.returncode == 0, done.stderr
    assert "  error_message: the file is empty" in done.stdout.splitlines()
    assert picture(tmp_path, image).shape == (24, 2 * 32 + 4, 3)


@pytest.mark.parametrize("key", ["uri", "mask_uri"])
def test_a_file_that_is_gone_is_named(show: Show, image: dict[str, Any], key: str) -> None:
    Path(image[key]).unlink()
    done = show()
    assert done.returncode == 1
    assert f"  uri: {image['uri']}" in done.stdout  # what is known of it is shown all the same
    fix = "put a readable file there"
    if key == "mask_uri":
        fix = "put it back, then run `maskmill run ingest`"
    what = "cannot be read: No such file or directory"
    assert done.stderr == f"error: {image[key]}: {what}; {fix}\n"


def test_a_damaged_store_is_named(show: Show, labeled: Callable[..., None], tmp_path: Path) -> None:
    labeled()
    shards = (tmp_path / "workspace" / GROUP / "mask" / "c").rglob("0")
    path = next(path for path in shards if path.is_file())
    path.write_bytes(path.read_bytes()[:40])
    done = show()
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path}/workspace/{GROUP}: damaged labels: ")
    assert str(path) in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_digits_find_an_image_with_a_value_range(
    maskmill: Maskmill, tiny: dict[str, Any], write_config: Callable[..., Path], data: Path
) -> None:
    path = data / "ood/images/0.png"
    Image.fromarray(np.full((24, 32), 4000, np.uint16)).save(path)
    tiny["ingest"]["sources"]["ood"]["value_range"] = [0, 4095]
    config = write_config(tiny)
    maskmill("run", "ingest", "--config", config)
    own = images.content_id(path.read_bytes())
    for written in (own, f"{own}@0-4095"):
        done = maskmill("show", written, "--config", config)
        assert done.returncode == 0, done.stderr
        assert f"  image_id: {own}@0-4095" in done.stdout.splitlines()
    assert maskmill("show", own[:15], "--config", config).returncode == 1


def test_a_path_finds_the_image_as_its_bytes_do(
    maskmill: Maskmill, image: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "elsewhere.png"
    shutil.copyfile(image["uri"], copy)
    monkeypatch.chdir(Path(image["uri"]).parent)
    for name in (image["uri"], Path(image["uri"]).name, copy):
        done = maskmill("show", name, "--config", tmp_path / "config.yaml")
        assert done.returncode == 0, done.stderr
        assert f"  image_id: {image['image_id']}" in done.stdout.splitlines()
    copy.write_bytes(b"another image")
    done = maskmill("show", copy, "--config", tmp_path / "config.yaml")
    assert done.returncode == 1
    assert f"no image '{copy}'; use an image_id or a uri of this table" in done.stderr


def test_classes_have_their_names(
    show: Show, labeled: Callable[..., None], image: dict[str, Any]
) -> None:
    labeled(class_ids=[1, 2], class_fractions=[0.25, 0.5])
    lines = show().stdout.splitlines()
    assert "  classes: box 50.0%, disc 25.0%" in lines
    with Image.open(image["mask_uri"]) as mask:
        discs = np.mean(np.asarray(mask) == 1)
    assert any(f"disc {discs:.1%}" in line for line in lines if line.startswith("label file: "))
