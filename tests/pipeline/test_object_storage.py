"""Single files in an object store: whole or not at all, and other than a store that fails."""

import errno
import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import StorageError
from pipeline.files import file_stamps, locations, s3_objects, storage, tar
from pipeline.images import faults, images
from pipeline.images.limits import Limits
from pipeline.records.label_reader import LabelReader, StoredLabel
from pipeline.records.label_store import LabelStore
from stages.ingest.containment import Root
from tests.s3_server import Fault, Proxy, forget_clients


def test_paths_join_and_never_leave_their_bucket(bucket: str) -> None:
    folder = locations.location(f"{bucket}/data")
    assert str(locations.join(folder, Path("train/images"))) == f"{bucket}/data/train/images"
    assert str(locations.join(folder, Path("../other"))) == f"{bucket}/other"
    assert str(locations.join(folder, Path("../../../x"))) == f"{bucket}/x"
    assert str(locations.join(folder, "s3://elsewhere/y")) == "s3://elsewhere/y"
    assert locations.join(folder, Path("/local")) == Path("/local")
    assert locations.join(Path("/data"), Path("a/b")) == Path("/data/a/b")
    part = folder / "manifests/part-0.parquet"
    path = storage.relative(folder / "artifacts/x", part.parent)
    assert path == "../artifacts/x"
    assert storage.from_relative(part.parent, path) == folder / "artifacts/x"
    assert pickle.loads(pickle.dumps(folder)) == folder


def test_without_s3fs_an_address_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.files.locations.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'maskmill\[s3\]'"):
        locations.location("s3://bucket/x")


def fill_half(path: Path) -> None:
    with storage.replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise ZeroDivisionError


def test_a_file_that_fails_while_it_is_filled_is_never_there(bucket: str) -> None:
    path = locations.location(f"{bucket}/file")
    storage.write_bytes(path, b"before")
    with pytest.raises(ZeroDivisionError):
        fill_half(path)
    assert storage.read_bytes(path) == b"before"


def test_bytes_are_read_within_limits(bucket: str, s3: Proxy) -> None:
    path = f"{bucket}/image"
    storage.write_bytes(locations.location(path), b"0123456789")
    s3.requests.clear()
    assert images.read_bytes(path, Limits(max_bytes=10)) == b"0123456789"
    assert len(s3.requests) == 1
    with pytest.raises(faults.UnreadableImageError, match="10 bytes; at most 9 are read"):
        images.read_bytes(path, Limits(max_bytes=9))
    storage.write_bytes(locations.location(path), b"")
    with pytest.raises(faults.UnreadableImageError, match="the file is empty"):
        images.read_bytes(path)
    with pytest.raises(faults.UnreadableImageError, match="No such file"):
        images.read_bytes(f"{bucket}/none")


@pytest.mark.parametrize("kind", ["500", "cut", "lost"])
def test_a_store_that_fails_says_nothing_of_the_image(bucket: str, s3: Proxy, kind: Any) -> None:
    storage.write_bytes(locations.location(f"{bucket}/image"), bytes(1000))
    s3.faults.append(Fault(kind, "GET .*image", times=1000))
    with pytest.raises(StorageError, match=f"{bucket}/image: the object store fails"):
        images.read_bytes(f"{bucket}/image")


