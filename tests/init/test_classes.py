"""What stands for which class in label files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ConfigError
from stages.init.classes import assigned, classes_beside, parsed
from stages.init.labels_seen import LabelsSeen, look_at


def seen(*values: object) -> LabelsSeen:
    return LabelsSeen({str(value): 1 / len(values) for value in values}, 3, {})


@pytest.mark.parametrize(
    ("text", "values", "names", "scheme"),
    [
        ("car, dog", [0, 1, 2, 255], ("background", "car", "dog"), {}),
        ("car, dog", [0, 2], ("background", "car", "dog"), {}),
        ("car, dog", [], ("background", "car", "dog"), {}),
        ("background, car", [0, 1], ("background", "car"), {}),
        ("leaf", [0, 255], ("background", "leaf"), {"0": "background", "255": "leaf"}),
        ("leaf", [0, 128], ("background", "leaf"), {"0": "background", "128": "leaf"}),
        (
            "car, dog",
            [0, 7, 9, 255],
            ("background", "car", "dog"),
            {"0": "background", "7": "car", "9": "dog", "255": "ignore"},
        ),
        ("sky, road", [0, 1, 255], ("sky", "road"), {}),
        (
            "leaf",
            ["#000000", "#00ff00"],
            ("background", "leaf"),
            {"#000000": "background", "#00ff00": "leaf"},
        ),
        (
            "car=7, dog=9|11",
            [0, 7, 9, 11, 30],
            ("background", "car", "dog"),
            {"0": "background", "7": "car", "9": "dog", "11": "dog", "30": "ignore"},
        ),
        (
            "sky=0, road=1, void=11",
            [0, 1, 11],
            ("sky", "road"),
            {"0": "sky", "1": "road", "11": "ignore"},
        ),
        ("background=0, car=1", [0, 1, 255], ("background", "car"), {}),
        (
            "car=#ff0000",
            ["#000000", "#ff0000"],
            ("background", "car"),
            {"#000000": "background", "#ff0000": "car"},
        ),
    ],
)
def test_values_are_given_to_classes(
    text: str, values: list[object], names: tuple[str, ...], scheme: dict[str, str]
) -> None:
    found = assigned(parsed(text), seen(*values) if values else LabelsSeen({}, 0, {}))
    assert found.names == names
    assert dict(found.scheme) == scheme


@pytest.mark.parametrize(
    ("text", "values", "example"),
    [
        ("car, dog", [0, 7, 9, 11], "car=7, dog=9"),
        ("car, dog", ["#000000", "#00ff00", "#ff0000"], "car=#00ff00, dog=#ff0000"),
        ("car", ["#000000", "#00ff00", "#ff0000"], "car=#00ff00"),
    ],
)
def test_what_cannot_be_told_is_asked(text: str, values: list[object], example: str) -> None:
    with pytest.raises(ConfigError) as caught:
        assigned(parsed(text), seen(*values))
    assert f'--classes "{example}"' in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [("car, car", "'car' occurs twice"), ("car,, dog", "a name is empty"), ("car=x", "'x' is no")],
)
def test_a_wrong_list_of_classes_is_refused(text: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        parsed(text)


def test_files_of_tools_name_the_classes(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (tmp_path / "classes.txt").write_text("car\ndog\n")
    assert classes_beside(folder) == {"car": [], "dog": []}
    (tmp_path / "classes.json").write_text('{"0": "sky", "11": "void"}')
    assert classes_beside(folder) == {"sky": ["0"], "void": ["11"]}
    (folder / "labelmap.txt").write_text("# label:color_rgb:parts:actions\ncar:255,0,0::\n")
    assert classes_beside(folder) == {"car": ["#ff0000"]}
    (folder / "labelmap.txt").write_text("no colours here")
    assert classes_beside(folder) == {"sky": ["0"], "void": ["11"]}


def test_label_files_are_looked_at(tmp_path: Path) -> None:
    ids = np.zeros((4, 6), np.uint8)
    ids[0] = 255
    Image.fromarray(ids).save(tmp_path / "ids.png")
    grey = np.repeat(ids[..., None], 3, axis=2)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    colors = grey.copy()
    colors[1] = (255, 0, 0)
    Image.fromarray(colors).save(tmp_path / "colors.png")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    for name in ("ids.png", "grey.png"):
        found = look_at([tmp_path / name])
        assert (found.shares, found.numbers) == ({"0": 0.75, "255": 0.25}, [0, 255])
        assert found.short_side_px == 4
    found = look_at([tmp_path / name for name in ("colors.png", "photo.png", "broken.png")])
    assert found.shares == {"#000000": 0.5, "#ff0000": 0.25, "#ffffff": 0.25}
    assert found.in_colors
    assert "a picture, no label file" in found.problems[str(tmp_path / "photo.png")]
    assert str(tmp_path / "broken.png") in found.problems
