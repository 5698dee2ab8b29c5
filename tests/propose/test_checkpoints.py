"""SAM's published checkpoints: downloaded on first use, by a real command from a real server.

Also of checkpoints with values that are NaN.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from segment_anything import sam_model_registry

from pipeline.errors import WeightsError
from pipeline.files.download import Published
from stages.models.finite import NotFiniteError
from stages.propose.generator.mask_generator import MaskGenerator
from stages.propose.generator.sam import load_sam
from stages.propose.published import CHECKPOINTS
from tests.file_server import FileServer

Call = Callable[..., CompletedProcess[str]]
Server = tuple[FileServer, str]


def test_weights_that_are_none_are_named(
    build_sam: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sam_model_registry, "vit_b", build_sam)
    tensors = build_sam().state_dict()
    tensors["mask_decoder.iou_token.weight"][0, 0] = torch.nan
    torch.save(tensors, tmp_path / "sam.pth")
    with pytest.raises(WeightsError, match=r"iou_token\.weight has values that are NaN"):
        load_sam("vit_b", tmp_path / "sam.pth")


def test_masks_whose_scores_are_none_are_an_error(build_sam: Callable[[], Any]) -> None:
    """Without the check the image would have no masks: a NaN is below every threshold."""
    sam = build_sam()
    sam.mask_decoder.iou_prediction_head.layers[-1].bias.data.fill_(torch.inf)
    with pytest.raises(NotFiniteError):
        MaskGenerator(sam, points_per_side=2)([np.zeros((32, 32, 3), np.uint8)])


def test_names_are_those_that_segment_anything_links() -> None:
    names = {model: file.name for model, file in CHECKPOINTS.items()}
    assert names == {
        "vit_b": "sam_vit_b_01ec64.pth",
        "vit_l": "sam_vit_l_0b3195.pth",
        "vit_h": "sam_vit_h_4b8939.pth",
    }
    assert all(len(bytes.fromhex(file.sha256)) == 32 for file in CHECKPOINTS.values())


@pytest.fixture
def published(
    file_server: Server,
    build_sam: Callable[[], Any],
    machine_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Published:
    """A tiny vit_b on a server of this machine, which stands for the published one."""
    server, address = file_server
    content = io.BytesIO()
    torch.save(build_sam().state_dict(), content)
    sha256 = server.add("/sam_vit_b.pth", content.getvalue())
    file = Published(f"{address}/sam_vit_b.pth", sha256)
    monkeypatch.setitem(CHECKPOINTS, "vit_b", file)
    return file


@pytest.fixture
def call(
    call: Call,
    tiny: dict[str, Any],
    propose: dict[str, Any],
    write_config: Callable[..., Path],
    published: Published,
) -> Call:
    """The command line with a config that names no weights: ``call("run")``."""
    keys = {key: value for key, value in propose.items() if key != "weights"}
    config = write_config({**tiny, "propose": keys})
    return lambda verb, *overrides: call(verb, config, *overrides)


def masks(tmp_path: Path, run: str) -> list[list[str]]:
    rows = pd.read_parquet(tmp_path / f"workspace/manifests/{run}/proposals").sort_values("row")
    return [list(rle) for rle in rows["rle"]]


def test_status_downloads_nothing_and_run_does(
    call: Call, file_server: Server, published: Published, propose: dict[str, Any], tmp_path: Path
) -> None:
    server, _ = file_server
    assert call("run ingest").returncode == 0
    assert call("status").returncode == 0
    assert call("run --dry-run").returncode == 0
    assert server.requests == []
    server.cuts.append(len(server.files["/sam_vit_b.pth"]) // 2)
    assert call("run").returncode == 0
    assert [request.partition(" bytes=")[0] for request in server.requests] == [
        "GET /sam_vit_b.pth"
    ] * 2
    call("run", f"propose.weights={propose['weights']}", "run=local")
    assert masks(tmp_path, "tiny") == masks(tmp_path, "local")


def test_finished_masks_stay_fresh_without_the_file_and_with_a_copy_of_it(
    call: Call, published: Published, tmp_path: Path
) -> None:
    call("run")
    moved = published.path.rename(tmp_path / published.name)
    for overrides in ([], [f"propose.weights={moved}"]):
        stages = json.loads(call("status --json", *overrides).stdout)["stages"]
        assert [stage["state"] for stage in stages if stage["name"] == "propose"] == ["fresh"]
    assert "propose: nothing to do" in call("run").stderr


def test_offline_it_is_one_line_that_says_which_file_to_put_where(
    call: Call, file_server: Server, published: Published
) -> None:
    server, _ = file_server
    content = server.files.pop("/sam_vit_b.pth")
    done = call("run")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: propose.model: vit_b: sam_vit_b.pth cannot be downloaded: the server says 404 Not "
        f"Found; on a machine with a connection, fetch {published.url} and put it at "
        f"{published.path}"
    )
    published.path.write_bytes(content)  # by hand, as the error says
    assert call("run").returncode == 0


def test_a_checkpoint_of_other_bytes_labels_nothing(
    call: Call, file_server: Server, published: Published, tmp_path: Path
) -> None:
    file_server[0].add("/sam_vit_b.pth", b"other bytes")
    done = call("run")
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert ", not the published " in line
    assert "; run again to download it from the start; or fetch " in line
    assert not published.path.exists()
    assert not (tmp_path / "workspace/manifests/tiny/proposals").exists()
