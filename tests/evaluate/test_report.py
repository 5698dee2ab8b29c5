import re
from collections.abc import Callable
from html.parser import HTMLParser
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

Call = Callable[..., CompletedProcess[str]]
WriteConfig = Callable[..., Path]
SCRIPT = "<script>alert(1)</script>"


class Page(HTMLParser):
    """What a browser would make of the report."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.images: list[str] = []
        self.texts: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "img":
            self.images.append(dict(attrs)["src"] or "")

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image)


@pytest.fixture
def report(artifacts: Path) -> Path:
    return artifacts / "report"


def test_the_page_shows_every_table_and_every_picture(
    values: dict[str, Any], write_config: WriteConfig, call: Call, report: Path
) -> None:
    result = call("run", write_config(values))
    assert result.returncode == 0, result.stderr
    page = Page(report / "index.html")
    assert page.images == ["labels-clip.png", "predictions-test.png"]
    assert {path.name for path in report.iterdir()} == {"index.html", *page.images}
    # Image, label and confidence of two web images, 160 px each, 4 px apart.
    assert pixels(report / "labels-clip.png").shape == (120, 6 * 160 + 5 * 4, 3)
    # Image, truth, and a prediction of each variant.
    assert pixels(report / "predictions-test.png").shape == (120, 4 * 160 + 3 * 4, 3)
    for text in (
        "Run tiny",
        "Labeled only",
        "val mIoU",
        "clip",
        "disc",
        "image, truth, plain, web",
    ):
        assert text in page.texts
    _, title, printed = result.stdout.partition("mean IoU, %; gain over Labeled only on test")
    assert title in page.texts
    for line in printed.splitlines():
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        assert all(cell in page.texts for cell in cells), cells


def test_the_page_shows_where_the_pixels_of_each_class_went(
    values: dict[str, Any],
    write_config: WriteConfig,
    call: Call,
    manifests: Path,
    artifacts: Path,
) -> None:
    values["train"]["seeds"] = [0, 1]
    values["pseudolabel"]["roles"] = ["ood", "test"]
    config = write_config(values)
    assert call("run", config).returncode == 0
    cells = pd.read_parquet(manifests / "confusion")
    page = (artifacts / "report/index.html").read_text(encoding="utf-8")
    shown = [piece.partition("</details>")[0] for piece in page.split("<details")[1:]]
    titles = [re.search("<summary>(.*)</summary>", one) for one in shown]
    expected = ["Labeled only on test, 2 seeds", "web on test, 2 seeds", "clip on test"]
    assert [title.group(1) for title in titles if title] == expected
    names = ["background", "disc", "box"]
    for variant, piece in zip(("plain", "web", "clip"), shown, strict=True):
        head, *lines = piece.split("<tr><th>")[1:]
        assert re.findall("<span>(.*?)</span>", head) in (names, [*names, "none"])
        own = cells[(cells["variant"] == variant) & (cells["split"] == "test")]
        pixels = own.pivot_table(
            index="true_id", columns="predicted_id", values="pixels", aggfunc="sum"
        ).to_numpy()
        for index, (name, line) in enumerate(zip(names, lines, strict=True)):
            texts = re.findall("<td([^>]*)>([^<]*)</td>", line)
            assert line.startswith(f"{name}</th>")
            shares = 100 * pixels[index] / pixels[index].sum()
            for place, ((marks, text), share) in enumerate(zip(texts, shares, strict=False)):
                assert int(text or 0) == round(share)
                assert ('class="right"' in marks) == (place == index)


def test_a_class_that_does_not_occur_has_no_shares(
    values: dict[str, Any], write_config: WriteConfig, call: Call, data: Path, artifacts: Path
) -> None:
    mask = data / "test/masks/0.png"
    Image.fromarray(np.where(pixels(mask) == 1, 0, pixels(mask)).astype(np.uint8)).save(mask)
    assert call("run", write_config(values)).returncode == 0
    page = (artifacts / "report/index.html").read_text(encoding="utf-8")
    assert '<tr><th>disc</th><td colspan="3">does not occur</td></tr>' in page


def test_the_prediction_sheet_shows_image_and_truth(
    values: dict[str, Any], write_config: WriteConfig, call: Call, data: Path, report: Path
) -> None:
    call("run", write_config(values))
    sheet = pixels(report / "predictions-test.png")
    image = images.fit(pixels(data / "test/images/0.png"), 160)
    mask = pixels(data / "test/masks/0.png")
    palette = np.zeros((256, 3), np.uint8)
    palette[1:3] = [[255, 0, 0], [0, 0, 255]]
    assert np.array_equal(sheet[:, :160], image)
    assert np.array_equal(sheet[:, 164:324], overlaid(image, mask, palette))


def test_hostile_names_are_text(
    values: dict[str, Any], write_config: WriteConfig, call: Call, data: Path, report: Path
) -> None:
    for role in ("ood", "test"):
        for kind in ("images", "masks") if role == "test" else ("images",):
            old = data / role / kind / "0.png"
            (new := old.parent / f"{SCRIPT}.png").parent.mkdir()
            old.rename(new)
    values["train"]["variants"]["plain"]["title"] = SCRIPT
    classes = [
        {"name": "background", "color": "#000000", "concepts": []},
        {"name": f'"{SCRIPT}', "color": "#ff0000", "concepts": ["disc"]},
        {"name": "box'>", "color": "#0000ff", "concepts": ["box"]},
    ]
    result = call("run", write_config(values, classes=classes, name=f"<b>{SCRIPT}"))
    assert result.returncode == 0, result.stderr
    page = Page(report / "index.html")
    assert not page.tags & {"script", "b"}
    assert {SCRIPT, f'"{SCRIPT}', "box'>"} <= set(page.texts)
    assert SCRIPT in result.stdout
    assert all((report / name).is_file() for name in page.images)


def test_labels_of_images_that_are_gone_are_not_drawn(
    values: dict[str, Any], write_config: WriteConfig, call: Call, data: Path, report: Path
) -> None:
    values["ingest"]["shard_size"] = 1  # so that the image leaves a part behind
    config = write_config(values)
    call("run", config)
    (data / "ood/images/1.png").unlink()
    result = call("run", config)
    assert result.returncode == 0, result.stderr
    assert "Stored labels of clip: 1 random images" in Page(report / "index.html").texts
    assert pixels(report / "labels-clip.png").shape == (120, 3 * 160 + 2 * 4, 3)


def test_without_labels_to_draw_there_is_no_picture(
    values: dict[str, Any], write_config: WriteConfig, call: Call, report: Path
) -> None:
    del values["train"]
    values["pseudolabel"]["roles"] = []
    result = call("run", write_config(values))
    assert result.returncode == 0, result.stderr
    assert Page(report / "index.html").images == []
