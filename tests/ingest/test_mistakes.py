from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

Ingest = Callable[..., CompletedProcess[str]]
Rows = Callable[[], pd.DataFrame]
Written = Callable[[], set[int]]


def test_a_bad_label_file_stops_the_run_until_it_is_corrected(
    ingest: Ingest, written: Written, data: Path
) -> None:
    good = (data / "labeled/masks/0.png").read_bytes()
    for number in range(2):
        Image.fromarray(np.full((24, 32), 9, np.uint8)).save(data / f"labeled/masks/{number}.png")
    done = ingest()
    assert done.returncode == 1
    what = (
        "class id 9 is not in the vocabulary; use class ids 0 to 2 and 255 (= ignore), "
        "or set `label_scheme` of the source to a scheme that has it\n"
    )
    masks = [f"{data}/labeled/masks/{number}.png" for number in range(2)]
    assert done.stderr.endswith(f"error: {masks[0]}: {what}error: {masks[1]}: {what}")
    assert written() == set()
    for number in range(2):
        (data / f"labeled/masks/{number}.png").write_bytes(good)
    assert ingest().returncode == 0


def test_mistakes_end_with_one_line(
    ingest: Ingest, tiny: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    config = f"{tmp_path}/config.yaml: ingest"
    sources = tiny["ingest"]["sources"]

    def fails_with(text: str, **vocabulary: Any) -> None:
        done = ingest(**vocabulary)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr == f"error: {text}\n"

    sources["ood"]["source"]["images"] = "web"
    fails_with(
        f"{config}.sources.ood.source.images: {data}/web: no such folder; "
        "create it, correct the path, or set `data` to the folder that it starts from"
    )
    sources["ood"]["source"]["images"] = "ood/images"

    del sources["val"]["source"]["masks"]
    fails_with(
        f"{config}.sources.val.source: images of role val need label files; "
        "name their folder with `masks: ...`, or add a column `mask_uri` to the list"
    )
    sources["val"]["source"]["masks"] = "val/masks"

    sources["val"]["label_scheme"] = "voc"
    fails_with(
        f"{config}.sources.val.label_scheme: vocabulary 'shapes' has no scheme 'voc'; "
        "it has: none; leave the key out"
    )
    fails_with(
        f"{config}.sources.val.label_scheme: vocabulary 'shapes' has no scheme 'voc'; "
        "it has: camvid, coco",
        label_schemes={"camvid": {1: "disc"}, "coco": {1: "disc"}},
    )
    fails_with(
        f"{tmp_path}/vocabulary.yaml: these keys are wrong; "
        "label_schemes.voc.1 names 'person', which is not a class; "
        "use one of: background, disc, box, ignore",
        label_schemes={"voc": {1: "person"}},
    )
    del sources["val"]["label_scheme"]

    (tmp_path / "ids.txt").write_text("0\n7\n")
    sources["ood"]["source"]["ids"] = "ids.txt"
    fails_with(
        f"{config}.sources.ood.source.ids: {tmp_path}/ids.txt: "
        f"line 2: no image '7' in {data}/ood/images; correct the line or remove it"
    )
    del sources["ood"]["source"]["ids"]

    extra = data / "val/images/1.png"
    Image.new("RGB", (32, 24), "green").save(extra)
    fails_with(
        f"{config}.sources.val.source: images of role val need label files, "
        f"but 1 of 2 have none, first: {extra}; "
        "add its label file to `masks`, or name the other images in `ids: FILE`"
    )
    extra.unlink()

    Image.new("L", (32, 24)).save(data / "val/masks/1.png")
    Image.new("L", (24, 32)).save(data / "val/masks/0.png")
    fails_with(
        f"{config}.sources.val.source.masks: {data}/val/masks: 1 mask without an image, "
        f"first: {data}/val/masks/1.png; add the image to {data}/val/images, or remove the mask"
    )
    (data / "val/masks/1.png").unlink()
    done = ingest()
    assert done.stderr.splitlines()[-1] == (
        f"error: {data}/val/masks/0.png: the mask is 24 x 32 pixels "
        f"but its image {data}/val/images/0.png is 32 x 24; use a mask of the same size"
    )


def test_the_shard_size_of_a_run_is_fixed(
    ingest: Ingest, tiny: dict[str, Any], tmp_path: Path
) -> None:
    tiny["ingest"]["shard_size"] = 64  # all in one shard, so that no row shows it
    ingest()
    tiny["ingest"]["shard_size"] = 128
    done = ingest()
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {tmp_path}/config.yaml: ingest.shard_size: 128, "
        "but this run was created with shards of 64 images; "
        "set it back, or start a new run: --set run=NAME\n"
    )
    tiny["run"] = "other"
    assert ingest().returncode == 0


def test_a_damaged_part_is_named_and_written_again(
    ingest: Ingest, manifest_folder: Path, rows: Rows
) -> None:
    ingest()
    path = manifest_folder / "part-00001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    done = ingest()
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {path}: damaged manifest part; make it again with: maskmill verify --rerun\n"
    )
    path.unlink()
    assert ingest().returncode == 0
    assert set(rows().status) == {"ok"}
