"""A condition of the machine that may pass is never kept as a fact of an image."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pyarrow.compute as pc
import pytest
from PIL import Image

from pipeline import stopping
from pipeline.config import config as config_file
from pipeline.config.vocabulary import Vocabulary
from pipeline.console import Console
from pipeline.engine.stage import Context
from pipeline.errors import DataError
from pipeline.images import images
from pipeline.images.faults import UnreachableImageError, UnreadableImageError
from pipeline.images.limits import Limits
from pipeline.images.opening import TimedBytes
from pipeline.records.rows import ImageRow
from stages.ingest.config import IngestConfig
from stages.ingest.scan import Reading, content_ids, scan
from stages.ingest.stage import IngestStage
from stages.ingest.tar_index import read_index
from stages.labels.images import fitted_pixels, read_ahead, read_pixels
from tests.process_limits import in_new_process, memory_limited_to, no_more_open_files

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
READING = Reading(
    Vocabulary.model_validate(
        {"name": "one", "classes": [{"name": "background", "color": "#000000"}]}
    ),
    Limits(),
    {},
)
SIDE = 4000
LITTLE = 8 * 2**20
"""Bytes that are enough for a small image, but not for one of `SIDE` px."""
LARGE = Image.new("RGB", (SIDE, SIDE))
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "PNG": ("PNG", {}),
    "JPEG": ("JPEG", {}),
    "progressive JPEG": ("JPEG", {"progressive": True}),
    "GIF": ("GIF", {}),
    "WebP": ("WEBP", {"method": 0}),
    "lossless WebP": ("WEBP", {"method": 0, "lossless": True}),
    "WebP with metadata": ("WEBP", {"method": 0, "exif": b"Exif\0\0" + bytes(40)}),
    "TIFF": ("TIFF", {"compression": "tiff_lzw"}),
    "PPM": ("PPM", {}),
}


def entry(image: Path, mask: Path | None = None, **columns: Any) -> dict[str, Any]:
    """A row of the layout."""
    names = ("scheme", "problem", "mask_stamp", "caption", "url")
    paths = {"image": str(image), "mask": None if mask is None else str(mask)}
    where = {"source": "web", "role": "labeled", "row": 5, "present": True, "stamp": "3:4"}
    return {**dict.fromkeys(names), **paths, **where, **columns}


def encoded(image: Image.Image, file_format: str = "PNG", **keys: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **keys)
    return buffer.getvalue()


@on_linux
@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_for_which_memory_is_lacking_is_not_damaged(kind: str) -> None:
    file_format, keys = FORMATS[kind]
    content = encoded(LARGE, file_format, **keys)
    with memory_limited_to(LITTLE), pytest.raises(UnreachableImageError) as error:
        images.decode_image(content)
    assert str(error.value) == "decoding it takes more memory than there is"
    assert images.decode_image(content).pixels.shape == (SIDE, SIDE, 3)


@on_linux
def test_damage_is_damage_only_where_there_is_memory() -> None:
    cut = encoded(LARGE)[:-50]
    with memory_limited_to(LITTLE), pytest.raises(UnreachableImageError):
        images.decode_image(cut)
    with pytest.raises(UnreadableImageError, match=r"^damaged: ") as error:
        images.decode_image(cut)
    assert not isinstance(error.value, UnreachableImageError)


@on_linux
@in_new_process
def test_rows_of_images_and_label_files_fail_and_are_read_when_there_is_memory(
    tmp_path: Path,
) -> None:
    large, small, mask = (tmp_path / name for name in ("large.png", "small.png", "mask.png"))
    large.write_bytes(encoded(LARGE))
    mask.write_bytes(encoded(LARGE))
    Image.new("RGB", (4, 4)).save(small)
    entries = [entry(small), entry(large), entry(small, mask)]
    with memory_limited_to(6 * LITTLE):  # threads take some
        results = scan(entries, {}, READING)
    assert [result.row["status"] for result in results] == ["ok", "failed", "failed"]
    assert [result.problem for result in results] == [None] * 3
    reason = "decoding it takes more memory than there is"
    reasons = [reason, f"label file {mask}: {reason}"]
    assert [result.row["error_message"] for result in results[1:]] == reasons
    _, image, masked = scan(entries, {}, READING)
    assert image.row["status"] == "ok"
    assert "the mask is 4000 x 4000 pixels but" in str(masked.problem)


@on_linux
@in_new_process
def test_later_readers_say_that_memory_is_lacking(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(encoded(LARGE))
    row = {"uri": str(path), "image_id": images.content_id(path.read_bytes())}
    with memory_limited_to(6 * LITTLE):
        [failed] = read_ahead(lambda one: fitted_pixels(one, 32), [row])  # type: ignore[arg-type]
        with pytest.raises(DataError, match=r"memory than there is; remove the cause and run"):
            read_pixels(row)  # type: ignore[arg-type]
    assert isinstance(failed, UnreachableImageError)


def test_time_that_others_take_does_not_count() -> None:
    def work() -> None:
        while time.thread_time() < 0.05:
            pass

    content = TimedBytes(b"abc", seconds=0.04)
    other = threading.Thread(target=work)
    other.start()
    other.join()
    assert content.read() == b"abc"
    own = TimedBytes(b"abc", seconds=0.001)
    end = time.thread_time() + 0.002
    while time.thread_time() < end:
        pass
    with pytest.raises(UnreadableImageError, match=r"^takes more than 0.001 s to decode$"):
        own.read()


def test_a_listed_file_that_is_missing_may_come_back(tmp_path: Path) -> None:
    """A disk that was unmounted after the listing comes back with all stamps unchanged."""
    entries = [entry(tmp_path / "none.png"), entry(tmp_path / "none.png", stamp=None)]
    rows = [result.row for result in scan(entries, {}, READING)]
    assert [row["status"] for row in rows] == ["failed", "rejected"]
    assert {row["error_message"] for row in rows} == {"cannot be read: No such file or directory"}


@on_linux
def test_what_was_read_of_an_image_stays_while_it_cannot_be_read(tmp_path: Path) -> None:
    before: ImageRow = {"row": 5, "image_id": "a1", "width": 4, "status": "ok", "uri": "elsewhere"}
    listed = entry(tmp_path / "gone.png")
    [result] = scan([listed], {5: before}, READING)
    found = result.row
    assert (found["status"], found["image_id"], found["width"]) == ("failed", "a1", 4)
    assert found["uri"] == listed["image"]


def test_a_sector_that_fails_is_a_row_and_a_disk_that_fails_stops_the_run(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "good.png")
    good, bad = entry(tmp_path / "good.png"), entry(Path("/proc/self/mem"))  # EIO, in truth
    rows = [result.row for result in scan([good, bad], {}, READING)]
    assert [row["status"] for row in rows] == ["ok", "failed"]
    assert rows[1]["error_message"] == "cannot be read: Input/output error"
    with pytest.raises(OSError, match="Input/output error"):
        scan([bad, bad], {}, READING)


def test_too_many_open_files_say_nothing_about_an_image(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "good.png")
    images.decode_image((tmp_path / "good.png").read_bytes())  # Pillow opens its plugins
    with no_more_open_files():
        [result] = scan([entry(tmp_path / "good.png")], {}, READING)
    reason = (result.row["status"], result.row["error_message"])
    assert reason == ("failed", "cannot be read: Too many open files")
    [result] = scan([entry(tmp_path / "good.png")], {}, READING)
    assert result.row["status"] == "ok"


@pytest.mark.parametrize("closed", ["archive", "sidecar"])
def test_an_archive_that_cannot_be_read_now_is_listed_again(
    closed: str, write_shard: Callable[[Path, int, list[str | None]], Path], tmp_path: Path
) -> None:
    archive, cache = write_shard(tmp_path / "web", 0, [None, None]), tmp_path / "cache"
    whole = read_index(str(archive), tmp_path / "other cache").listed.drop_columns("stamp")
    with closed_to_us(archive if closed == "archive" else archive.with_suffix(".parquet")):
        listed = read_index(str(archive), cache).listed.to_pylist()
        if closed == "archive":
            assert [(one["image"], one["problem"]) for one in listed] == [(str(archive), None)]
            [result] = scan([entry(archive)], {}, READING)
            assert result.row["error_message"] == "cannot be read: Permission denied"
            assert result.row["status"] == "failed"
    found = read_index(str(archive), cache).listed
    assert found.drop_columns("stamp").equals(whole)  # stamps hold the change of permission


@contextmanager
def closed_to_us(path: Path) -> Iterator[None]:
    """Takes the permission to read a file from this process, for which it must not be root."""
    path.chmod(0)
    uid = os.geteuid()
    for folder in path.parents:  # a user who is not root must get there
        if folder.stat().st_uid == uid and folder.stat().st_mode & 0o777 == 0o700:
            folder.chmod(0o711)
    if uid == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(uid)
        path.chmod(0o644)


@pytest.mark.slow
@on_linux
def test_a_run_with_little_memory_is_completed_by_one_with_more(
    write_config: Callable[..., Path],
    tiny: dict[str, Any],
    data: Path,
    ingest: Callable[..., CompletedProcess[str]],
    rows: Callable[[], pd.DataFrame],
) -> None:
    Image.new("RGB", (12000, 8000)).save(data / "ood/images/large.png", compress_level=1)
    command = [sys.executable, "-m", "maskmill", "run", "ingest", "--config"]
    limited = f'ulimit -v 1000000; exec "$@" {write_config(tiny)}'
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        ["bash", "-c", limited, "bash", *command], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "takes more memory than there is; the next run tries again\n" in done.stderr
    assert rows().status["ood/images/large.png"] == "failed"
    done = ingest()
    assert "ingest: 1 image could not be read: shard 2\n" in done.stderr
    assert set(rows().status) == {"ok"}


@on_linux
def test_a_label_file_that_cannot_be_read_now_is_no_damage(
    write_config: Callable[..., Path],
    tiny: dict[str, Any],
    data: Path,
    maskmill: Callable[..., CompletedProcess[str]],
    ingest: Callable[..., CompletedProcess[str]],
    rows: Callable[[], pd.DataFrame],
) -> None:
    ingest()
    mask = data / "labeled/masks/0.png"
    config = write_config(tiny)
    with closed_to_us(mask):
        done = maskmill("verify", "--rerun", "--config", config)
    assert done.returncode == 1
    assert f"{mask}: cannot be read: Permission denied\n" in done.stdout
    assert done.stdout.endswith(
        "2 units checked, no damage; 1 input file could not be read: remove the cause, then verify "
        "again\n"
    )
    assert set(rows().status) == {"ok"}


def test_reading_many_files_ends_when_a_signal_asks_for_it(
    write_shard: Callable[[Path, int, list[str | None]], Path], tmp_path: Path
) -> None:
    archive = write_shard(tmp_path / "web", 0, [None, None])
    Image.new("RGB", (4, 4)).save(tmp_path / "good.png")
    with stopping.on_signals(lambda _: None):
        os.kill(os.getpid(), signal.SIGTERM)
        while not stopping.asked():
            pass
        with pytest.raises(stopping.Stopped):
            list(content_ids([str(tmp_path / "good.png")], Limits()))
        with pytest.raises(stopping.Stopped):
            read_index(str(archive), tmp_path / "cache")


@on_linux
def test_a_file_that_cannot_be_asked_is_not_gone(
    write_config: Callable[..., Path],
    tiny: dict[str, Any],
    data: Path,
    tmp_path: Path,
    ingest: Callable[..., CompletedProcess[str]],
    rows: Callable[[], pd.DataFrame],
) -> None:
    """The images of a list lie in a folder that nobody may enter for a while."""
    names = [str(path) for path in sorted((data / "ood/images").iterdir())]
    (tmp_path / "list.txt").write_text("\n".join(names))
    source = {"name": "list", "file": "list.txt"}
    tiny["ingest"]["sources"]["ood"] = {"role": "ood", "source": source}
    config = write_config(tiny)
    ingest()
    before = rows()
    with closed_to_us(data / "ood/images"):
        loaded = config_file.load(config, {"ingest": IngestConfig})
        stage = IngestStage(loaded.sections["ingest"], Context(loaded, Console()))
        assert [unit.name for unit in stage.plan()]
        listed = stage.layout.table
    (data / "ood/images").chmod(0o755)
    assert listed["present"].to_pylist() == [True] * len(before)
    stamps = listed.filter(pc.equal(listed["source"], "ood"))["stamp"].to_pylist()
    assert stamps == [f"Permission denied: {name}" for name in names]
    ingest()
    pd.testing.assert_frame_equal(rows().drop(columns="stamp"), before.drop(columns="stamp"))
