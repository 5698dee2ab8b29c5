"""Credentials in addresses reach no file, no message and no log."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from pipeline.config.config_section import Facts
from pipeline.errors import DataError
from pipeline.records import part_file, tables
from pipeline.redaction import without_secrets

SECRET = "hunter2secret"
SIGNED = (
    f"https://host/a.jpg?X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}&size=3&token={SECRET}"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SIGNED, "https://host/a.jpg?X-Amz-Credential=***&X-Amz-Signature=***&size=3&token=***"),
        (f"see https://me:{SECRET}@host/x, or not", "see https://***@host/x, or not"),
        (f"s3://key:{SECRET}@bucket/x", "s3://***@bucket/x"),
        (f'{{"a": "http://h/?sig={SECRET}", "b": 1}}', '{"a": "http://h/?sig=***", "b": 1}'),
        ("https://host/a@b?keyword=dog#me@home", "https://host/a@b?keyword=dog#me@home"),
        (f"https://me:p@{SECRET}@host/x", "https://***@host/x"),
        (
            f"http://h/?x-api-key={SECRET}&refresh_token={SECRET}",
            "http://h/?x-api-key=***&refresh_token=***",
        ),
        (f"http://h/#access_token={SECRET}", "http://h/#access_token=***"),
        (f"http://h/?client_secret={SECRET}&page=2", "http://h/?client_secret=***&page=2"),
        ("mail me@host: no address", "mail me@host: no address"),
    ],
)
def test_only_credentials_are_hidden(text: str, expected: str) -> None:
    assert without_secrets(text) == expected


def test_errors_hold_none() -> None:
    error = DataError(f"cannot read {SIGNED}", where=f"s3://k:{SECRET}@b", fix="correct it")
    assert SECRET not in str([error, error.what, error.where, error.args])


def test_a_run_writes_none(
    tiny: dict[str, Any],
    data: Path,
    write_config: Callable[..., Path],
    maskmill: Callable[..., CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    """img2dataset keeps the addresses that it downloaded from, signatures too."""
    with tarfile.open(data / "00000.tar", "w") as archive:
        for number in range(2):
            picture = io.BytesIO()
            Image.new("RGB", (32, 24), (number, 0, 0)).save(picture, "PNG")
            own = json.dumps({"url": f"{SIGNED}{number}", "caption": f"a cat, {SIGNED}"}).encode()
            for name, content in ((f"{number}.png", picture.getvalue()), (f"{number}.json", own)):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    tiny["ingest"]["sources"]["ood"]["source"] = {"name": "webdataset", "shards": "."}
    tiny["ingest"]["download"] = {"labeled/images": f"https://me:{SECRET}@host/labeled.zip"}
    config = write_config(tiny)
    printed = ""
    for words in (["run"], ["status", "--json"], ["verify"], ["data", "check"], ["gc"]):
        named = [str(config)] if words[0] == "data" else ["--config", str(config)]
        done = maskmill(*words, *named)
        printed += done.stdout + done.stderr
    assert SECRET not in printed
    for path in (tmp_path / "workspace").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    rows = pd.read_parquet(tmp_path / "workspace/manifests/tiny/images")
    assert rows.url.dropna().str.startswith("https://host/a.jpg?X-Amz-Credential=***").sum() == 2
    assert SECRET not in rows.to_json()


def test_credentials_in_an_address_of_a_config_are_refused_unprinted(
    tiny: dict[str, Any],
    write_config: Callable[..., Path],
    maskmill: Callable[..., CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    done = maskmill("status", "--config", write_config({**tiny, "data": "s3://k:${SECRET}@b/x"}))
    assert done.returncode == 1
    assert "leave the credentials out of the address: set AWS_ACCESS_KEY_ID" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    done = maskmill("status", "--config", write_config({**tiny, "data": f"ftp://k:{SECRET}@b/x"}))
    assert (done.returncode, SECRET in done.stderr) == (1, False)


def test_facts_with_credentials_are_those_that_were_recorded(tmp_path: Path) -> None:
    """A title may hold an address; its unit was stale for ever."""
    facts: Facts = {"titles": {"a": f"see https://me:{SECRET}@host/"}, "step": 3}
    part = tmp_path / "report/part-00000.parquet"
    part.parent.mkdir()
    part_file.write_part(part, tables.REPORT.rows([]), facts, {})
    record = part_file.read_record(part)
    assert record is not None
    assert record.facts == part_file.as_recorded(facts) != facts
