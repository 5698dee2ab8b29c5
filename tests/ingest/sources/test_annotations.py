"""Annotated images through the command line: drawn once, anew after a change, never by halves."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from pipeline.files import locations
from pipeline.records import manifest, tables
from tests.ingest.sources.annotated import CLASSES, HEIGHT, PENTAGON, WIDTH, add_image, write_json
from tests.ingest.sources.test_coco_json import annotation, instances
from tests.ingest.sources.test_cvat import image as cvat_image
from tests.ingest.sources.test_cvat import polygon as cvat_polygon
from tests.ingest.sources.test_cvat import write as write_cvat
from tests.ingest.sources.test_label_studio import polygon as studio_polygon
from tests.ingest.sources.test_label_studio import task
from tests.ingest.sources.test_labelme import labelme, pairs, shape
from tests.ingest.sources.test_object_stores import upload
from tests.ingest.sources.test_yolo import line
from tests.pipeline import killing
from tests.s3_server import forget_clients

Maskmill = Callable[..., CompletedProcess[str]]
Values = dict[str, Any]
NAMES = ("a.png", "b.png")


def write_coco(data: Path) -> Values:
    regions = [annotation([PENTAGON], image=number) for number in (1, 2)]
    write_json(data / "a.json", instances(*regions, names=NAMES))
    return {"name": "coco_json", "annotations": "a.json", "images": "images"}


def write_yolo(data: Path) -> Values:
    (data / "labels").mkdir()
    (data / "data.yaml").write_text("train: images\nnames: [car]\n")
    for name in ("a", "b"):
        (data / f"labels/{name}.txt").write_text(line(0, PENTAGON))
    return {"name": "yolo", "dataset": "."}


def write_labelme(data: Path) -> Values:
    for name in ("a", "b"):
        own = labelme(shape(pairs(PENTAGON)), image=f"{name}.png")
        write_json(data / f"images/{name}.json", own)
    return {"name": "labelme", "images": "images"}


def write_cvat_file(data: Path) -> Values:
    write_cvat(data / "a.xml", *(cvat_image(cvat_polygon(PENTAGON), name=name) for name in NAMES))
    return {"name": "cvat", "annotations": "a.xml", "images": "images"}


def write_label_studio(data: Path) -> Values:
    write_json(data / "a.json", [task(studio_polygon(PENTAGON), image=name) for name in NAMES])
    return {"name": "label_studio", "annotations": "a.json", "images": "images"}


def write_panoptic(data: Path) -> Values:
    ids = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    ids[10:20, 10:20, 1] = 5
    (data / "segments").mkdir()
    Image.fromarray(ids).save(data / "segments/a.png")
    info = [{"id": 5 * 256, "category_id": 3}]
    one = {"file_name": "a.png", "segments_info": info}
    values = instances(*({**one, "image_id": number} for number in (1, 2)), names=NAMES)
    write_json(data / "a.json", values)
    names = {"name": "coco_panoptic", "annotations": "a.json", "segments": "segments"}
    return {**names, "images": "images", "rest": "background"}


WRITERS = [
    *(write_coco, write_yolo, write_labelme, write_cvat_file, write_label_studio, write_panoptic),
]


class Project:
    """A config of one source of two annotated images."""

    def __init__(self, folder: Path, maskmill: Maskmill) -> None:
        self.folder, self.maskmill = folder, maskmill
        self.data, self.config = folder / "data", folder / "config.yaml"
        self.drawn = folder / "workspace/artifacts/street/drawn_labels"
        for number, name in enumerate(NAMES):
            add_image(self.data / "images" / name)
            pixels = np.full((HEIGHT, WIDTH, 3), 50 * number + 50, np.uint8)
            Image.fromarray(pixels).save(self.data / "images" / name)

    def write(
        self, source: Values, role: str = "labeled", classes: Any = CLASSES, **more: Any
    ) -> None:
        vocabulary = {"name": "street", "classes": classes}
        (self.folder / "vocabulary.yaml").write_text(yaml.safe_dump(vocabulary))
        values = {
            "run": "street",
            "workspace": str(self.folder / "workspace"),
            "data": str(self.data),
            "vocabulary": "vocabulary.yaml",
            "ingest": {"sources": {"own": {"role": role, "source": source, **more}}},
        }
        self.config.write_text(yaml.safe_dump(values))

    def call(self, *command: str, code: int = 0) -> str:
        done = self.maskmill(*command, "--config", self.config)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    def rows(self) -> pd.DataFrame:
        table = pd.read_parquet(self.folder / "workspace/manifests/street/images")
        return table.set_index(table.uri.map(lambda uri: Path(uri).name))

    def files(self) -> dict[str, int]:
        """The label files, with the time at which each was written."""
        return {path.name: path.stat().st_mtime_ns for path in self.drawn.glob("*.png")}


@pytest.fixture
def project(tmp_path: Path, maskmill: Maskmill) -> Project:
    return Project(tmp_path, maskmill)


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_a_run_of_each_format(project: Project, write: Callable[[Path], Values]) -> None:
    project.write(write(project.data))
    assert "2 label files drawn" in project.call("run", "ingest")
    rows = project.rows()
    assert [*rows.index] == [*NAMES]
    assert {*rows.status} == {"ok"}
    assert [[*ids] for ids in rows.mask_class_ids] == [[0, 1], [0, 1]]
    assert {Path(uri).parent for uri in rows.mask_uri} == {project.drawn}
    files = project.files()
    for command in (("status",), ("run", "ingest"), ("data", "check")):
        if command == ("data", "check"):
            done = project.maskmill("data", "check", project.config)
            assert done.returncode == 0, done.stdout
            assert "2 images, 2 label files" in done.stdout
        else:
            assert "drawn" not in project.call(*command)
    assert "nothing to do" in project.call("run", "ingest")
    assert project.files() == files
    project.call("verify")


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_data_in_the_current_folder(
    project: Project, write: Callable[[Path], Values], monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write(write(project.data))
    monkeypatch.chdir(project.data)
    project.call("run", "ingest", "--set", "data=.")
    rows = project.rows()
    assert [*rows.uri] == [f"images/{name}" for name in NAMES]
    assert [[*ids] for ids in rows.mask_class_ids] == [[0, 1], [0, 1]]


@pytest.mark.parametrize("write", WRITERS[:3], ids=lambda write: write.__name__)
def test_data_and_workspace_in_a_bucket(
    project: Project, write: Callable[[Path], Values], bucket: str
) -> None:
    project.write(write(project.data))
    upload(project.data, f"{bucket}/data")
    sets = ("--set", f"data={bucket}/data", "--set", f"workspace={bucket}/workspace")
    assert "2 label files drawn" in project.call("run", "ingest", *sets)
    folder = locations.location(f"{bucket}/workspace/manifests/street/images")
    rows = manifest.read(folder, tables.IMAGES).to_pylist()
    assert [row["uri"] for row in rows] == [f"{bucket}/data/images/{name}" for name in NAMES]
    assert [row["mask_class_ids"] for row in rows] == [[0, 1], [0, 1]]
    forget_clients()
    assert "nothing to do" in project.call("run", "ingest", *sets)


def test_status_and_dry_run_draw_nothing(project: Project) -> None:
    project.write(write_coco(project.data))
    project.call("status")
    project.call("run", "ingest", "--dry-run")
    assert not project.files()


def test_only_what_has_changed_is_drawn_anew(project: Project) -> None:
    source = write_coco(project.data)
    project.write(source)
    project.call("run", "ingest")
    before = project.files()
    regions = [annotation([PENTAGON], 3, 1), annotation([PENTAGON], 10, 2)]
    write_json(project.data / "a.json", instances(*regions, names=NAMES))
    assert "1 label files drawn" in project.call("run", "ingest")
    assert before.items() < project.files().items()
    assert [[*ids] for ids in project.rows().mask_class_ids] == [[0, 1], [0, 2]]
    # The same pixels in a file that was written again, or with concepts that nothing needs.
    write_json(project.data / "a.json", instances(*regions, names=NAMES))
    project.write(source, classes=[*CLASSES[:2], {**CLASSES[2], "concepts": ["a light"]}])
    assert "drawn" not in project.call("run", "ingest")


def test_another_class_list_draws_anew_and_gc_deletes_what_was(project: Project) -> None:
    source = write_coco(project.data)
    project.write(source)
    project.call("run", "ingest")
    before = {*project.files()}
    project.write(source, classes=[CLASSES[0], CLASSES[2], CLASSES[1]])
    assert "2 label files drawn" in project.call("run", "ingest")
    assert [[*ids] for ids in project.rows().mask_class_ids] == [[0, 2], [0, 2]]
    assert before < {*project.files()}
    project.call("gc")
    assert len(project.files()) == 2
    assert before.isdisjoint(project.files())
    assert "nothing to do" in project.call("run", "ingest")


def test_label_files_that_were_deleted_are_drawn_again(project: Project) -> None:
    project.write(write_coco(project.data))
    project.call("run", "ingest")
    before = {*project.files()}
    for path in project.drawn.iterdir():
        path.unlink()
    text = project.call("run", "ingest")
    assert "2 label files drawn" in text
    assert "nothing to do" in text
    assert {*project.files()} == before
    project.call("verify")


def test_verify_draws_damaged_label_files_again(project: Project) -> None:
    project.write(write_coco(project.data))
    project.call("run", "ingest")
    before = {path: path.read_bytes() for path in project.drawn.glob("*.png")}
    altered, lost = before
    Image.new("L", (WIDTH, HEIGHT), 2).save(altered)
    lost.unlink()
    text = project.call("verify", code=1)
    for path in before:
        assert f"{path}: a label file that was drawn from annotations, missing or damaged" in text
    assert "no damage" in project.call("verify", "--rerun")
    assert {path: path.read_bytes() for path in before} == before
    assert "nothing to do" in project.call("run", "ingest")


def test_images_that_do_not_fit_are_rows_with_a_reason(project: Project) -> None:
    project.write(write_coco(project.data))
    add_image(project.data / "images/b.png", size=(20, 10))
    assert "1 image rejected" in project.call("run", "ingest")
    row = project.rows().loc["b.png"]
    assert row.status == "rejected"
    expected = "its annotations are of 64 x 48 pixels, it has 20 x 10"
    assert row.error_message.startswith(f"{expected} ({project.data}/a.json: images[1])")
    assert "nothing to do" in project.call("run", "ingest")
    (project.data / "images/b.png").write_bytes(b"no image")
    project.call("run", "ingest")
    assert project.rows().loc["b.png"].error_message == "not an image of a known format"
    assert "nothing to do" in project.call("run", "ingest")


def test_a_killed_run_leaves_no_half_file(project: Project) -> None:
    project.write(write_coco(project.data))
    whole = killing.run(project.config)
    assert whole.code == 0
    workspace = project.folder / "workspace"
    expected = {path.name: path.read_bytes() for path in project.drawn.glob("*.png")}
    counts = set()
    for kill_at in range(1, whole.changes):
        workspace.rename(project.folder / f"workspace-{kill_at}")
        workspace.mkdir()
        assert killing.run(project.config, kill_at).code == -9
        found = {path.name: path.read_bytes() for path in project.drawn.glob("*.png")}
        assert found.items() <= expected.items()
        counts.add(len(found))
        if found == expected:
            break
    assert counts == {0, 1, 2}
    assert killing.run(project.config).code == 0
    assert {*project.files()} == {*expected}
    project.call("gc")
    assert not killing.leftovers(project.drawn)


def test_other_keys_that_cannot_be(project: Project) -> None:
    project.write(write_coco(project.data), label_scheme="class colors")
    text = project.call("run", "ingest", code=1)
    assert "a source coco_json has annotations with names, no label files; map names with" in text
    source = {**write_labelme(project.data)}
    (project.data / "images/b.json").unlink()
    project.write(source, role="val")
    text = project.call("run", "ingest", code=1)
    assert "but 1 of 2 have none, first" in text
    assert "annotate it, or take the image out of this source" in text


def test_unlabeled_images_may_be_annotated(project: Project) -> None:
    source = {**write_labelme(project.data)}
    (project.data / "images/b.json").unlink()
    project.write(source, role="unlabeled")
    project.call("run", "ingest")
    assert [*project.rows().mask_uri.isna()] == [False, True]


def test_status_does_not_import_pillow(project: Project) -> None:
    project.write(write_coco(project.data))
    project.call("run", "ingest")
    program = (
        "import sys\nsys.argv[0] = 'maskmill'\nfrom maskmill.cli.main import main\n"
        "try:\n    main()\nfinally:\n"
        "    print([name for name in ('PIL', 'torch') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, "status", "--json", "--config", str(project.config)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    state = json.loads(done.stdout.removesuffix("[]\n"))
    assert state["stages"][0]["state"] == "fresh"
