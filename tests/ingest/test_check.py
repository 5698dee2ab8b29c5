"""`maskmill data check` on real folders."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

Check = Callable[[], CompletedProcess[str]]


@pytest.fixture
def check(
    maskmill: Callable[..., CompletedProcess[str]],
    tiny: dict[str, Any],
    write_config: Callable[..., Path],
) -> Check:
    """Writes the current config and checks it."""
    return lambda: maskmill("data", "check", write_config(tiny))


@pytest.fixture
def lists(tiny: dict[str, Any], tmp_path: Path) -> Path:
    """The labeled source as a list of a published split: image and label file a line."""
    source = {"name": "list", "file": "lists/labeled.txt", "root": "labeled"}
    tiny["ingest"]["sources"]["labeled"]["source"] = source
    file = tmp_path / "lists" / "labeled.txt"
    file.parent.mkdir()
    file.write_text("images/0.png masks/0.png\nimages/1.png masks/1.png\n")
    return file


def printed(done: CompletedProcess[str], source: str) -> str:
    [line] = re.findall(rf"^{source} \(.*\): (.*)$", done.stdout, re.MULTILINE)
    text: str = line
    return text


def test_a_complete_source_is_counted(check: Check, tiny: dict[str, Any], lists: Path) -> None:
    tiny["ingest"] |= {"split": 2, "expected": {2: {"labeled": 2, "unlabeled": 1}, 3: {"ood": 7}}}
    done = check()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(
        f"{lists.parents[1]}/config.yaml: data in {tiny['data']}, split 2"
    )
    assert printed(done, "labeled") == "2 images, 2 label files; as expected"
    assert printed(done, "unlabeled") == "2 images; 1 expected"
    assert printed(done, "ood") == "2 images"
    assert printed(done, "test") == "1 images, 1 label files"


def test_missing_files_are_listed_with_where_to_get_them(
    check: Check, tiny: dict[str, Any], data: Path, lists: Path
) -> None:
    tiny["ingest"] |= {"split": "small", "expected": {"small": {"labeled": 3, "ood": 9}}}
    tiny["ingest"]["download"] = {
        "labeled/masks": "http://x/masks.zip",
        "lists": "http://x/lists",
        "val": "http://x/val.zip",
        "test/images": "http://x/test.zip",
    }
    (data / "labeled" / "masks" / "1.png").unlink()
    shutil.rmtree(data / "val" / "images")
    done = check()
    assert (done.returncode, done.stderr) == (1, "")
    assert printed(done, "labeled") == (
        f"2 images, 2 label files; missing: 1 label files, first {data}/labeled/masks/1.png; "
        "missing: 1 of 3 expected images"
    )
    assert printed(done, "val") == f"missing: {data}/val/images"
    assert printed(done, "ood") == "2 images; missing: 7 of 9 expected images"
    assert re.findall(r"^get (.*): http://x/(.*)$", done.stdout, re.MULTILINE) == [
        ("labeled/masks", "masks.zip"),
        ("lists", "lists"),
        ("val", "val.zip"),
    ]


def test_missing_lists_and_images_in_lists(check: Check, lists: Path, data: Path) -> None:
    lists.write_text("images/0.png masks/0.png\nimages/7.png masks/1.png\n")
    assert "; missing: 1 images, first " in printed(check(), "labeled")
    lists.write_text("images/0.png\nimages/1.png masks/1.png\n")
    assert (
        printed(check(), "labeled")
        == "2 images, 1 label files; missing: 1 images have no label file"
    )
    lists.write_text("../test/images/0.png masks/0.png\n")
    assert printed(check(), "labeled") == "1 images, 1 label files; 1 cannot be used"
    lists.unlink()
    done = check()
    assert printed(done, "labeled") == f"missing: {lists}"
    assert done.returncode == 1


def test_a_source_that_cannot_be_listed_is_missing(check: Check, data: Path) -> None:
    for path in (data / "ood" / "images").iterdir():
        path.unlink()
    done = check()
    assert done.returncode == 1
    assert (
        "the folder has no image file; add images with one of the endings .apng .avif"
        in printed(done, "ood")
    )
    assert "Traceback" not in done.stderr


def test_a_split_without_counts_is_reported(check: Check, tiny: dict[str, Any]) -> None:
    tiny["ingest"] |= {"split": "mine", "expected": {92: {"labeled": 92}}}
    done = check()
    assert done.returncode == 0
    assert "`expected` has counts only of the splits 92" in done.stdout
    assert printed(done, "labeled") == "2 images, 2 label files"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"expected": {1: {"labled": 3}}},
            "expected.1 names no source of this config: labled; use one of: test, val, ",
        ),
        ({"expected": {1: {"labeled": 0}}}, "ingest.expected.1.labeled: 0 is wrong"),
        ({"split": [1]}, r"ingest.split: \[1\] is wrong"),
    ],
)
def test_mistakes_in_the_config_are_one_line(
    keys: dict[str, Any], message: str, check: Check, tiny: dict[str, Any]
) -> None:
    tiny["ingest"] |= keys
    done = check()
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert re.search(message, done.stderr)


def test_a_config_without_images_is_one_line(check: Check, tiny: dict[str, Any]) -> None:
    del tiny["ingest"]
    done = check()
    assert (done.returncode, done.stdout) == (1, "")
    assert "the config names no images; add a section `ingest: {sources: ...}`" in done.stderr


def test_counts_and_notes_make_nothing_stale(
    maskmill: Callable[..., CompletedProcess[str]],
    tiny: dict[str, Any],
    write_config: Callable[..., Path],
) -> None:
    assert maskmill("run", "ingest", "--config", write_config(tiny)).returncode == 0
    tiny["ingest"] |= {"split": 1, "expected": {1: {"ood": 1}}, "download": {"ood": "http://x"}}
    done = maskmill("run", "ingest", "--config", write_config(tiny))
    assert "ingest: nothing to do, 2 fresh" in done.stderr
