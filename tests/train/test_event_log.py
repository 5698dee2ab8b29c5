from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from pipeline.files import locations, storage
from stages.train.records.tensorboard import EventFiles
from tests.file_limits import files_limited_to


def write(
    folder: Path,
    start: int,
    steps: range,
    value: float = 0.0,
    warn: Callable[[str], None] = pytest.fail,
) -> EventFiles:
    """A log of steps, which nobody closed, as after a kill."""
    log = EventFiles(folder, start, warn)
    for step in steps:
        log.scalars(step, {"loss/total": value + step, "labeled/ema": 0.5})
        log.picture(step, "examples/ood", np.full((2, 3, 3), step, np.uint8))
    log.flush()
    return log


def seen(folder: Path) -> list[tuple[int, float]]:
    """Steps and values of the loss, as TensorBoard shows them."""
    shown = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()
    steps = [event.step for event in shown.Images("examples/ood")]
    scalars = shown.Scalars("loss/total")
    assert steps == [event.step for event in scalars]
    return [(event.step, event.value) for event in scalars]


def stored(folder: Path) -> list[int]:
    """Steps of the loss in all files, read one by one."""
    return sorted(
        event.step
        for path in folder.iterdir()
        for event in LegacyEventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.tag == "loss/total"
    )


@pytest.fixture(autouse=True)
def seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks at the clock finds it a second later: TensorBoard orders files by seconds."""
    clock = count(1_700_000_000)
    monkeypatch.setattr("time.time", lambda: float(next(clock)))


@pytest.fixture
def logs() -> Iterator[list[EventFiles]]:
    """Logs to close in the end."""
    opened: list[EventFiles] = []
    yield opened
    for log in opened:
        log.close()


def test_tensorboard_shows_numbers_and_pictures(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 4)).close()
    assert seen(tmp_path) == [(1, 1.0), (2, 2.0), (3, 3.0)]
    shown = EventAccumulator(str(tmp_path)).Reload()
    assert set(shown.Tags()["scalars"]) == {"loss/total", "labeled/ema"}
    picture = shown.Images("examples/ood")[-1]
    with Image.open(BytesIO(picture.encoded_image_string)) as image:
        assert np.array(image).tolist() == [[[3, 3, 3]] * 3] * 2


def test_a_resumed_training_leaves_nothing_twice(tmp_path: Path, logs: list[EventFiles]) -> None:
    """Killed after step 5, its last checkpoint of step 3; and again, and before any checkpoint."""
    logs.append(write(tmp_path, 0, range(1, 6)))
    logs.append(write(tmp_path, 3, range(4, 8), value=100))
    assert seen(tmp_path) == [(1, 1), (2, 2), (3, 3), (4, 104), (5, 105), (6, 106), (7, 107)]
    logs.append(write(tmp_path, 3, range(4, 6), value=200))
    assert seen(tmp_path) == [(1, 1), (2, 2), (3, 3), (4, 204), (5, 205)]
    assert stored(tmp_path) == [1, 2, 3, 4, 5]
    assert len([*tmp_path.iterdir()]) == 2


def test_a_tensorboard_that_runs_forgets_what_is_done_again(
    tmp_path: Path, logs: list[EventFiles]
) -> None:
    logs.append(write(tmp_path, 0, range(1, 6)))
    shown = EventAccumulator(str(tmp_path)).Reload()
    logs.append(write(tmp_path, 3, range(4, 6), value=100))
    steps = [(event.step, event.value) for event in shown.Reload().Scalars("loss/total")]
    assert steps == [(1, 1), (2, 2), (3, 3), (4, 104), (5, 105)]


def test_a_training_from_the_start_forgets_all(tmp_path: Path, logs: list[EventFiles]) -> None:
    logs.append(write(tmp_path, 0, range(1, 6)))
    logs.append(write(tmp_path, 0, range(1, 3), value=100))
    assert seen(tmp_path) == [(1, 101), (2, 102)]
    assert len([*tmp_path.iterdir()]) == 1


@pytest.mark.parametrize("lost", [1, 5, 40, 90])
def test_a_record_that_a_kill_cut_off_is_left_out(
    tmp_path: Path, logs: list[EventFiles], lost: int
) -> None:
    logs.append(write(tmp_path, 0, range(1, 6)))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-lost])
    logs.append(write(tmp_path, 5, range(6, 8)))
    steps = [event.step for event in EventAccumulator(str(tmp_path)).Reload().Scalars("loss/total")]
    assert steps == [1, 2, 3, 4, 5, 6, 7]


def flipped(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "note").touch()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: flipped(path, 0),  # of a length
        lambda path: flipped(path, 12),  # of data
        lambda path: path.write_bytes(b"garbage" * 99),
        lambda path: path.write_bytes(path.read_bytes() + bytes(64)),  # as a lost power leaves it
        folder_instead,
    ],
)
def test_a_damaged_file_is_set_aside(
    spoil: Callable[[Path], None], tmp_path: Path, logs: list[EventFiles]
) -> None:
    logs.append(write(tmp_path, 0, range(1, 4)))
    (path,) = tmp_path.iterdir()
    spoil(path)
    warnings: list[str] = []
    logs.append(write(tmp_path, 3, range(4, 6), warn=warnings.append))
    assert seen(tmp_path) == [(4, 4), (5, 5)]
    name = path.name.replace("tfevents", "damaged")
    assert warnings == [f"{path} is damaged; renamed to {name}, the training does not need it"]
    assert (tmp_path / name).exists()
    logs.append(write(tmp_path, 5, range(6, 7)))
    assert seen(tmp_path) == [(4, 4), (5, 5), (6, 6)]


def test_a_resume_that_repeats_nothing_leaves_old_files_alone(
    tmp_path: Path, logs: list[EventFiles]
) -> None:
    logs.append(write(tmp_path, 0, range(1, 4)))
    (path,) = tmp_path.iterdir()
    before = path.stat()
    logs.append(write(tmp_path, 3, range(4, 5)))
    assert (path.stat().st_ino, path.stat().st_size) == (before.st_ino, before.st_size)


def test_a_log_in_an_object_store_continues_too(bucket: str, tmp_path: Path) -> None:
    folder = locations.location(f"{bucket}/tensorboard")
    write(folder, 0, range(1, 6)).close()
    write(folder, 3, range(4, 6), value=100).close()
    for path in folder.glob("*"):
        (tmp_path / path.name).write_bytes(storage.read_bytes(path))
    assert seen(tmp_path) == [(1, 1), (2, 2), (3, 3), (4, 104), (5, 105)]
    spoiled = next(folder.glob("*"))
    storage.write_bytes(spoiled, b"garbage" * 99)
    warnings: list[str] = []
    write(folder, 5, range(6, 7), warn=warnings.append).close()
    assert len(warnings) == 1
    aside = folder / spoiled.name.replace("tfevents", "damaged")
    assert storage.read_bytes(aside) == b"garbage" * 99
    assert not spoiled.exists()


def test_a_full_disk_is_an_error_of_the_caller(tmp_path: Path) -> None:
    log = write(tmp_path, 0, range(1, 2))
    losses = {f"loss/{number}": 1.0 for number in range(100)}
    with files_limited_to(2000), pytest.raises(OSError, match="File too large") as error:
        log.scalars(2, losses)
    assert error.value.filename == str(next(tmp_path.iterdir()))
    with suppress(OSError):
        log.close()
    assert stored(tmp_path)[0] == 1
