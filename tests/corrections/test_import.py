"""Labels that were corrected in another tool become labeled images of the run."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from tests.export.conftest import config, masks, run

__all__ = ["config", "run"]
Maskmill = Callable[..., CompletedProcess[str]]


@pytest.fixture
def out(run: Path, maskmill: Maskmill, tmp_path: Path) -> Callable[[str], Path]:
    """Exports the web images' labels in a format."""

    def to(form: str) -> Path:
        folder = tmp_path / "away"
        done = maskmill("export", "labels", "--config", run, "--to", form, "--out", folder)
        assert done.returncode == 0, done.stderr
        return folder

    return to


def edit_png(path: Path) -> None:
    """A person paints a corner as a dog."""
    with Image.open(path) as picture:
        changed = picture.copy()
    changed.paste(2, (0, 0, 9, 7))
    changed.save(path)


def rows(tmp_path: Path) -> pd.DataFrame:
    return pd.read_parquet(tmp_path / "workspace/manifests/odd/images")


def test_a_corrected_web_image_becomes_a_labeled_one(
    run: Path, out: Callable[[str], Path], maskmill: Maskmill, tmp_path: Path
) -> None:
    edit_png(out("png") / "masks/ring.png")
    done = maskmill("import", tmp_path / "away", "--config", run)
    assert done.returncode == 0, done.stderr
    assert "5 labels as they were exported, left as they are" in done.stderr
    where = "as the labeled source corrected-away"
    assert done.stdout == f"1 corrected image added to {run} {where}\n"
    done = maskmill("run", "ingest", "--config", run)
    assert done.returncode == 0, done.stderr
    images = rows(tmp_path)
    image_id = images[images.uri.str.endswith("ood/images/ring.png")].image_id.iloc[0]
    used = images[(images.image_id == image_id) & (images.status == "ok")].iloc[0]
    assert (used.role, used.source) == ("labeled", "corrected-away")
    expected = masks()["ring"]
    expected[:7, :9] = 2
    with Image.open(used.mask_uri) as picture:
        assert np.array_equal(np.array(picture), expected)
    told = pd.read_csv(tmp_path / "corrections/away/images.csv").iloc[0]
    assert (told["name"], told["labeler"], told["tool"]) == ("ring", "files", "png")
    again = maskmill("import", tmp_path / "away", "--config", run)
    assert "nothing to do, it was imported before" in again.stdout


def test_all_labels_may_count_as_looked_at(
    run: Path, out: Callable[[str], Path], maskmill: Maskmill, tmp_path: Path
) -> None:
    done = maskmill("import", out("png"), "--config", run, "--all")
    assert done.returncode == 0, done.stderr
    assert maskmill("run", "ingest", "--config", run).returncode == 0
    images = rows(tmp_path)
    assert (images[images.status == "ok"].source == "corrected-away").sum() == 6


@pytest.mark.parametrize("form", ["unimatch", "mmseg", "fiftyone", "coco", "cvat"])
def test_what_was_not_changed_is_seen_as_such(
    form: str, run: Path, out: Callable[[str], Path], maskmill: Maskmill
) -> None:
    done = maskmill("import", out(form), "--config", run)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "no label was corrected (6 are as they were exported)" in done.stderr


def test_cvats_own_export_comes_back(
    run: Path, out: Callable[[str], Path], maskmill: Maskmill, tmp_path: Path
) -> None:
    text = (out("cvat") / "annotations.xml").read_text()
    box = '<box label="hat" xtl="2" ytl="3" xbr="12" ybr="8" z_order="9"></box>'
    start = text.index("</image>", text.index("empty"))
    (tmp_path / "back.xml").write_text(text[:start] + box + text[start:])
    done = maskmill(
        *("import", tmp_path / "away", "--config", run, "--annotations", tmp_path / "back.xml"),
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "corrections/away/masks/empty.png") as picture:
        mask = np.array(picture)
    assert (mask[3:8, 2:12] == 3).all()
    assert (mask == 3).sum() == 50


