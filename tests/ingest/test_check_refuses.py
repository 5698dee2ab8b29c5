"""`maskmill data check` refuses of the sources all that a run would refuse, in the same words."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from PIL import Image

Call = Callable[..., CompletedProcess[str]]
Spoil = Callable[[dict[str, Any], Path], object]


def save(path: Path, *shape: int, value: int = 0, mode: str = "L") -> None:
    Image.fromarray(np.full(shape, value, np.uint8)).convert(mode).save(path)


def no_folder(sources: dict[str, Any], data: Path) -> None:
    shutil.rmtree(data / "ood")
    shutil.rmtree(data / "unlabeled/images")


def no_scheme(sources: dict[str, Any], data: Path) -> None:
    sources["val"]["label_scheme"] = sources["test"]["label_scheme"] = "voc"


def no_masks(sources: dict[str, Any], data: Path) -> None:
    del sources["val"]["source"]["masks"], sources["labeled"]["source"]["masks"]


def a_mask_without_an_image(sources: dict[str, Any], data: Path) -> None:
    save(data / "val/masks/7.png", 24, 32)


def an_image_without_a_mask(sources: dict[str, Any], data: Path) -> None:
    (data.parent / "list.txt").write_text("images/0.png\nimages/1.png masks/1.png\n")
    sources["labeled"]["source"] = {"name": "list", "file": "list.txt", "root": "labeled"}


def two_of_a_name(sources: dict[str, Any], data: Path) -> None:
    save(data / "labeled/images/0.bmp", 24, 32, mode="RGB")


def unknown_values(sources: dict[str, Any], data: Path) -> None:
    for role, value in (("labeled", 7), ("val", 9), ("test", 11)):
        for path in (data / role / "masks").iterdir():
            save(path, 24, 32, value=value)


def other_sizes(sources: dict[str, Any], data: Path) -> None:
    save(data / "labeled/masks/0.png", 32, 24)
    save(data / "test/masks/0.png", 12, 16)


def broken_masks(sources: dict[str, Any], data: Path) -> None:
    (data / "labeled/masks/0.png").write_bytes(b"")
    (data / "val/masks/0.png").write_text("<html>")


def backslashes(sources: dict[str, Any], data: Path) -> None:
    lines = "images/0.png masks\\0.png\nimages/1.png masks\\1.png\n"
    (data.parent / "list.txt").write_text(lines)
    sources["labeled"]["source"] = {"name": "list", "file": "list.txt", "root": "labeled"}


def several(sources: dict[str, Any], data: Path) -> None:
    no_masks(sources, data)
    no_folder(sources, data)
    sources["test"]["label_scheme"] = "voc"


BAD: dict[Spoil, int] = {
    no_folder: 2,
    no_scheme: 2,
    no_masks: 2,
    a_mask_without_an_image: 1,
    an_image_without_a_mask: 1,
    two_of_a_name: 1,
    unknown_values: 4,
    other_sizes: 2,
    broken_masks: 2,
    backslashes: 2,
    several: 5,
}
"""Ways to spoil sources, and how many faults each makes."""


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_both_refuse_the_same(
    spoil: Spoil,
    tiny: dict[str, Any],
    data: Path,
    write_config: Callable[..., Path],
    maskmill: Call,
) -> None:
    spoil(tiny["ingest"]["sources"], data)
    config = write_config(tiny)
    checked = maskmill("data", "check", config)
    assert (checked.returncode, checked.stderr) == (1, "")
    assert not Path(tiny["workspace"]).exists()
    refused = maskmill("run", "ingest", "--config", config)
    assert refused.returncode == 1
    faults = re.findall(r"^error: (.*)", refused.stderr, re.MULTILINE)
    assert len(faults) == BAD[spoil]
    assert re.findall(r"would refuse: (.*)", checked.stdout) == faults


def test_the_first_of_many_faults_are_told_and_the_others_counted(
    tiny: dict[str, Any], data: Path, write_config: Callable[..., Path], maskmill: Call
) -> None:
    for number in range(2, 9):
        save(data / f"labeled/images/{number}.png", 24, 32, value=number, mode="RGB")
        save(data / f"labeled/masks/{number}.png", 24, 32, value=200)
    done = maskmill("run", "ingest", "--config", write_config(tiny))
    error = done.stderr[done.stderr.index("error: ") :]
    assert error.count("class id 200 is not in the vocabulary") == 5
    assert error.endswith("error: and 2 more that need the same\n")


def test_good_shards_without_label_files_do_not_wait_for_a_bad_one_to_be_corrected_twice(
    tiny: dict[str, Any], data: Path, write_config: Callable[..., Path], maskmill: Call
) -> None:
    good = (data / "labeled/masks/0.png").read_bytes()
    save(data / "labeled/masks/0.png", 24, 32, value=200)
    config = write_config(tiny)
    assert maskmill("run", "ingest", "--config", config).returncode == 1
    (data / "labeled/masks/0.png").write_bytes(good)
    done = maskmill("run", "ingest", "--config", config)
    assert (done.returncode, "ingest: 2 labeled, 2 ood, 1 test" in done.stderr) == (0, True)
    again = maskmill("run", "ingest", "--config", config)
    assert "ingest: nothing to do, 2 fresh" in again.stderr


@pytest.mark.parametrize(("value", "held"), [(255, "only 255"), (0, "no class but background")])
def test_a_check_judges_what_the_label_files_teach(
    value: int,
    held: str,
    tiny: dict[str, Any],
    data: Path,
    write_config: Callable[..., Path],
    maskmill: Call,
) -> None:
    for path in (data / "labeled/masks").iterdir():
        save(path, 24, 32, value=value)
    config = write_config(tiny)
    for _ in range(2):
        done = maskmill("data", "check", config)
        assert done.returncode == 1
        assert "ingest.sources.labeled: 2 of 2 label files " in done.stdout
        assert held in done.stdout
        maskmill("run", "ingest", "--config", config)  # the next check reads the manifest


def test_a_check_counts_why_no_image_of_a_role_can_be_used(
    tiny: dict[str, Any], data: Path, write_config: Callable[..., Path], maskmill: Call
) -> None:
    (data / "labeled/images/0.png").write_bytes(b"")
    (data / "labeled/images/1.png").write_text("<html>")
    what = (
        "none of the 2 labeled images can be used: 1 the file is empty, "
        "1 an HTML page, which is not decoded"
    )
    config = write_config(tiny)
    for _ in range(2):
        done = maskmill("data", "check", config)
        assert done.returncode == 1
        assert what in done.stdout
        assert maskmill("run", "ingest", "--config", config).returncode == 0


def test_copies_in_a_source_that_needs_no_label_files_are_not_refused(
    tiny: dict[str, Any], data: Path, write_config: Callable[..., Path], maskmill: Call
) -> None:
    shutil.rmtree(data / "unlabeled/images")
    for kind in ("images", "masks"):
        shutil.copytree(data / "labeled" / kind, data / "unlabeled" / kind)
    tiny["ingest"]["sources"]["unlabeled"]["source"]["masks"] = "unlabeled/masks"
    shutil.copy(data / "ood/images/0.png", data / "unlabeled/images/7.png")
    config = write_config(tiny)
    for _ in range(2):
        done = maskmill("data", "check", config)
        assert "would refuse" not in done.stdout
        assert maskmill("run", "ingest", "--config", config).returncode == 0


def test_a_split_without_a_good_image_is_a_warning_as_in_a_run(
    tiny: dict[str, Any], data: Path, write_config: Callable[..., Path], maskmill: Call
) -> None:
    (data / "test/images/0.png").write_bytes(b"")
    config = write_config({**tiny, "evaluate": {}})
    done = maskmill("data", "check", config)
    assert done.returncode == 0
    warning = "nothing is scored on test: "
    assert f"warning: {warning}" in done.stdout
    run = maskmill("run", "--config", config)
    assert (run.returncode, warning in run.stderr) == (0, True)
