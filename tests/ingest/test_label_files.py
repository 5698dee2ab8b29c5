"""What label files of every kind become: the right class ids, or the reason why not."""

import io
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.config.vocabulary import CLASS_COLORS, Vocabulary
from pipeline.images.faults import UnreadableImageError
from pipeline.images.label_files import decode_labels
from pipeline.images.limits import Limits
from pipeline.records.rows import ImageRow
from stages.ingest.scan import Reading, ScanResult, scan
from stages.labels.images import read_mask
from tests.conftest import VOCABULARY

IDS = np.zeros((48, 64), np.uint8)
IDS[10:20, 10:20], IDS[30:40, 30:50], IDS[:2] = 1, 2, 255
COLORS = np.zeros((256, 3), np.uint8)
COLORS[1], COLORS[2], COLORS[255] = (255, 0, 0), (0, 0, 255), (224, 224, 192)
SCHEMES = {
    "tens": {0: "background", 10: "disc", 20: "box", 255: "ignore"},
    "rest": {10: "disc", "*": "background"},
    "rest of colors": {"#ff0000": "disc", "*": "background"},
    "own": {"#000000": "background", "#ff0000": "box", "#0000ff": "disc", "#e0e0c0": "ignore"},
}
Keys = dict[str, Any]
Scan = Callable[..., ScanResult]
Ingest = Callable[..., CompletedProcess[str]]


def vocabulary(**keys: Any) -> Vocabulary:
    return Vocabulary.model_validate({**VOCABULARY, "label_schemes": SCHEMES, **keys})


def exif(orientation: int | None) -> Keys:
    found = Image.Exif()
    if orientation is not None:
        found[0x0112] = orientation
    return {"exif": found}


def grey(ids: np.ndarray[Any, Any] = IDS) -> Image.Image:
    return Image.fromarray(ids)


def palette_of(colors: np.ndarray[Any, Any]) -> Image.Image:
    image = grey()
    image.putpalette(colors.tobytes())
    return image


def in_colors(ids: np.ndarray[Any, Any] = IDS) -> Image.Image:
    return Image.fromarray(COLORS[ids])


def encoded(image: Image.Image, file_format: str = "PNG", **keys: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **keys)
    return buffer.getvalue()


@pytest.fixture
def scan_one(tmp_path: Path) -> Scan:
    """Scans an image with this label file: ``scan_one(mask, scheme=None)``."""

    def scan_one(
        mask: Image.Image | bytes,
        scheme: str | None = None,
        *,
        size: tuple[int, int] = (64, 48),
        turn: int | None = None,
        vocabulary: Vocabulary = vocabulary(),  # noqa: B008 - it cannot change
    ) -> ScanResult:
        Image.new("RGB", size).save(tmp_path / "image.jpg", **exif(turn))
        content = mask if isinstance(mask, bytes) else encoded(mask)
        (tmp_path / "mask.png").write_bytes(content)
        names = ("problem", "mask_stamp", "caption", "url")
        entry: Keys = {**dict.fromkeys(names), "scheme": scheme, "source": "x", "role": "labeled"}
        entry |= {"image": str(tmp_path / "image.jpg"), "mask": str(tmp_path / "mask.png")}
        entry |= {"row": 0, "present": True, "stamp": "3:4"}
        [result] = scan([entry], {}, Reading(vocabulary, Limits(), {}))
        return result

    return scan_one


def assert_read(result: ScanResult, expected: np.ndarray[Any, Any] = IDS) -> ImageRow:
    """Checks that ingest accepts the label file, and that later stages read these class ids."""
    assert result.problem is None
    assert result.row["mask_class_ids"] == [int(i) for i in np.unique(expected) if i != 255]
    np.testing.assert_array_equal(read_mask(result.row, vocabulary()), expected)
    return result.row


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


@pytest.mark.parametrize(("mask", "scheme"), [(in_colors(), "rest"), (grey(), "rest of colors")])
def test_the_others_of_a_scheme_are_of_its_kind(
    mask: Image.Image, scheme: str, scan_one: Scan
) -> None:
    """Else a whole file that the scheme is not for would be one class."""
    assert "is not in the vocabulary" in str(scan_one(mask, scheme).problem)


def tiff(*pages: Image.Image) -> bytes:
    return encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])