def test_label_studios_own_export_comes_back(
    run: Path, out: Callable[[str], Path], maskmill: Maskmill, tmp_path: Path
) -> None:
    """A person accepted some predictions as annotations, and removed a region of one."""
    tasks = json.loads((out("label_studio") / "tasks.json").read_text())
    done = [task for task in tasks if task["data"]["name"] in ("ring", "full")]
    for task in done:
        task["annotations"] = [{"id": 1, "result": task["predictions"][0]["result"]}]
    for task in tasks:
        task.setdefault("annotations", [])  # as Label Studio writes it
    ring = next(task for task in done if task["data"]["name"] == "ring")
    ring["annotations"][0]["result"] = ring["annotations"][0]["result"][:1]
    (tmp_path / "back.json").write_text(json.dumps(tasks))
    call = ("import", tmp_path / "away", "--config", run)
    done_ = maskmill(*call, "--annotations", tmp_path / "back.json")
    assert done_.returncode == 0, done_.stderr
    assert "1 labels as they were exported" in done_.stderr
    with Image.open(tmp_path / "corrections/away/masks/ring.png") as picture:
        assert np.array_equal(np.array(picture), np.where(masks()["ring"] == 1, 1, 0))


@pytest.mark.parametrize("form", ["labelme", "yolo"])
def test_polygons_come_back_and_their_borders_do_not_count(
    form: str, run: Path, out: Callable[[str], Path], maskmill: Maskmill, tmp_path: Path
) -> None:
    out(form)
    done = maskmill("import", tmp_path / "away", "--config", run)
    assert done.returncode in (0, 1)
    found = {path.stem for path in (tmp_path / "corrections/away/masks").glob("*.png")}
    assert not {"ring", "full", "empty", "ignored"} & found


def test_the_rest_of_the_config_stays_as_it_is(
    run: Path, out: Callable[[str], Path], maskmill: Maskmill
) -> None:
    text = f"# My run.\n{run.read_text()}"
    run.write_text(text)
    edit_png(out("png") / "masks/ring.png")
    assert maskmill("import", run.parent / "away", "--config", run).returncode == 0
    changed = run.read_text()
    added = [line for line in changed.splitlines() if line not in text.splitlines()]
    assert len(added) == 2  # and `role: labeled`, as others have it
    assert changed.startswith("# My run.\n")
    before, after = yaml.safe_load(text), yaml.safe_load(changed)
    assert after["ingest"]["sources"].pop("corrected-away")["role"] == "labeled"
    assert after == before


def test_a_config_in_another_style_gets_lines_to_paste(
    run: Path, out: Callable[[str], Path], maskmill: Maskmill
) -> None:
    values = yaml.safe_load(run.read_text())
    edit_png(out("png") / "masks/ring.png")
    flow = yaml.safe_dump(values, default_flow_style=True)
    run.write_text(flow)
    done = maskmill("import", run.parent / "away", "--config", run)
    assert done.returncode == 0, done.stderr
    assert run.read_text() == flow
    assert "add this to `ingest.sources`" in done.stderr
    assert done.stdout.startswith("corrected-away:  # corrected in another tool\n  role: labeled\n")


@pytest.mark.parametrize(
    ("form", "damage", "text"),
    [
        ("png", lambda folder: (folder / "maskmill.csv").unlink(), "provenance is missing"),
        ("png", lambda folder: (folder / ".maskmill.json").unlink(), "no exported labels of a run"),
        (
            "png",
            lambda folder: (folder / "masks/ring.png").write_bytes(b"x"),
            "save it as a PNG of class ids",
        ),
        ("nnunet", lambda folder: None, "labels of the format nnunet do not come back; export"),
        (
            "coco",
            lambda folder: (folder / "annotations/instances_train.json").write_text("{"),
            "instances_train.json",
        ),
    ],
)
def test_what_cannot_come_back_is_one_line(
    form: str,
    damage: Callable[[Path], object],
    text: str,
    run: Path,
    out: Callable[[str], Path],
    maskmill: Maskmill,
) -> None:
    damage(out(form))
    before = run.read_text()
    done = maskmill("import", run.parent / "away", "--config", run)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert text in done.stderr
    assert run.read_text() == before
