"""Class lists and variants on the command line: cached text embeddings, and errors."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

Call = Callable[..., CompletedProcess[str]]


def classes(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "color": "#000000"} for name in names]


@pytest.fixture
def call(
    call: Call,
    tiny: dict[str, Any],
    clip_folder: Callable[[str], Path],
    write_config: Callable[..., Path],
) -> Call:
    """The command line with the current vocabulary: ``call("run", classes=[...])``."""
    clip = {"name": "dense_clip", "model": f"local-dir:{clip_folder('vit')}"}
    labelers = {"clip": {**clip, "window_px": 32, "stride_px": 16}}
    values = {**tiny, "pseudolabel": {"size_px": 48, "labelers": labelers}}

    def command(verb: str, *overrides: str, **vocabulary: Any) -> CompletedProcess[str]:
        return call(verb, write_config(values, **vocabulary), *overrides)

    return command


def kept(tmp_path: Path) -> dict[Path, int]:
    """Files of text embeddings, and when they were written."""
    folder = tmp_path / "workspace/artifacts/tiny/labeler_cache/texts"
    return {path: path.stat().st_mtime_ns for path in folder.glob("*/*.npz")}


def test_only_new_texts_are_embedded(call: Call, tmp_path: Path) -> None:
    assert call("run", classes=classes("ground", "disc", "box"), background=None).returncode == 0
    first = kept(tmp_path)
    assert len(first) == 3
    assert np.load(next(iter(first)))["embeddings"].shape == (1, 32)
    done = call("run", classes=classes("ground", "disc", "box", "star"), background=None)
    assert done.returncode == 0, done.stderr
    assert "vocabulary.classes" in done.stderr
    second = kept(tmp_path)
    assert len(second) == 4
    assert first.items() <= second.items()


def test_embeddings_may_be_deleted(call: Call, tmp_path: Path) -> None:
    call("run")
    for path in kept(tmp_path):
        path.unlink()
    assert "pseudolabel: nothing to do, 3 fresh" in call("run").stderr
    assert call("run", templates=["a {}"]).returncode == 0


@pytest.mark.parametrize("verb", ["status", "run"])
@pytest.mark.parametrize(
    ("vocabulary", "line"),
    [
        (
            {"classes": [{**one, "concepts": []} for one in classes("ground", "disc", "box")]},
            "vocabulary shapes: no class has a concept to look for; "
            "give at least one class a concept",
        ),
        ({"classes": []}, "vocabulary.yaml: classes: [] is wrong; "),
    ],
)
def test_an_empty_vocabulary_is_one_line_of_error(
    call: Call, verb: str, vocabulary: dict[str, Any], line: str
) -> None:
    printed = call(verb, background=None, **vocabulary)
    assert printed.returncode == 1
    assert line in printed.stderr
    assert [text.startswith("error: ") for text in printed.stderr.splitlines()].count(True) == 1
    assert printed.stderr.splitlines()[-1].startswith("error: ")


def test_a_variant_that_the_model_has_not_is_one_line_of_error(
    call: Call, clip_folder: Callable[[str], Path]
) -> None:
    keys = "pseudolabel.labelers.clip"
    model = f"{keys}.model=local-dir:{clip_folder('resnet')}"
    printed = call("run", model, f"{keys}.variant=gem")
    assert printed.returncode == 1
    line = printed.stderr.splitlines()[-1]
    assert line.startswith(f"error: {keys}: variant: gem: local-dir:")
    assert "Traceback" not in printed.stderr
    assert call("run", model, f"{keys}.variant=maskclip").returncode == 0