PREVIEW = grey().resize((32, 24))
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "JPEG": (lambda: encoded(grey(), "JPEG", quality=100), "JPEG changes values: save PNG"),
    "JPEG in a TIFF": (
        lambda: encoded(grey(), "TIFF", compression="jpeg"),
        "JPEG in a TIFF changes values: save PNG",
    ),
    "lossy WebP": (
        lambda: encoded(in_colors(), "WEBP"),
        "lossy WebP changes values: save PNG",
    ),
    "AVIF": (lambda: encoded(in_colors(), "AVIF"), "AVIF changes values: save PNG"),
    "JPEG 2000": (
        lambda: encoded(grey(), "JPEG2000", quality_layers=[20]),
        "JPEG 2000 changes values: save PNG",
    ),
    "16 bits a channel": (lambda: deep_png(), "16 bits a channel, of which only 8 can be read: "),
    "a scaled PGM": (
        lambda: b"P5 64 48 2\n" + np.minimum(IDS, 2).tobytes(),
        "its values are scaled, since its header has 2 as the largest one: save PNG",
    ),
    "a GIF of greys": (lambda: encoded(grey(IDS % 5 * 7), "GIF"), "GIF numbers values anew: "),
    "two pages": (lambda: tiff(grey(), grey()), "holds 2 pictures; a label file holds one"),
    "an animation": (
        lambda: encoded(grey(), "GIF", save_all=True, append_images=[grey(IDS * 0)]),
        "holds 2 pictures; a label file holds one",
    ),
}


def deep_png() -> bytes:
    """A PNG of colours with 16 bits a channel, of which Pillow would read the upper 8: all 0."""
    from zlib import compress

    from tests.ingest.test_hostile import chunk

    deep = np.repeat(IDS.astype(">u2")[..., None], 3, 2)
    lines = b"".join(b"\0" + line.tobytes() for line in deep)
    header = (64).to_bytes(4, "big") + (48).to_bytes(4, "big") + bytes([16, 2, 0, 0, 0])
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("kind", REFUSED)
def test_files_that_do_not_hold_what_was_saved_are_refused(kind: str, scan_one: Scan) -> None:
    make, reason = REFUSED[kind]
    content = make()
    with pytest.raises(UnreadableImageError) as error:
        decode_labels(content)
    assert str(error.value).startswith(reason)
    problem = str(scan_one(content).problem)
    assert f"cannot read the label file: {reason}" in problem
    assert problem.endswith("; replace it with a label image, e.g. a PNG of class ids")


EXACT: dict[str, Callable[[], bytes]] = {
    "BMP": lambda: encoded(grey(), "BMP"),
    "GIF": lambda: encoded(palette_of(COLORS), "GIF", optimize=False),
    "a GIF of black and white": lambda: encoded(grey(IDS // 255 * 255), "GIF"),
    "PGM": lambda: encoded(grey(), "PPM"),
    "lossless WebP": lambda: encoded(grey(), "WEBP", lossless=True),
    "LZW": lambda: encoded(grey(), "TIFF", compression="tiff_lzw"),
    "a TIFF with a preview": lambda: tiff(grey(), PREVIEW),
    "32 bits": lambda: encoded(Image.fromarray(IDS.astype(np.int32)), "TIFF"),
}


@pytest.mark.parametrize("kind", EXACT)
def test_files_that_hold_what_was_saved_are_read(kind: str, scan_one: Scan) -> None:
    expected = np.where(IDS == 255, 1, 0) if "black and white" in kind else IDS
    assert_read(scan_one(EXACT[kind]()), expected)


def test_changed_class_colors_make_what_was_read_by_them_stale(
    ingest: Ingest, rows: Callable[[], pd.DataFrame], data: Path, tiny: dict[str, Any]
) -> None:
    for path in (data / "labeled/masks").iterdir():
        with Image.open(path) as mask:
            ids = np.asarray(mask)
        Image.fromarray(COLORS[ids]).save(path)
    assert ingest().returncode == 0
    schemes = rows().label_scheme
    assert set(schemes[rows().role == "labeled"]) == {CLASS_COLORS}
    assert schemes[rows().role != "labeled"].isna().all()
    assert "ingest: nothing to do, 2 fresh\n" in ingest().stderr
    swapped = [*VOCABULARY["classes"]]
    swapped[1], swapped[2] = ({**swapped[n], "color": swapped[3 - n]["color"]} for n in (1, 2))
    done = ingest(classes=swapped)
    assert "ingest: vocabulary.class_colors.#0000ff 2 -> 1: shard 0\n" in done.stderr
    other = [{**entry, "color": "#123456"} for entry in VOCABULARY["classes"]]
    done = ingest(classes=other)
    assert done.returncode == 1
    assert "colour #0000ff, #ff0000 is not in the vocabulary" in done.stderr
    for path in (data / "labeled/masks").iterdir():
        grey(np.eye(24, 32, dtype=np.uint8)).save(path)
    assert ingest(classes=other).returncode == 0
    assert "ingest: nothing to do, 2 fresh\n" in ingest().stderr  # no file is in these colors now
