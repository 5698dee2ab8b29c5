"""Sources in an object store list what the same files on a disk do."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pytest

from pipeline.files import locations, s3_objects, storage
from pipeline.records import manifest, tables
from stages.ingest.sources.folder import FolderConfig, FolderSource
from tests.s3_server import Proxy

ADDRESSES = ["uri", "mask_uri", "stamp", "mask_stamp"]
Ingest = Callable[..., CompletedProcess[str]]


def upload(folder: Path, address: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            name = f"{address}/{path.relative_to(folder).as_posix()}"
            s3_objects.client().pipe_file(name, path.read_bytes())


@pytest.fixture
def ingested(tiny: dict[str, Any], bucket: str, ingest: Ingest) -> Callable[..., pd.DataFrame]:
    """Rows of one source, on the disk or with its data in the bucket."""

    def run(source: dict[str, Any], data: str) -> pd.DataFrame:
        tiny["run"] = "remote" if storage.is_object(data) else "local"
        tiny["ingest"]["sources"] = {"web": {"role": "ood", "source": source}}
        tiny["data"] = data
        done = ingest()
        assert done.returncode == 0, done.stderr
        folder = Path(tiny["workspace"], "manifests", tiny["run"], "images")
        rows: pd.DataFrame = manifest.read(folder, tables.IMAGES).to_pandas()
        return rows

    return run


def assert_same(found: pd.DataFrame, expected: pd.DataFrame, data: Path, remote: str) -> None:
    """Equal rows, at the same places below the data."""
    kept = expected.columns.drop([*ADDRESSES, "error_message"])
    pd.testing.assert_frame_equal(found[kept], expected[kept])
    assert list(found["uri"]) == list(expected["uri"].str.replace(str(data), remote))
    messages = expected["error_message"].str.replace(str(data), remote)
    assert list(found["error_message"].fillna("")) == list(messages.fillna(""))


def test_tar_archives_with_sidecars(
    data: Path,
    bucket: str,
    ingested: Callable[..., pd.DataFrame],
    write_shard: Callable[..., Path],
    s3: Proxy,
    ingest: Ingest,
) -> None:
    write_shard(data / "web", 0, [None, "HTTP Error 404", None])
    write_shard(data / "web", 1, [None])
    upload(data / "web", f"{bucket}/crawl/web")
    source = {"name": "webdataset", "shards": "web"}
    expected = ingested(source, str(data))
    found = ingested(source, f"{bucket}/crawl")
    assert_same(found, expected, data, f"{bucket}/crawl")
    assert list(found["url"]) == ["http://x/000000000", "http://x/000000002", "http://x/000010000"]
    s3.requests.clear()
    assert "nothing to do" in ingest().stderr
    assert not [request for request in s3.requests if ".tar" in request or ".parquet" in request]


def test_a_list_of_relative_and_of_full_addresses(
    data: Path, tmp_path: Path, bucket: str, ingested: Callable[..., pd.DataFrame]
) -> None:
    upload(data, f"{bucket}/data")
    names = ["ood/images/0.png", "ood/images/1.png", "ood/none.png", "../config.yaml", "val/../x"]
    (tmp_path / "list.txt").write_text("\n".join(names))
    source = {"name": "list", "file": str(tmp_path / "list.txt"), "root": "."}
    found = ingested(source, f"{bucket}/data")
    assert list(found["status"]) == ["ok", "ok", "rejected", "rejected", "rejected"]
    messages = list(found["error_message"])
    assert messages[2] == "cannot be read: No such file or directory"
    assert messages[3] == f"leads out of {bucket}/data"
    (tmp_path / "list.txt").write_text("\n".join(found["uri"][:2]))
    again = ingested(source, f"{bucket}/data")
    assert list(again["uri"][again["status"] == "ok"]) == list(found["uri"][:2])


@pytest.mark.parametrize("root", ["", "/ood"])
def test_no_address_outside_the_root_is_requested(
    root: str,
    data: Path,
    tmp_path: Path,
    bucket: str,
    ingested: Callable[..., pd.DataFrame],
    s3: Proxy,
) -> None:
    upload(data / "ood", f"{bucket}/ood")
    outside = ["s3://no-such-bucket/a.png", "s3://", "s3:///x.png", "s3://none/0.tar#a.png@512+9"]
    folders = [bucket, ".", f"{bucket}{root}/", "../../.."]
    lines = [f"{bucket}/ood/images/0.png", *outside, *folders]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    s3.requests.clear()
    found = ingested({"name": "list", "file": str(tmp_path / "list.txt")}, f"{bucket}{root}")
    assert list(found["status"]) == ["ok", *["rejected"] * (len(found) - 1)]
    assert found["error_message"][1:5].str.startswith(f"leads out of {bucket}{root}").all()
    name = bucket.removeprefix("s3:/")
    listed = f"GET {name}?list-type=2&prefix={'ood%2F' if root else ''}"
    read = f"GET {name}/ood/images/0.png"
    assert all(request.startswith((listed, read)) for request in s3.requests), s3.requests


def test_an_object_that_changes_is_read_again_and_alone(
    data: Path, bucket: str, tiny: dict[str, Any], ingest: Ingest, s3: Proxy
) -> None:
    upload(data, f"{bucket}/data")
    tiny["data"] = f"{bucket}/data"
    assert ingest().returncode == 0
    image = locations.location(f"{bucket}/data/ood/images/1.png")
    storage.write_bytes(image, (data / "unlabeled/images/0.png").read_bytes())
    s3.requests.clear()
    done = ingest()
    assert "1 image changed: shard 1" in done.stderr
    read = {request for request in s3.requests if ".png" in request}
    assert all("/ood/" in request or "/unlabeled/" in request for request in read), read


def test_keys_of_sources_may_be_addresses(
    data: Path, bucket: str, tiny: dict[str, Any], ingest: Ingest
) -> None:
    upload(data / "labeled", f"{bucket}/elsewhere")
    tiny["ingest"]["sources"]["labeled"]["source"] |= {
        "images": f"{bucket}/elsewhere/images",
        "masks": f"{bucket}/elsewhere/masks",
    }
    done = ingest()
    assert done.returncode == 0, done.stderr
    assert "2 labeled" in done.stderr


def test_a_check_lists_objects_missing_in_the_bucket(
    data: Path,
    tmp_path: Path,
    bucket: str,
    tiny: dict[str, Any],
    write_config: Callable[..., Path],
    maskmill: Callable[..., CompletedProcess[str]],
) -> None:
    upload(data / "ood", f"{bucket}/data/ood")
    (tmp_path / "list.txt").write_text("ood/images/0.png\nood/images/7.png\n")
    tiny["data"] = f"{bucket}/data"
    tiny["ingest"]["sources"] = {
        "list": {"role": "ood", "source": {"name": "list", "file": "list.txt"}},
        "folder": {"role": "ood", "source": {"name": "folder", "images": "ood/images"}},
        "none": {"role": "ood", "source": {"name": "folder", "images": "none"}},
    }
    tiny["ingest"]["download"] = {"ood/images": "http://x/ood.zip", "other": "http://x/other.zip"}
    done = maskmill("data", "check", write_config(tiny))
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()[1:]
    first = f"first {bucket}/data/ood/images/7.png"
    assert lines[:-1] == [
        f"list (ood): 2 images; missing: 1 images, {first}",
        "folder (ood): 2 images",
        f"none (ood): missing: {bucket}/data/none",
        "get ood/images: http://x/ood.zip",
    ]
    assert f"run` would refuse: {tmp_path}/config.yaml: ingest.sources.none" in lines[-1]


def test_odd_names_are_rows_or_counted_as_on_a_disk(
    data: Path, bucket: str, tiny: dict[str, Any], ingested: Callable[..., pd.DataFrame]
) -> None:
    content = (data / "ood/images/0.png").read_bytes()
    names = ["22.05.jpe", "no-ending", "y.jpg?w=640", "x.heic", "._x.png", ".git/x.png", "a.txt"]
    for number, name in enumerate(names):
        (data / "odd" / name).parent.mkdir(parents=True, exist_ok=True)
        (data / "odd" / name).write_bytes(content + bytes([number]))
    (data / "odd/list").write_text("no image")
    upload(data / "odd", f"{bucket}/odd")
    source = {"name": "folder", "images": "odd"}
    expected = ingested(source, str(data))
    assert list(expected["status"]) == ["ok"] * 4
    assert_same(ingested(source, bucket), expected, data, bucket)
    config = tiny["ingest"]["sources"]["web"]["source"]
    remarks = []
    for folder in (data, locations.location(bucket)):
        keys = FolderConfig.model_validate({"images": config["images"]})
        source_of = FolderSource(keys, data=folder, cache=data, where="")
        assert source_of.list().num_rows == 4
        remarks.append(source_of.remarks)
    assert remarks == [["4 files passed over: hidden 2, .txt 1, no ending 1"]] * 2


def test_objects_that_are_moved_keep_their_rows(
    data: Path, bucket: str, ingested: Callable[..., pd.DataFrame]
) -> None:
    upload(data / "ood", f"{bucket}/ood")
    before = ingested({"name": "folder", "images": "ood"}, bucket)
    upload(data / "ood", f"{bucket}/web/moved")
    after = ingested({"name": "folder", "images": "web"}, bucket)
    assert after["image_id"].equals(before["image_id"])
    assert after["row"].equals(before["row"])
    assert set(after["status"]) == {"ok"}
    assert after["uri"].str.startswith(f"{bucket}/web/moved/").all()
