"""Which edits draw which files of the report again; none of them scores anything."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pytest

from tests.finished_run import not_fresh, stamps, written
from tests.report.html import Page

Call = Callable[..., CompletedProcess[str]]
Write = Callable[..., Path]
PAGE, LABELS, PREDICTIONS = "index.html", "labels-clip.png", "predictions-test.png"
PARTS = {
    PAGE: "part-page.parquet",
    LABELS: "part-labels-clip.parquet",
    PREDICTIONS: "part-predictions-test.parquet",
}
COLORS = [
    {"name": "background", "color": "#000000", "concepts": []},
    {"name": "disc", "color": "#00ff00"},
    {"name": "box", "color": "#0000ff", "concepts": ["box", "square"]},
]


@pytest.fixture
def drawn(call: Call, manifests: Path, artifacts: Path) -> Callable[..., set[str]]:
    """Runs, and returns the files of the report that were drawn; nothing else may be done."""

    def run(*overrides: str) -> set[str]:
        before, drawings = stamps(manifests), stamps(artifacts)
        call("run", *overrides)
        parts = {name for name in written(before, manifests) if name != ".lock"}
        files = written(drawings, artifacts)
        assert {name.partition("/")[0] for name in files} <= {"report"}
        found = {name.removeprefix("report/") for name in files}
        assert parts == {f"report/{PARTS[name]}" for name in found}
        assert not_fresh(*overrides) == {}
        return found

    return run


def test_a_finished_report_is_not_drawn_again(drawn: Callable[..., set[str]]) -> None:
    assert drawn() == set()


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("train.variants.plain.title=Only labels", "Only labels"),
        ("train.variants.web.title=Web images", "Web images on test"),
        ("report.notes=[All arms train for one step.]", "All arms train for one step."),
        ("pseudolabel.batch_size=3", "Run tiny"),
    ],
)
def test_an_edited_text_redraws_the_page(
    override: str, text: str, drawn: Callable[..., set[str]], artifacts: Path
) -> None:
    assert drawn(override) == (set() if "batch_size" in override else {PAGE})
    assert text in Page(artifacts / "report/index.html").texts


def test_a_note_is_printed_too(call: Call) -> None:
    result = call("run", "report.notes=[All arms train for one step.]")
    assert "note: All arms train for one step.\n" in result.stdout


def test_a_color_redraws_pictures_and_page(
    values: dict[str, Any], write: Write, drawn: Callable[..., set[str]], artifacts: Path
) -> None:
    page, picture = (artifacts / "report" / name for name in (PAGE, PREDICTIONS))
    before = picture.read_bytes()
    write(values, classes=COLORS)
    assert drawn() == {PAGE, LABELS, PREDICTIONS}
    assert picture.read_bytes() != before
    assert 'style="background: #00ff00"' in page.read_text()
    write(values)
    assert drawn() == {PAGE, LABELS, PREDICTIONS}
    assert picture.read_bytes() == before


def test_a_variant_that_is_moved_redraws_what_shows_it(
    values: dict[str, Any], write: Write, drawn: Callable[..., set[str]], artifacts: Path
) -> None:
    variants = values["train"]["variants"]
    values["train"]["variants"] = dict(reversed(variants.items()))
    write(values)
    assert drawn() == {PAGE, PREDICTIONS}
    texts = Page(artifacts / "report" / PAGE).texts
    assert "mean IoU, %; gain over web on test" in texts
    assert "image, truth, web, plain" in texts


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        (PAGE, "page"),
        (LABELS, "picture of labels of clip"),
        (PREDICTIONS, "picture of predictions on test"),
    ],
)
@pytest.mark.parametrize("what", ["file", "part"])
def test_a_lost_file_comes_back_and_nothing_else_is_done(
    what: str, name: str, unit: str, call: Call, manifests: Path, artifacts: Path
) -> None:
    file, part = artifacts / "report" / name, manifests / "report" / PARTS[name]
    content = file.read_bytes()
    before, drawings = stamps(manifests), stamps(artifacts)
    (file if what == "file" else part).unlink()
    assert not_fresh() == {"report": [unit]}
    stderr = call("run").stderr
    assert (f"{name} is gone: {unit}" if what == "file" else f"not done yet: {unit}") in stderr
    assert file.read_bytes() == content
    assert written(before, manifests) - {".lock"} == {f"report/{PARTS[name]}"}
    assert written(drawings, artifacts) == {f"report/{name}"}
    assert not_fresh() == {}


@pytest.mark.parametrize("name", [PAGE, LABELS, PREDICTIONS])
def test_a_damaged_file_is_found_and_drawn_again(
    name: str, call: Call, outcome: Call, artifacts: Path
) -> None:
    file = artifacts / "report" / name
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    assert "not the bytes that were written" in outcome("verify").stdout
    call("verify --rerun")
    assert file.read_bytes() == content


def test_a_report_that_was_never_drawn_is_missed(
    call: Call, outcome: Call, manifests: Path, artifacts: Path
) -> None:
    """New scores and an old page: whatever came in between, the page is drawn again."""
    page, before = artifacts / "report" / PAGE, stamps(manifests)
    old, picture = page.read_text(), artifacts / "report" / PREDICTIONS
    picture.unlink()
    picture.mkdir()  # so that the report fails after the scores were committed
    assert outcome("run", "train.steps=2").returncode == 1
    assert any(name.startswith("metrics/part-score-") for name in written(before, manifests))
    picture.rmdir()
    call("run", "train.steps=2")
    assert page.read_text() != old
    assert picture.is_file()
    assert not_fresh("train.steps=2") == {}


def test_a_picture_of_a_labeler_that_the_config_lacks_is_garbage(
    values: dict[str, Any], write: Write, call: Call, manifests: Path, artifacts: Path
) -> None:
    del values["pseudolabel"]
    values["train"]["variants"] = {"plain": values["train"]["variants"]["plain"]}
    write(values)
    call("run")
    call("gc")
    assert {path.name for path in (artifacts / "report").iterdir()} == {PAGE, PREDICTIONS}
    rows = pd.read_parquet(manifests / "report")
    assert set(rows["file"]) == {PAGE, PREDICTIONS}
    assert Page(artifacts / "report" / PAGE).images == [PREDICTIONS]
    assert not_fresh() == {}


def test_labels_of_a_longer_vocabulary_do_not_break_the_page(
    values: dict[str, Any], write: Write, call: Call, artifacts: Path
) -> None:
    """`--only` writes the page from scores of three classes, with a vocabulary of two."""
    del values["train"]
    write(values, classes=COLORS[:2])
    call("run --only report")
    assert "disc" in Page(artifacts / "report" / PAGE).texts