def test_a_disk_that_is_gone_says_nothing_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a vanished NFS mount answers; such a mount cannot be had here."""

    def stale(path: str) -> Any:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)

    monkeypatch.setattr("pipeline.files.storage.os.stat", stale)
    with pytest.raises(OSError, match="Stale"):
        images.read_bytes("/mnt/image.png")


def test_stamps_come_from_listings_and_change_with_the_object(bucket: str, s3: Proxy) -> None:
    for number in range(20):
        name = locations.location(f"{bucket}/web/{number % 2}/{number}.png")
        storage.write_bytes(name, b"%d" % number)
    root = Root(locations.location(f"{bucket}/web"), follow_links=False)
    s3.requests.clear()
    listed = [path for path, problem in root.files() if problem is None]
    stamps = {path: file_stamps.stamp(path) for path in listed}
    assert len(listed) == 20
    assert None not in stamps.values()
    assert file_stamps.stamp(f"{bucket}/web/0/none.png") is None
    assert len(s3.requests) == 1
    storage.write_bytes(locations.location(listed[3]), b"other")
    root = Root(locations.location(f"{bucket}/web"), follow_links=False)
    s3.requests.clear()
    changed = [path for path in listed if file_stamps.stamp(path) != stamps[path]]
    assert changed == [listed[3]]
    assert len(s3.requests) == 2  # a folder each


def test_a_root_is_not_left(bucket: str) -> None:
    root = Root(locations.location(f"{bucket}/web"), follow_links=True)
    assert root.problem(f"{bucket}/web/a/../b.png") is None
    for path in ("/web/../x", "/webs/x", "/web/a/../../x"):
        assert root.problem(bucket + path) == f"leads out of {bucket}/web"
    assert root.problem("/etc/passwd") is not None
    assert root.problem("s3://other/web/x") is not None


def test_an_archive_is_listed_by_blocks_and_its_files_are_read_by_one_request(
    bucket: str, s3: Proxy
) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for number in range(50):
            header = tarfile.TarInfo(f"{number:05d}.jpg")
            header.size = 1000 + number
            archive.addfile(header, io.BytesIO(bytes([number]) * header.size))
    storage.write_bytes(locations.location(f"{bucket}/0.tar"), content.getvalue())
    s3.requests.clear()
    entries = list(tar.entries(f"{bucket}/0.tar"))
    assert len(s3.requests) == 2  # its size, a block
    assert len(entries) == 50
    s3.requests.clear()
    assert images.read_bytes(entries[7].member.uri) == bytes([7]) * 1007
    assert len(s3.requests) == 1
    storage.write_bytes(locations.location(f"{bucket}/0.tar"), content.getvalue()[:5000])
    with pytest.raises(faults.UnreadableImageError, match="no longer at this place"):
        images.read_bytes(entries[7].member.uri)


@pytest.fixture
def store(bucket: str) -> LabelStore:
    made = LabelStore(locations.location(f"{bucket}/labels.zarr/abc"), shard_size=4, size_px=32)
    made.grow(2)
    masks = np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((1, 32, 32), np.uint8)
    made.write(1, [4, 5, 6, 7], masks, masks[:, :8, :8])
    return made


@pytest.mark.parametrize("kind", ["500", "cut"])
def test_labels_are_read_although_the_store_stumbles(
    store: LabelStore, s3: Proxy, kind: Any
) -> None:
    s3.faults += [Fault(kind, "GET .*mask/zarr.json"), Fault(kind, "GET .*mask/c/1", times=2)]
    ((mask, confidence),) = LabelReader().read([StoredLabel(store.path, 6, (20, 32))])
    assert s3.hits == 3
    assert (mask == 2).all()
    assert (mask.shape, confidence.shape) == ((20, 32), (5, 8))


@pytest.mark.parametrize("kind", ["500", "cut"])
def test_labels_of_a_store_that_fails_are_not_damaged(
    store: LabelStore, s3: Proxy, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(s3_objects._RETRIES, "max_retries", 1)
    s3.faults.append(Fault(kind, "GET .*mask/c/1", times=1000))
    with pytest.raises(StorageError, match="the object store fails"):
        LabelReader().read([StoredLabel(store.path, 6, (20, 32))])


def test_labels_that_are_damaged_or_gone_are_reported_as_on_a_disk(store: LabelStore) -> None:
    storage.write_bytes(store.shard_file(1), b"something else")
    with pytest.raises(StorageError, match="damaged labels"):
        LabelReader().read([StoredLabel(store.path, 6, (20, 32))])
    storage.remove(store.path)
    with pytest.raises(StorageError, match="damaged labels"):
        LabelReader().read([StoredLabel(store.path, 6, (20, 32))])


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("AWS_ENDPOINT_URL", "localhost:9000", "begin it with http:// or https://"),
        ("AWS_ENDPOINT_URL_S3", "http://", "begin it with http:// or https://"),
        ("AWS_MAX_ATTEMPTS", "x", "set it to a number from 1 on"),
        ("AWS_MAX_ATTEMPTS", "-1", "set it to a number from 1 on"),
        ("AWS_RETRY_MODE", "often", "set it to legacy, standard or adaptive"),
    ],
)
def test_a_variable_that_is_set_wrong_is_named(
    name: str, value: str, fix: str, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    for ask in (
        lambda: storage.read_bytes(f"{bucket}/x"),
        lambda: s3_objects.kvstore(f"{bucket}/x"),
    ):
        forget_clients()
        with pytest.raises(StorageError, match=f"^{name}: .*{value}.*; {fix}$"):
            ask()
