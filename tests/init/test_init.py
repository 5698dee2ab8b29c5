"""The command `init`: what it writes runs as it is."""

import json
import re
import shlex
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from tests.repository import ROOT

Maskmill = Callable[..., CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def draw(
    path: Path, number: int, mask: Path | None = None, values: tuple[int, ...] = (0, 1)
) -> None:
    rng = np.random.default_rng(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(path)
    if mask is not None:
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.choice(np.array(values, np.uint8), (48, 64))).save(mask)


def roles(run: str) -> dict[str, int]:
    images = pd.read_parquet(f"manifests/{run}/images")
    return dict(Counter(images[images.status == "ok"].role))


def test_photos_with_some_masks_and_web_images(folder: Path, maskmill: Maskmill) -> None:
    for number in range(12):
        mask = folder / f"photos/masks/{number}.png" if number < 8 else None
        draw(folder / f"photos/images/{number}.jpg", number, mask, (0, 1, 2, 255))
        draw(folder / f"web/{number}.jpg", 100 + number)
    done = maskmill("init", "photos", "--classes", "car, dog", "--web", "web", "--allow-stand-in")
    assert (done.returncode, done.stdout) == (0, "maskmill run\n")
    assert "photos: 12 images, 8 with a label file" in done.stderr
    done = maskmill("run", "ingest")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert roles("photos") == {"labeled": 6, "val": 2, "unlabeled": 4, "ood": 12}
    dry = maskmill("run", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "could not run" not in dry.stderr
    config = yaml.safe_load(Path("maskmill.yaml").read_text())
    assert [*config["train"]["variants"]] == ["labeled-only", "all"]
    again = maskmill("init", "photos", "--classes", "car, dog")
    assert again.returncode == 1
    assert "maskmill.yaml: these files are there already; nothing was written" in again.stderr


def test_without_weights_it_stops_with_the_line_that_fetches_them(
    folder: Path, maskmill: Maskmill
) -> None:
    draw(folder / "photos/0.jpg", 0)
    assert maskmill("init", "photos", "--classes", "car").returncode == 0
    done = maskmill("run")
    assert done.returncode == 1
    assert "run `hf download timm/vit_base_patch16_clip_224.openai" in done.stderr
    assert not Path("manifests/photos/pseudo_labels").exists()


def test_images_and_masks_in_one_folder_of_two_values(folder: Path, maskmill: Maskmill) -> None:
    for number in range(7):
        mask = folder / f"photos/{number}_mask.png" if number < 4 else None
        draw(folder / f"photos/{number}.png", number, mask, (0, 255))
    done = maskmill("init", "photos", "--classes", "leaf", "--name", "leaves", "--into", "project")
    assert (done.returncode, done.stdout) == (0, "maskmill run --config project/maskmill.yaml\n")
    assert re.search("0 = background \\(5[01]%\\), 255 = leaf \\((49|50)%\\)", done.stderr), (
        done.stderr
    )
    assert "too few labeled images to keep some back" in done.stderr
    done = maskmill("run", "ingest", "--config", "project/maskmill.yaml")
    assert done.returncode == 0, done.stderr
    assert roles("leaves") == {"labeled": 4, "unlabeled": 3}
    images = pd.read_parquet("manifests/leaves/images").set_index("role")
    assert images.loc["labeled"].mask_ignored.max() == 0


def test_masks_elsewhere_and_a_folder_to_score_on(folder: Path, maskmill: Maskmill) -> None:
    for number in range(3):
        draw(folder / f"photos/{number}.jpg", number, folder / f"truth/{number}.png")
        draw(folder / f"v/{number}.jpg", 50 + number, folder / f"v/masks/{number}.png")
    draw(folder / "photos/more.jpg", 9)
    done = maskmill("init", "photos", "--classes", "car", "--masks", "truth", "--val", "v")
    assert done.returncode == 0, done.stderr
    done = maskmill("run", "ingest")
    assert done.returncode == 0, done.stderr
    assert roles("photos") == {"labeled": 3, "val": 3, "unlabeled": 1}


def test_only_photos_and_archives(folder: Path, maskmill: Maskmill) -> None:
    draw(folder / "photos/0.jpg", 0)
    draw(folder / "photos/1.jpg", 1)
    (folder / "web").mkdir()
    with tarfile.open(folder / "web/00000.tar", "w") as archive:
        archive.add(folder / "photos/1.jpg", "x.jpg")
    draw(folder / "photos/1.jpg", 2)
    done = maskmill("init", "photos", "--classes", "car", "--web", "web")
    assert done.returncode == 0, done.stderr
    assert "train" not in yaml.safe_load(Path("maskmill.yaml").read_text())
    assert maskmill("run", "ingest").returncode == 0
    assert roles("photos") == {"ood": 3}


def test_classes_are_read_from_files_beside_the_images(folder: Path, maskmill: Maskmill) -> None:
    for number in range(8):
        draw(
            folder / f"d/images/{number}.jpg", number, folder / f"d/masks/{number}.png", (0, 1, 11)
        )
    (folder / "d/classes.json").write_text(
        json.dumps({"0": "sky", "1": "road", "11": "unlabelled"})
    )
    done = maskmill("init", "d")
    assert done.returncode == 0, done.stderr
    assert "11 = ignore" in done.stderr
    vocabulary = yaml.safe_load(Path("vocabulary.yaml").read_text())
    assert [entry["name"] for entry in vocabulary["classes"]] == ["sky", "road"]
    assert maskmill("run", "ingest").returncode == 0


def test_folders_inside_the_folder_of_photos_keep_their_roles(
    folder: Path, maskmill: Maskmill
) -> None:
    for number in range(8):
        draw(folder / f"photos/{number}.jpg", number, folder / f"photos/truth/{number}_mask.png")
    draw(folder / "photos/more.jpg", 9)
    draw(folder / "photos/found/x.jpg", 10)
    draw(folder / "photos/held/y.jpg", 11, folder / "photos/held/masks/y.png")
    inside = ("--masks", "photos/truth", "--web", "photos/found", "--val", "photos/held")
    done = maskmill("init", "photos", "--classes", "car", *inside)
    assert done.returncode == 0, done.stderr
    done = maskmill("run", "ingest")
    assert done.returncode == 0, done.stderr
    assert roles("photos") == {"labeled": 8, "unlabeled": 1, "ood": 1, "val": 1}
    images = pd.read_parquet("manifests/photos/images")
    assert len(images) == 11


def test_names_may_hold_what_lists_are_separated_by(folder: Path, maskmill: Maskmill) -> None:
    for number, name in enumerate(("a b", "c,d", "e;f", 'g"h', "i\tj", "k", "l'm")):
        draw(folder / f"photos/{name}.png", number, folder / f"photos/{name}_mask.png")
        draw(folder / f"photos/{name}2.png", 10 + number)
    done = maskmill("init", "photos", "--classes", "car")
    assert done.returncode == 0, done.stderr
    done = maskmill("run", "ingest")
    assert done.returncode == 0, done.stderr
    assert roles("photos") == {"labeled": 5, "val": 2, "unlabeled": 7}


def test_results_never_lie_among_the_images(
    folder: Path, maskmill: Maskmill, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(folder / "photos/0.jpg", 0)
    monkeypatch.chdir(folder / "photos")
    for command in (
        ("init", ".", "--classes", "car"),
        ("init", ".", "--classes", "car", "--into", "project"),
        ("label", ".", "--classes", "car", "--out", "out"),
    ):
        done = maskmill(*command)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert "would lie among the images; call it in another folder" in done.stderr
    assert [path.name for path in Path().iterdir()] == ["0.jpg"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere", "--classes", "car"], "nowhere: no such folder"),
        (["empty", "--classes", "car"], "empty: no image in this folder"),
        (["photos"], 'nothing tells what the classes are; name them: --classes "car, person"'),
        (["photos", "--classes", "car", "--masks", "empty"], "none of 0 label files has an image"),
        (["photos", "--classes", "car", "--web", "empty"], "empty: no image in this folder"),
        (["photos", "--classes", "car", "--val", "empty"], "no image with a label file"),
        (["photos", "--classes", "car,"], "a name is empty"),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(
    arguments: list[str], text: str, folder: Path, maskmill: Maskmill
) -> None:
    draw(folder / "photos/0.jpg", 0)
    (folder / "empty").mkdir()
    done = maskmill("init", *arguments)
    assert done.returncode == 1
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not Path("maskmill.yaml").exists()


def test_annotations_of_other_tools(folder: Path, maskmill: Maskmill) -> None:
    """What the export writes is a start for others, in each of their formats."""
    for number in range(10):
        mask = folder / f"photos/masks/{number}.png" if number < 8 else None
        draw(folder / f"photos/images/{number}.jpg", number, mask, (0, 1, 2))
    assert maskmill("init", "photos", "--classes", "car, dog").returncode == 0
    assert maskmill("run", "ingest").returncode == 0
    for form in ("coco", "yolo", "cvat", "labelme"):
        done = maskmill(
            *("export", "labels", "--to", form, "--out", form, "--roles", "labeled,val"),
            *("--split", "1"),
        )
        assert done.returncode == 0, done.stderr
        draw(folder / f"{form}/more.jpg", 77)
        done = maskmill("init", form, "--into", f"project-{form}")
        assert done.returncode == 0, done.stderr
        config = f"project-{form}/maskmill.yaml"
        done = maskmill("run", "ingest", "--config", config)
        assert done.returncode == 0, done.stderr
        assert roles(form) == {
            "labeled": 6,
            "val": 2,
            "unlabeled": 1,
        }
        vocabulary = yaml.safe_load(Path(f"project-{form}/vocabulary.yaml").read_text())
        names = {entry["name"] for entry in vocabulary["classes"]}
        assert names == {"background", "car", "dog"}


def test_names_that_are_no_class_are_ignored(folder: Path, maskmill: Maskmill) -> None:
    for number in range(8):
        draw(
            folder / f"photos/{number}.jpg", number, folder / f"photos/{number}_mask.png", (0, 1, 2)
        )
    assert maskmill("init", "photos", "--classes", "car, dog").returncode == 0
    assert maskmill("run", "ingest").returncode == 0
    done = maskmill("export", "labels", "--to", "coco", "--out", "coco", "--roles", "labeled")
    assert done.returncode == 0, done.stderr
    done = maskmill("init", "coco", "--classes", "car", "--into", "other")
    assert "ignored, as no class has these names of annotations: dog" in done.stderr
    assert maskmill("run", "ingest", "--config", "other/maskmill.yaml").returncode == 0
    images = pd.read_parquet("manifests/coco/images")
    assert images.mask_ignored.dropna().between(0.2, 0.5).all()


def test_the_readmes_commands_for_own_images_run_as_shown(folder: Path, maskmill: Maskmill) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Your own images")[2].partition("\n## ")[0]
    commands = [shlex.split(line) for line in re.findall("^    maskmill (.*)$", section, re.M)]
    assert [command[0] for command in commands] == ["init", "run", "predict", "label"]
    for number in range(10):
        mask = folder / f"photos/masks/{number}.png" if number < 8 else None
        draw(folder / f"photos/images/{number}.jpg", number, mask, (0, 1, 2))
    for number in range(2):
        draw(folder / f"web/{number}.jpg", 50 + number)
        draw(folder / f"new/{number}.jpg", 60 + number)
    shorter = ("--set", "train.steps=2", "--set", "train.short_side_px=null")
    for command in commands:
        more = {"init": ("--allow-stand-in",), "label": ("--allow-stand-in",), "run": shorter}
        done = maskmill(*command, *more.get(command[0], ()))
        assert done.returncode == 0, done.stderr
    assert len([*Path("masks/masks").iterdir()]) == 2
    assert Path("artifacts/photos/report/index.html").exists()
    assert {path.name for path in Path("labels").iterdir()} == {"run", "png", "coco"}
