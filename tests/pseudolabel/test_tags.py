"""open_clip's tags: fetched on first use, from a server that answers as the Hugging Face hub."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import huggingface_hub
import open_clip
import pandas as pd
import pytest
from huggingface_hub import constants
from huggingface_hub.utils.tqdm import enable_progress_bars

from tests.file_server import FileServer

Call = Callable[..., CompletedProcess[str]]
Server = tuple[FileServer, str]
KEY = "pseudolabel.labelers.clip"
PATH = "/somebody/tiny/resolve/main/open_clip_model.safetensors"


@pytest.fixture
def hub(
    file_server: Server,
    clip_folder: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> FileServer:
    """The hub, with weights of an architecture `tiny`, which open_clip knows by the tag `own`."""
    server, address = file_server
    folder = clip_folder("vit")
    server.add(PATH, (folder / "open_clip_model.safetensors").read_bytes())
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    config["text_cfg"]["tokenizer_kwargs"]["bpe_path"] = str(folder / "bpe.txt.gz")
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", config)
    tag = {"url": "", "hf_hub": "somebody/tiny/", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", {"own": tag})
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return server


@pytest.fixture
def call(
    call: Call, tiny: dict[str, Any], hub: FileServer, write_config: Callable[..., Path]
) -> Call:
    """The command line with a labeler that names the tag: ``call("run")``."""
    keys = {"name": "dense_clip", "model": "tiny", "weights": "own"}
    labelers = {"clip": {**keys, "window_px": 32, "stride_px": 16}}
    config = write_config({**tiny, "pseudolabel": {"size_px": 48, "labelers": labelers}})
    return lambda verb: call(verb, config)


def kept(tmp_path: Path) -> list[Path]:
    """Files of the hub's cache that hold weights, or some of them."""
    return [*(tmp_path / "hub").glob("*/blobs/*"), *(tmp_path / "hub").glob("*/snapshots/*/*")]


@pytest.mark.parametrize("cut", [None, 50_000])
def test_a_tag_is_fetched_once_even_if_the_connection_is_cut(
    call: Call,
    hub: FileServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cut: int | None,
) -> None:
    call("run ingest")
    assert call("status").returncode == 0
    assert hub.requests == []
    monkeypatch.setenv("TQDM_POSITION", "-1")  # else the hub draws a bar on terminals alone
    enable_progress_bars()  # the labeler hf turns them off, in other tests
    hub.cuts += [] if cut is None else [cut]
    done = call("run")
    assert done.returncode == 0, done.stderr
    assert "downloads open_clip_model.safetensors of somebody/tiny\n" in done.stderr
    assert "open_clip_model.safetensors: 100%" in done.stderr
    whole = [request for request in hub.requests if request.startswith(f"GET {PATH}")]
    assert len(whole) == (1 if cut is None else 2)
    rows = pd.read_parquet(tmp_path / "workspace/manifests/tiny/pseudo_labels")
    assert set(rows["status"]) == {"ok"}
    assert call("run --force").returncode == 0
    assert [request for request in hub.requests if request.startswith(f"GET {PATH}")] == whole


def test_other_bytes_than_the_hub_has_the_digest_of_are_refused(
    call: Call, hub: FileServer, tmp_path: Path
) -> None:
    content = hub.files[PATH]
    hub.files[PATH] = content[:-1] + b"x"  # of the right size, which is all that the hub looks at
    done = call("run")
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"error: {KEY}: weights: own: {tmp_path}/hub/")
    assert line.endswith(
        " differed from the published file and was deleted; run again to download it"
    )
    assert kept(tmp_path) == []
    hub.files[PATH] = content
    assert call("run").returncode == 0


def test_without_a_connection_it_is_one_line(call: Call, hub: FileServer, tmp_path: Path) -> None:
    hub.files.clear()
    done = call("run")
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"error: {KEY}: weights: own: cannot be downloaded (")
    assert line.endswith(
        "; where there is a connection, run `hf download somebody/tiny open_clip_model.safetensors "
        "--local-dir weights`, then set `model: tiny` and `weights: "
        "weights/open_clip_model.safetensors`"
    )
    assert kept(tmp_path) == []
