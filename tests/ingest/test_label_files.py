"""What label files of every kind become: the right class ids, or the reason why not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config.vocabulary import CLASS_COLORS
from stages.labels.images import read_mask
from tests.conftest import VOCABULARY
from tests.ingest.masks import (
    COLORS,
    IDS,
    Scan,
    assert_read,
    encoded,
    exif,
    grey,
    in_colors,
    palette_of,
    scan_one,
    vocabulary,
)

__all__ = ["scan_one"]


def test_a_raw_mask_of_a_turned_image_is_told_both_sizes(scan_one: Scan, tmp_path: Path) -> None:
    assert str(scan_one(grey(), turn=6).problem) == (
        f"{tmp_path}/mask.png: the mask is 64 x 48 pixels but its image {tmp_path}/image.jpg is "
        "48 x 64 after its EXIF orientation; stored 64 x 48; turn the mask like the image, or take "
        "the orientation out of the image's EXIF data"
    )
    assert str(scan_one(encoded(grey(), **exif(8))).problem) == (
        f"{tmp_path}/mask.png: the mask is 48 x 64 pixels after its EXIF orientation; stored "
        f"64 x 48 but its image {tmp_path}/image.jpg is 64 x 48; take the orientation out of the "
        "mask's EXIF data"
    )
    other = str(scan_one(grey(IDS[:40]), turn=6).problem)
    assert other.endswith("; stored 64 x 48; use a mask of the same size")


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
def test_a_mask_that_is_turned_as_its_image_fits(turn: int, scan_one: Scan) -> None:
    row = scan_one(encoded(grey(), **exif(turn)), turn=turn).row
    assert (row["width"], row["height"], row.get("remark")) == (48, 64, None)
    assert "remark" not in scan_one(grey(IDS.T), turn=turn).row  # it can only be upright


@pytest.mark.parametrize(("turn", "size"), [(3, (64, 48)), (2, (64, 48)), (6, (48, 48))])
def test_a_mask_whose_size_fits_both_ways_is_remarked(
    turn: int, size: tuple[int, int], scan_one: Scan
) -> None:
    ids = IDS[:, : size[0]]
    remark = scan_one(grey(ids), size=size, turn=turn).row["remark"]
    assert str(remark).startswith("turned by EXIF, but the label file is not, and its size fits")
    assert "remark" not in scan_one(encoded(grey(ids), **exif(turn)), size=size, turn=turn).row


SAME: dict[str, Image.Image] = {
    "RGB": grey().convert("RGB"),
    "RGBA": grey().convert("RGBA"),
    "grey and alpha": Image.merge("LA", (grey(), grey(255 - IDS))),
    "16 bits": Image.fromarray(IDS.astype(np.uint16)),
}


@pytest.mark.parametrize("kind", SAME)
def test_equal_channels_are_class_ids(kind: str, scan_one: Scan) -> None:
    assert assert_read(scan_one(SAME[kind]))["label_scheme"] is None


def test_equal_channels_are_values_of_a_scheme(scan_one: Scan) -> None:
    tens = np.where(IDS == 255, 255, IDS * 10).astype(np.uint8)
    assert_read(scan_one(grey(tens).convert("RGB"), "tens"))
    expected = np.where(IDS == 1, 1, 0)
    assert_read(scan_one(grey(tens).convert("RGB"), "rest"), expected)


@pytest.mark.parametrize("scheme", [None, CLASS_COLORS])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_colors_of_the_classes_are_read(scheme: str | None, mode: str, scan_one: Scan) -> None:
    row = assert_read(scan_one(in_colors().convert(mode), scheme))
    assert row["label_scheme"] == CLASS_COLORS  # by which later readers and facts go


def test_a_scheme_goes_before_the_colors_of_the_classes(scan_one: Scan) -> None:
    expected = np.array([0, 2, 1])[np.minimum(IDS, 2)]
    assert_read(scan_one(in_colors(), "own"), np.where(IDS == 255, 255, expected))


def test_a_file_of_one_color_is_read_too(scan_one: Scan) -> None:
    assert_read(scan_one(in_colors(np.zeros_like(IDS))), np.zeros_like(IDS))
    assert_read(scan_one(in_colors(np.full_like(IDS, 2))), np.full_like(IDS, 2))


def test_a_palette_with_the_classes_colors_at_other_numbers_is_asked_about(
    scan_one: Scan, tmp_path: Path
) -> None:
    assert_read(scan_one(palette_of(COLORS)))
    assert_read(scan_one(palette_of(np.zeros((256, 3), np.uint8))))
    exchanged = COLORS.copy()
    exchanged[[1, 2]] = COLORS[[2, 1]]
    assert str(scan_one(palette_of(exchanged)).problem).endswith(
        "its palette has the colours of the classes at other numbers than the class ids; "
        "save it as RGB, or as class ids"
    )


def test_ignored_pixels_of_a_palette_may_have_any_color(scan_one: Scan) -> None:
    """Such as that of the first class: where a palette was not set to the end, 255 is black."""
    black = COLORS.copy()
    black[255] = COLORS[0]
    assert_read(scan_one(palette_of(black)))
    only_ignored = np.full_like(IDS, 255)
    picture = Image.fromarray(only_ignored)
    picture.putpalette(black.tobytes())
    assert_read(scan_one(picture), only_ignored)


def test_unknown_colors_are_named_and_counted(scan_one: Scan, tmp_path: Path) -> None:
    ids = IDS.copy()
    noise = COLORS.copy()
    noise[100:108] = [[10, 20, value] for value in range(8)]
    ids[20, :8] = range(100, 108)
    assert str(scan_one(Image.fromarray(noise[ids])).problem) == (
        f"{tmp_path}/mask.png: colour #0a1400, #0a1401, #0a1402, #0a1403, #0a1404, ... is not in "
        "the vocabulary (8 colours); use class ids 0 to 2 and 255 (= ignore), or the colours of "
        "the classes, or set `label_scheme` of the source to a scheme that has it"
    )


def test_greys_that_mean_two_things_are_asked_about(scan_one: Scan) -> None:
    classes = [{"name": "sky", "color": "#000000"}, {"name": "car", "color": "#ffffff"}]
    own = vocabulary(classes=classes, background=None, label_schemes={})
    car = np.where(IDS == 1, 255, 0).astype(np.uint8)
    problem = str(scan_one(grey(car).convert("RGB"), vocabulary=own).problem)
    assert problem.endswith(
        "its greys can be class ids, or colours of classes; save class ids in one channel, or set "
        "`label_scheme: class colors` of the source"
    )
    row = scan_one(grey(car).convert("RGB"), CLASS_COLORS, vocabulary=own).row
    assert row["mask_class_ids"] == [0, 1]
    assert scan_one(grey(car), vocabulary=own).row["mask_class_ids"] == [0]  # 255 is ignore


def test_a_color_of_two_classes_names_none(scan_one: Scan) -> None:
    classes = [{"name": n, "color": c} for n, c in (("a", "#ff0000"), ("b", "#FF0000"))]
    own = vocabulary(classes=classes, background=None, label_schemes={})
    assert "#ff0000 is not in the vocabulary" in str(scan_one(in_colors(), vocabulary=own).problem)


@pytest.mark.parametrize(
    ("size", "turn", "own", "how"),
    [((64, 48), None, 3, "is not"), ((48, 48), None, 6, "is not"), ((64, 48), 2, 3, "in another")],
)
def test_a_mask_that_its_own_exif_turns_is_remarked(
    size: tuple[int, int], turn: int | None, own: int, how: str, scan_one: Scan
) -> None:
    """Else it may lie the wrong way over an image that no data turns."""
    mask = encoded(grey(IDS[: size[1], : size[0]]), **exif(own))
    remark = str(scan_one(mask, size=size, turn=turn).row["remark"])
    assert remark.startswith(f"its label file is turned by its own EXIF, but the image {how}")
    assert remark.endswith("its size fits both ways: look at it with `maskmill show`")


def test_a_mask_that_only_fits_turned_is_not_remarked(scan_one: Scan) -> None:
    assert "remark" not in scan_one(encoded(grey(IDS.T.copy()), **exif(6))).row


GREYS = {
    "classes": [
        {**entry, "color": color}
        for entry, color in zip(
            VOCABULARY["classes"], ("#000000", "#4c4c4c", "#969696"), strict=True
        )
    ]
}
GREY_VALUES = np.array([0, 76, 150], np.uint8)


def test_greys_that_are_colours_of_classes_say_how_they_are_read(scan_one: Scan) -> None:
    classes = vocabulary(**GREYS)
    values = grey(GREY_VALUES[np.where(IDS == 255, 0, IDS)])
    fix = str(scan_one(values, vocabulary=classes).problem)
    assert fix.endswith("its greys are colours of classes: set `label_scheme: class colors`")
    row = scan_one(values, CLASS_COLORS, vocabulary=classes).row
    np.testing.assert_array_equal(read_mask(row, classes), np.where(IDS == 255, 0, IDS))
    assert "has it" in str(scan_one(values).problem)


def test_a_palette_is_read_by_its_colours_where_the_scheme_says_so(scan_one: Scan) -> None:
    """The numbers of this palette are not the class ids."""
    shuffled = np.roll(COLORS, 7, axis=0)
    mask = Image.fromarray((IDS.astype(int) + 7).astype(np.uint8))
    mask.putpalette(shuffled.tobytes())
    row = scan_one(mask, CLASS_COLORS).row
    np.testing.assert_array_equal(read_mask(row, vocabulary()), IDS)
