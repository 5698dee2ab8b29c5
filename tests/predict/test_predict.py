"""Predictions of a trained network on images of all kinds."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco

from pipeline.errors import DataError
from stages.models.segmenters.model_file import load_model_file
from tests.predict.conftest import picture, rows, write_model


def array(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The pixels of a picture, as its file holds them."""
    with Image.open(path) as opened:
        return np.asarray(opened)


Run = Callable[..., dict[str, Any]]
CPU = torch.device("cpu")


def test_each_image_gets_the_mask_of_the_network_at_its_own_size(
    run: Run, photos: Path, model: Path, out: Path
) -> None:
    found = run(photos)
    predictor = load_model_file(model, CPU)
    for name in ("a.png", "b.png", "b.jpg", "sub/a.png", "wide.bmp"):
        result = name if name.startswith("b.") else name.rpartition(".")[0]
        with Image.open(photos / name) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        with Image.open(out / "masks" / f"{result}.png") as mask:
            np.testing.assert_array_equal(np.asarray(mask), predictor.predict(pixels))
            assert (mask.getpalette() or [])[3:6] == [255, 0, 0]
        assert found[result]["status"] == "ok"
        assert (found[result]["height"], found[result]["width"]) == pixels.shape[:2]


def test_a_bad_image_is_a_row(run: Run, photos: Path, out: Path) -> None:
    row = run(photos)["damaged"]
    assert row["status"] == "rejected"
    assert "damaged" in row["error_message"] or "truncated" in row["error_message"]
    assert not (out / "masks/damaged.png").exists()


def test_only_bad_images_are_an_error(run: Run, photos: Path) -> None:
    with pytest.raises(DataError, match="none of 1 images can be read"):
        run(photos / "damaged.png")


def test_an_image_is_turned_by_its_exif_orientation(run: Run, tmp_path: Path, out: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(0, (40, 30)).save(tmp_path / "turned.jpg", exif=exif)
    assert (run(tmp_path / "turned.jpg")["turned"]["width"]) == 30
    assert array(out / "masks/turned.png").shape == (40, 30)


def test_all_kinds_of_files(run: Run, photos: Path, model: Path, out: Path) -> None:
    row = run(photos / "a.png", kinds=("masks", "overlays", "probabilities", "json"))["a"]
    mask = array(out / "masks/a.png")
    with np.load(out / "probabilities/a.npz") as stored:
        probabilities, classes = stored["probabilities"], stored["classes"]
    assert classes.tolist() == ["background", "disc", "box"]
    assert probabilities.shape == (3, 30, 40)
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=2e-3)
    np.testing.assert_allclose(row["mean_confidence"], probabilities.max(axis=0).mean(), atol=1e-3)
    assert array(out / "overlays/a.jpg").shape == (30, 40, 3)
    described = json.loads((out / "json/a.json").read_text())
    for entry in described["classes"]:
        np.testing.assert_array_equal(coco.decode(entry["rle"]), mask == entry["id"])
        assert entry["fraction"] == pytest.approx(float((mask == entry["id"]).mean()))
    assert [entry["id"] for entry in described["classes"]] == row["class_ids"]


def test_archives_lists_and_patterns(run: Run, photos: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(photos / "a.png", "x/one.png")
        archive.add(photos / "b.jpg", "two.jpg")
    (tmp_path / "list.txt").write_text("photos/wide.bmp\nphotos/sub/a.png\n")
    (tmp_path / "absolute.txt").write_text(f"{photos}/b.png\n")
    found = run(tmp_path / "shard.tar", tmp_path / "list.txt", tmp_path / "absolute.txt")
    assert {*found} == {"shard/x/one", "shard/two", "wide", "sub/a", "b"}
    found = run(f"{photos}/*.jpg", photos / "b.jpg")
    assert "b-2" in found
    assert len(found) == 6


def test_a_second_call_predicts_only_what_is_new(run: Run, photos: Path, out: Path) -> None:
    run(photos)
    before = {path: path.stat().st_mtime_ns for path in out.glob("masks/**/*.png")}
    picture(9).save(photos / "new.png")
    (out / "masks/a.png").unlink()
    found = run(photos)
    after = {path: path.stat().st_mtime_ns for path in out.glob("masks/**/*.png")}
    changed = {path.name for path, time in after.items() if before.get(path) != time}
    assert changed == {"new.png", "a.png"}
    assert found["new"]["status"] == "ok"
    assert len(found) == 7


def test_an_image_with_other_bytes_is_predicted_again(run: Run, photos: Path) -> None:
    before = run(photos)["a"]["image_id"]
    picture(7).save(photos / "a.png")
    assert run(photos)["a"]["image_id"] != before


def test_a_folder_of_other_things_is_left_alone(run: Run, photos: Path, out: Path) -> None:
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        run(photos)
    assert [path.name for path in out.iterdir()] == ["precious.txt"]


def test_another_model_does_not_mix_with_the_first(run: Run, photos: Path, model: Path) -> None:
    run(photos)
    write_model(model, seed=1)
    with pytest.raises(DataError, match="the folder holds other predictions: model"):
        run(photos)


def test_names_cannot_lead_out_of_the_folder(run: Run, photos: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.add(photos / "a.png", "../../escaped.png")
        archive.add(photos / "b.png", "/absolute.png")
    run(tmp_path / "evil.tar")
    assert {path.name for path in tmp_path.iterdir()} >= {"evil.tar", "out"}
    assert not (tmp_path.parent / "escaped.png").exists()
    assert not Path("/absolute.png").exists()


@pytest.mark.parametrize("what", ["gone.png", "gone/*.png", "ftp://host/a.png"])
def test_what_is_not_there_is_named(run: Run, what: str) -> None:
    with pytest.raises(DataError, match="name an image, a folder") as caught:
        run(what)
    assert caught.value.where == what


def test_frames_of_a_video(run: Run, tmp_path: Path, model: Path, out: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for shade in range(0, 250, 25):
            pixels = np.full((32, 48, 3), shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    found = run(tmp_path / "clip.mp4", every=3)
    assert [*found] == [f"clip/{number:06d}" for number in (0, 3, 6, 9)]
    (out / "masks/clip/000006.png").unlink()
    run(tmp_path / "clip.mp4", every=3)
    assert array(out / "masks/clip/000006.png").shape == (32, 48)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    predictor = load_model_file(model, CPU)
    for number in (0, 3, 6, 9):
        mask = array(out / f"masks/clip/{number:06d}.png")
        np.testing.assert_array_equal(mask, predictor.predict(decoded[number]))


def test_a_damaged_video_is_named(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match="no video that can be read"):
        run(tmp_path / "clip.mp4")


def test_rows_of_a_cut_journal_are_done_again(run: Run, photos: Path, out: Path) -> None:
    whole = run(photos)
    table = (out / "predictions.parquet").read_bytes()
    lines = [json.dumps({**row}) for row in whole.values()]
    (out / "predictions.parquet").unlink()
    (out / ".maskmill-journal.jsonl").write_text("\n".join([*lines[:2], lines[2][:30]]))
    assert run(photos) == whole
    assert (out / "predictions.parquet").read_bytes() == table
    assert rows(out) == whole
