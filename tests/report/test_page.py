"""The contents of the page and its pictures."""

import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image

from pipeline.images import images
from pipeline.images.overlay import overlaid
from tests.finished_run import CLASSES
from tests.report.html import Page

Call = Callable[..., CompletedProcess[str]]
Write = Callable[..., Path]
SCRIPT = "<script>alert(1)</script>"


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image)


@pytest.fixture
def report(artifacts: Path) -> Path:
    return artifacts / "report"


def test_the_page_shows_every_table_and_every_picture(call: Call, report: Path) -> None:
    page = Page(report / "index.html")
    assert page.images == ["labels-clip.png", "predictions-test.png"]
    assert {path.name for path in report.iterdir()} == {"index.html", *page.images}
    # Image, label and confidence of three images, two in a row, 160 px each, 4 px apart.
    assert pixels(report / "labels-clip.png").shape == (2 * 120 + 4, 6 * 160 + 5 * 4, 3)
    # Image, truth, and a prediction of each variant.
    assert pixels(report / "predictions-test.png").shape == (120, 4 * 160 + 3 * 4, 3)
    for text in (
        "Run tiny",
        "From config.yaml, vocabulary shapes.",
        "Labeled only",
        "val mIoU",
        "clip",
        "disc",
        "Stored labels of clip: 3 random images",
        "Predictions on test images",
        "image, truth, plain, web",
    ):
        assert text in page.texts
    printed = call("results").stdout
    _, title, printed = printed.partition("mean IoU, %; gain over Labeled only on test")
    assert title in page.texts
    for line in printed.splitlines():
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        assert all(cell in page.texts for cell in cells), cells


def test_the_manifest_lists_the_files_of_the_report(manifests: Path, report: Path) -> None:
    rows = pd.read_parquet(manifests / "report").set_index("file")
    assert set(rows.index) == {path.name for path in report.iterdir()}
    kinds = {"index.html": "page", "labels-clip.png": "labels"}
    assert rows["kind"].to_dict() == {**kinds, "predictions-test.png": "predictions"}
    assert rows.loc["index.html", "title"] == "Run tiny"


def test_the_page_shows_where_the_pixels_of_each_class_went(
    values: dict[str, Any], write: Write, call: Call, manifests: Path, report: Path
) -> None:
    values["train"]["seeds"] = [0, 1]
    write(values)
    call("run")
    cells = pd.read_parquet(manifests / "confusion")
    page = (report / "index.html").read_text(encoding="utf-8")
    shown = [piece.partition("</details>")[0] for piece in page.split("<details")[1:]]
    titles = [re.search("<summary>(.*)</summary>", one) for one in shown]
    expected = ["Labeled only on test, 2 seeds", "web on test, 2 seeds", "clip on test"]
    assert [title.group(1) for title in titles if title] == expected
    for variant, piece in zip(("plain", "web", "clip"), shown, strict=True):
        head, *lines = piece.split("<tr><th>")[1:]
        assert re.findall("<span>(.*?)</span>", head) in ([*CLASSES], [*CLASSES, "none"])
        own = cells[(cells["variant"] == variant) & (cells["split"] == "test")]
        counts = own.pivot_table(
            index="true_id", columns="predicted_id", values="pixels", aggfunc="sum"
        ).to_numpy()
        for index, (name, line) in enumerate(zip(CLASSES, lines, strict=True)):
            texts = re.findall("<td([^>]*)>([^<]*)</td>", line)
            assert line.startswith(f"{name}</th>")
            assert len(texts) in (len(CLASSES), len(CLASSES) + 1)
            shares = 100 * counts[index] / counts[index].sum()
            for place, ((marks, text), share) in enumerate(zip(texts, shares, strict=False)):
                assert int(text or 0) == round(share)
                assert ('class="right"' in marks) == (place == index)


def test_a_class_that_does_not_occur_has_no_shares(call: Call, data: Path, report: Path) -> None:
    mask = data / "test/masks/0.png"
    Image.fromarray(np.where(pixels(mask) == 1, 0, pixels(mask)).astype(np.uint8)).save(mask)
    call("run")
    page = (report / "index.html").read_text(encoding="utf-8")
    assert '<tr><th>disc</th><td colspan="3">does not occur</td></tr>' in page


def test_the_prediction_sheet_shows_image_and_truth(data: Path, report: Path) -> None:
    sheet = pixels(report / "predictions-test.png")
    image = images.fit(pixels(data / "test/images/0.png"), 160)
    mask = pixels(data / "test/masks/0.png")
    palette = np.zeros((256, 3), np.uint8)
    palette[1:3] = [[255, 0, 0], [0, 0, 255]]
    assert np.array_equal(sheet[:, :160], image)
    assert np.array_equal(sheet[:, 164:324], overlaid(image, mask, palette))


def test_hostile_names_are_text(
    values: dict[str, Any], write: Write, call: Call, data: Path, report: Path
) -> None:
    for role in ("ood", "test"):
        for kind in ("images", "masks") if role == "test" else ("images",):
            old = data / role / kind / "0.png"
            (new := old.parent / f"{SCRIPT}.png").parent.mkdir()
            old.rename(new)
    values["train"]["variants"]["plain"]["title"] = SCRIPT
    values["report"]["notes"] = [SCRIPT]
    classes = [
        {"name": "background", "color": "#000000", "concepts": []},
        {"name": f'"{SCRIPT}', "color": "#ff0000", "concepts": ["disc"]},
        {"name": "box'>", "color": "#0000ff", "concepts": ["box"]},
    ]
    write(values, classes=classes, name=f"<b>{SCRIPT}")
    result = call("run")
    page = Page(report / "index.html")
    assert f"From config.yaml, vocabulary <b>{SCRIPT}." in page.texts
    assert not page.tags & {"script", "b"}
    assert {SCRIPT, f'"{SCRIPT}', "box'>"} <= set(page.texts)
    assert SCRIPT in result.stdout
    assert all((report / name).is_file() for name in page.images)


def test_labels_of_images_that_are_gone_are_not_drawn(
    values: dict[str, Any], write: Write, call: Call, data: Path, report: Path
) -> None:
    values["ingest"]["shard_size"] = 1  # so that the image leaves a part behind
    write({**values, "run": "small-shards"})
    call("run")
    (data / "ood/images/1.png").unlink()
    call("run")
    own = report.parents[1] / "small-shards/report"
    assert "Stored labels of clip: 2 random images" in Page(own / "index.html").texts
    assert pixels(own / "labels-clip.png").shape == (120, 6 * 160 + 5 * 4, 3)


def test_without_labels_to_draw_there_is_no_picture(
    values: dict[str, Any], write: Write, call: Call, report: Path
) -> None:
    del values["train"]
    values["pseudolabel"]["roles"] = []
    write(values)
    call("run")
    assert Page(report / "index.html").images == []
    call("gc")
    assert [path.name for path in report.iterdir()] == ["index.html"]


def test_without_evaluate_there_is_no_report_and_with_it_there_is(
    values: dict[str, Any], write: Write, call: Call
) -> None:
    del values["report"]
    write(values)
    assert "report: nothing to do, 3 fresh" in call("run").stderr
    del values["evaluate"]
    write(values)
    assert "report" not in call("run").stderr
