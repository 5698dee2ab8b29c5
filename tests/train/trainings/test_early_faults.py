"""What cannot work is said before the first step, all of it at once, with its cause."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.trainings import run_folder

WriteConfig = Callable[..., Path]
Call = Callable[..., CompletedProcess[str]]
SWIN = {"name": "unet", "encoder": "tu-swin_tiny_patch4_window7_224", "encoder_weights": None}
TEST_RESNET = {"name": "deeplabv3plus", "encoder": "tu-test_resnet", "encoder_weights": None}


def fill(folder: Path, values: list[int]) -> None:
    """Gives all masks of a folder stripes of these values."""
    for path in folder.iterdir():
        mask = np.resize(np.array(values, np.uint8), (24, 32))
        Image.fromarray(mask).save(path)


@pytest.fixture
def refused(labeling: dict[str, Any], write_config: WriteConfig, call: Call) -> Callable[..., str]:
    """The error of a run, before which nothing was labeled; `status` tells the same, if it can."""

    def run(*overrides: str, in_status: bool = True, **vocabulary: Any) -> str:
        config = write_config(labeling, **vocabulary)
        done = call("run", config, *overrides, code=1)
        assert not (run_folder(labeling, "manifests") / "pseudo_labels").exists()
        assert not (run_folder(labeling, "artifacts") / "pseudo_labels").exists()
        text = done.stderr[done.stderr.index("error: ") :]
        commands = ["run --dry-run", *(["status"] if in_status else [])]
        for command in commands:
            assert call(command, config, *overrides, code=1).stderr.endswith(text), command
        return text

    return run


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["train.model={name: deeplabv3plus, encoder: none}"], "has no encoder 'none'"),
        (
            ["train.crop_px=40", f"train.model={json.dumps(SWIN)}"],
            "the network cannot take crops of 40 px: Input height (40) doesn't match",
        ),
        (["train.layer_decay=0.5"], "the encoder has no transformer blocks"),
        (["train.device=cuda"], "this machine has no device 'cuda'"),
        (["evaluate={device: cuda}"], "--set evaluate={device: cuda}: device: this machine has no"),
        (["train.batch_size=1", f"train.model={json.dumps(TEST_RESNET)}"], "on a single crop"),
        (["pseudolabel.labelers.clip.window_px=33"], "must be a multiple of"),
        (["pseudolabel.device=abacus"], "this machine has no device 'abacus'"),
    ],
)
def test_what_torch_alone_can_tell(
    refused: Callable[..., str], overrides: list[str], part: str
) -> None:
    assert part in refused(*overrides, in_status=False)


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["train.perturbation={name: supmix, classes: [cup]}"], "no class 'cup'"),
        (
            ["train.model={name: deeplabv3plus, encoder_weights: none.safetensors}"],
            "none.safetensors: there is no such file",
        ),
        (["train.validate_every=1", "ingest.sources.val.role=test"], "no val image; add a source"),
        (
            ["pseudolabel.labelers.other={name: segmenter, weights: none.safetensors}"],
            "pseudolabel.labelers.other: ",
        ),
    ],
)
def test_what_the_config_alone_tells(
    refused: Callable[..., str], overrides: list[str], part: str
) -> None:
    assert part in refused(*overrides)


def test_all_faults_are_told_at_once(refused: Callable[..., str]) -> None:
    text = refused(
        "train.variants.ood.label_sources.0.labeler=sam",
        "train.perturbation={name: supmix, classes: [cup]}",
        "ingest.sources.test.label_scheme=voc",
        "ingest.sources.val.source.images=nowhere",
    )
    assert text.count("error: ") == 4
    for part in (
        "no labeler 'sam'",
        "no class 'cup'",
        "no scheme 'voc'",
        "nowhere: no such folder",
    ):
        assert part in text


def test_labeled_images_that_are_all_rejected_are_counted_by_reason(
    refused: Callable[..., str], data: Path, tmp_path: Path
) -> None:
    images = data / "labeled/images"
    (images / "1.png").write_bytes(b"")
    (images / "0.png").rename(tmp_path / "elsewhere.png")
    (images / "0.png").symlink_to(tmp_path / "elsewhere.png")
    text = refused()
    assert "ingest.sources: none of the 2 labeled images can be used: 1 leads out of " in text
    assert "1 the file is empty" in text


def test_backslashes_in_a_list_are_named(
    refused: Callable[..., str], labeling: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text("images\\0.png masks/0.png\nimages\\1.png masks/1.png\n")
    source = {"name": "list", "file": "list.txt", "root": "labeled"}
    labeling["ingest"]["sources"]["labeled"]["source"] = source
    assert "none of the 2 labeled images can be used: 2 " in (text := refused())
    assert "write paths with `/`" in text


def test_masks_of_nothing_but_ignore_teach_nothing(refused: Callable[..., str], data: Path) -> None:
    fill(data / "labeled/masks", [255])
    assert "ingest.sources.labeled: 2 of 2 label files hold only 255; 255 is ignore" in refused()


def test_masks_of_0_and_255_teach_a_constant(refused: Callable[..., str], data: Path) -> None:
    fill(data / "labeled/masks", [0, 255])
    assert (
        "ingest.sources.labeled: 2 of 2 label files hold only 0 and 255; 255 is ignore; if it is a "
        "class, write label_schemes {0: background, 255: disc} into the vocabulary"
    ) in refused()


def test_masks_of_a_single_class_teach_a_constant(refused: Callable[..., str], data: Path) -> None:
    fill(data / "labeled/masks", [1])
    assert "2 of 2 label files show no class but disc" in refused()


def test_copied_label_files_that_are_not_there_or_say_nothing_are_refused(
    refused: Callable[..., str], labeling: dict[str, Any], data: Path
) -> None:
    labeling["pseudolabel"]["labelers"]["clip"] = {"name": "files"}
    where = "train.variants.ood.label_sources: clip copies label files"
    assert f"{where}, but no ood image has one; name their folder" in refused()
    shutil.copytree(data / "labeled/masks", data / "ood/masks")
    fill(data / "ood/masks", [255])
    labeling["ingest"]["sources"]["ood"]["source"]["masks"] = "ood/masks"
    assert f"{where}: 2 of 2 label files hold only 255; 255 is ignore" in refused()


def test_copied_label_files_of_the_same_single_class_teach_no_other(
    refused: Callable[..., str], labeling: dict[str, Any], data: Path
) -> None:
    labeling["pseudolabel"]["labelers"]["clip"] = {"name": "files"}
    del labeling["train"]["variants"]["plain"]
    shutil.copytree(data / "labeled/masks", data / "ood/masks")
    labeling["ingest"]["sources"]["ood"]["source"]["masks"] = "ood/masks"
    for role in ("labeled", "ood"):
        fill(data / role / "masks", [0, 255])
    assert "2 of 2 label files hold only 0 and 255; 255 is ignore" in refused()


def test_val_masks_of_nothing_but_ignore_validate_nothing(
    refused: Callable[..., str], data: Path
) -> None:
    fill(data / "val/masks", [255])
    text = refused("train.validate_every=1")
    assert "ingest.sources.val: val: 1 of 1 label files hold only 255; 255 is ignore; " in text
    assert "or set `validate_every: null`" in text


def test_a_scheme_that_ignores_everything_is_refused(refused: Callable[..., str]) -> None:
    schemes = {"none": {"*": "ignore"}}
    text = refused("ingest.sources.labeled.label_scheme=none", label_schemes=schemes)
    assert "the scheme 'none' of vocabulary 'shapes' ignores every value" in text


def test_what_is_likely_is_a_warning_at_the_start_at_the_end_and_in_status(
    labeling: dict[str, Any], write_config: WriteConfig, call: Call, data: Path
) -> None:
    fill(data / "labeled/masks", [0, 1])
    fill(data / "test/masks", [0, 255])
    fill(data / "val/masks", [255])
    concepts = [
        {"name": "background", "color": "#000000", "concepts": []},
        {"name": "disc", "color": "#ff0000"},
        {"name": "box", "color": "#ff0000", "concepts": []},
    ]
    config = write_config({**labeling, "evaluate": {}}, classes=concepts)
    done = call("run", config, code=0)
    warnings = [
        "the classes disc and box have the same colour #ff0000",
        "labeler clip: the class box has no concepts, so that no text can find it",
        "no label file of a labeled image shows box, nor do stored labels of plain, ood: never",
        "ingest.sources.val: 1 of 1 label files hold only 255; 255 is ignore",
        "ingest.sources.test: 1 of 1 label files hold only 0 and 255; 255 is ignore",
    ]
    end = done.stderr[done.stderr.rindex("report: ") :]
    again = call("run", config, code=0).stderr
    status = call("status", config, code=0).stdout
    page = (run_folder(labeling, "artifacts") / "report/index.html").read_text()
    for text in warnings:
        assert all(text in place for place in (end, again, status)), text
    for text in warnings[1:]:
        assert text.removeprefix("labeler clip: ") in page
    assert "test shows no class but background: a constant scores best" in done.stdout
    assert "no pixel of val has a class in its label file" in done.stdout
    rows = [line for line in done.stdout.splitlines() if line.startswith(("│ plain", "│ ood "))]
    assert all(row.split("│")[2].strip() == "-" for row in rows[:2])  # val
    assert all(row.split("│")[4].strip() == "-" for row in rows[:2])  # gain


def test_stored_labels_that_leave_every_pixel_open_teach_nothing(
    labeling: dict[str, Any], write_config: WriteConfig, call: Call
) -> None:
    labeling["pseudolabel"]["labelers"]["clip"]["threshold"] = 1.0
    config = write_config(labeling)
    text = "train.variants.ood.label_sources: clip left every pixel of all 2 ood images open"
    assert text in call("run", config, code=1).stderr.splitlines()[-1]
    assert text in call("status", config, code=1).stderr


def test_a_stage_that_comes_later_is_warned_about(
    labeling: dict[str, Any], write_config: WriteConfig, call: Call
) -> None:
    config = write_config(labeling)
    done = call("run pseudolabel", config, "train.variants.ood.label_sources.0.labeler=sam", code=0)
    assert "warning: train could not run: " in done.stderr
    assert "no labeler 'sam'" in done.stderr


def test_faults_are_in_the_json_of_status(
    labeling: dict[str, Any], write_config: WriteConfig, call: Call
) -> None:
    config = write_config(labeling)
    override = "train.variants.ood.label_sources.0.labeler=sam"
    stages = json.loads(call("status --json", config, override, code=1).stdout)["stages"]
    faults = {stage["name"]: stage["faults"] for stage in stages}
    assert (faults["ingest"], faults["pseudolabel"]) == ([], [])
    (fault,) = faults["train"]
    assert "no labeler 'sam'" in fault


def test_a_batch_that_no_memory_holds_is_refused(refused: Callable[..., str]) -> None:
    text = refused("train.batch_size=65536", "train.crop_px=8192")
    assert "65536 crops of 8192 px of each role take " in text
    assert "GiB, and this machine has " in text


def test_stored_labels_of_one_class_are_a_warning(
    labeling: dict[str, Any], write_config: WriteConfig, call: Call, data: Path
) -> None:
    """No number shows it: the labels cover everything, with confidence 1."""
    masks = data / "ood/masks"
    masks.mkdir()
    for image in (data / "ood/images").iterdir():
        Image.fromarray(np.full((24, 32), 1, np.uint8)).save(masks / image.name)
    labeling["ingest"]["sources"]["ood"]["source"]["masks"] = "ood/masks"
    labeling["pseudolabel"]["labelers"]["clip"] = {"name": "files"}
    config = write_config({**labeling, "evaluate": {}})
    text = "train.variants.ood.label_sources: clip labels all 2 ood images as disc only"
    assert text in call("run", config, code=0).stderr.splitlines()[-1]
    assert text in call("status", config, code=0).stdout
    page = (run_folder(labeling, "artifacts") / "report/index.html").read_text()
    assert text in page


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{name: student, threshold: 1}", "student: `threshold: 1` leaves only pixels of"),
        ("{name: previous}", "previous: the only validation is the last one, so no earlier"),
    ],
)
def test_label_sources_that_never_teach_are_a_warning(
    source: str, text: str, labeling: dict[str, Any], write_config: WriteConfig, call: Call
) -> None:
    config = write_config({**labeling, "evaluate": {}})
    sets = [f"train.variants.plain.label_sources=[{source}]", "train.validate_every=1000"]
    done = call("run", config, *sets, code=0)
    assert text in done.stderr[done.stderr.rindex("report: ") :]
    assert text in call("status", config, *sets, code=0).stdout
    name = source.split()[1].strip(",}")  # what the steps recorded shows it too
    assert f"seed 0: {name}_unlabeled taught nothing: no recorded step has" in done.stderr
