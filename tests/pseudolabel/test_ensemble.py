"""Merged labels: the rules on pixels, and the labeler `ensemble` in its stage."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
import zarr
from torch import Tensor

from stages.pseudolabel.pixels import voting

Call = Callable[..., CompletedProcess[str]]
Bytes = npt.NDArray[np.uint8]


def pixels(*members: list[tuple[int, float]]) -> tuple[Tensor, Tensor]:
    """Masks and confidences (M, 1, W) from a list of (class, confidence) per member."""
    masks = torch.tensor([[[value for value, _ in own]] for own in members])
    return masks, torch.tensor([[[sure for _, sure in own]] for own in members])


def test_agreement_keeps_what_enough_members_name() -> None:
    masks, confidences = pixels(
        [(1, 0.4), (1, 0.9), (255, 0.0), (3, 0.2), (255, 0.0)],
        [(1, 0.8), (2, 0.3), (2, 0.5), (4, 0.6), (255, 0.0)],
        [(1, 0.6), (2, 0.5), (2, 0.7), (5, 0.1), (255, 0.0)],
    )
    mask, confidence = voting.agreement(masks, confidences, 3)
    assert mask.tolist() == [[1, 255, 255, 255, 255]]
    torch.testing.assert_close(confidence, torch.tensor([[0.6, 0, 0, 0, 0]]))
    mask, confidence = voting.agreement(masks, confidences, 2)  # two votes beat a confident one
    assert mask.tolist() == [[1, 2, 2, 255, 255]]
    torch.testing.assert_close(confidence, torch.tensor([[0.6, 0.4, 0.6, 0, 0]]))
    mask, confidence = voting.agreement(masks, confidences, 1)  # equal votes: the more confident
    assert mask.tolist() == [[1, 2, 2, 4, 255]]
    torch.testing.assert_close(confidence, torch.tensor([[0.6, 0.4, 0.6, 0.6, 0]]))


def test_the_surest_member_is_one_that_names_a_class() -> None:
    masks, confidences = pixels(
        [(1, 0.4), (255, 0.0), (255, 0.0), (3, 0.5)],
        [(2, 0.8), (2, 0.0), (255, 0.0), (4, 0.5)],
    )
    mask, confidence = voting.surest(masks, confidences)
    assert mask.tolist() == [[2, 2, 255, 3]]
    torch.testing.assert_close(confidence, torch.tensor([[0.8, 0, 0, 0.5]]))


def test_mean_probability_is_that_of_whole_distributions() -> None:
    """Against the distributions written out: three members, five classes, random labels."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 6, (3, 40, 50), generator=generator)
    masks = masks.where(masks < 5, 255)
    confidences = torch.rand(3, 40, 50, generator=generator).where(masks != 255, 0)
    weights = torch.tensor([1.0, 3.0, 0.5])
    whole = torch.zeros(5, 40, 50)
    for own, sure, weight in zip(masks, confidences, weights, strict=True):
        named = torch.stack([own == number for number in range(5)])
        sure = sure.clamp(min=0.2)
        spread = torch.where(named, sure, (1 - sure) / 4).where(own != 255, 0.2)
        torch.testing.assert_close(spread.sum(0), torch.ones(40, 50))
        whole += weight / 4.5 * spread
    best, winner = whole.max(0)
    nobody = (masks == 255).all(0)
    mask, confidence = voting.mean_probability(masks, confidences, weights, 5)
    assert nobody.any()
    assert (mask[nobody] == 255).all()
    assert (confidence[nobody] == 0).all()
    torch.testing.assert_close(confidence[~nobody], best[~nobody])
    clear = ~nobody & (whole.topk(2, dim=0).values.diff(dim=0)[0].abs() > 1e-6)
    assert clear.sum() > 1500
    assert torch.equal(mask[clear], winner[clear])


def test_of_one_class_alone_all_are_certain() -> None:
    masks, confidences = pixels([(0, 0.3), (255, 0.0)], [(0, 0.9), (255, 0.0)])
    mask, confidence = voting.mean_probability(masks, confidences, torch.ones(2), 1)
    assert mask.tolist() == [[0, 255]]
    assert confidence.tolist() == [[1.0, 0.0]]


@pytest.fixture
def values(tiny: dict[str, Any], clip_folder: Callable[[str], Path]) -> dict[str, Any]:
    """A config whose first labeler merges the second and the third."""
    model = f"local-dir:{clip_folder('vit')}"
    clip = {"name": "dense_clip", "model": model, "window_px": 32, "stride_px": 16}
    both = {"name": "ensemble", "members": ["one", "two"], "rule": "agreement"}
    labelers = {"both": both, "one": clip, "two": {**clip, "variant": "vanilla"}}
    return {**tiny, "pseudolabel": {"size_px": 48, "labelers": labelers}}


@pytest.fixture
def call(call: Call, values: dict[str, Any], write_config: Callable[..., Path]) -> Call:
    """The command line with the current config: ``call("run", "pseudolabel.size_px=64")``."""
    return lambda verb, *overrides: call(verb, write_config(values), *overrides)


def rows(tmp_path: Path, labeler: str) -> pd.DataFrame:
    folder = tmp_path / "workspace/manifests/tiny/pseudo_labels" / f"labeler={labeler}"
    return pd.read_parquet(folder).sort_values("row")


def stored(tmp_path: Path, labeler: str) -> tuple[Bytes, Bytes]:
    own = rows(tmp_path, labeler)
    group = zarr.open_group(tmp_path / "workspace" / own["store"].iloc[0], mode="r")
    return np.asarray(group["mask"])[own["row"]], np.asarray(group["confidence"])[own["row"]]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_labels_are_made_of_what_the_members_stored(
    call: Call, tmp_path: Path, workers: int
) -> None:
    done = call("run", f"cluster.workers={workers}")
    assert done.returncode == 0, done.stderr
    one, two, both = (stored(tmp_path, name) for name in ("one", "two", "both"))
    agree = (one[0] == two[0]) & (one[0] != 255)
    assert 0 < agree[:, :36].mean() < 1
    assert np.array_equal(both[0], np.where(agree, one[0], 255))
    whole = agree.reshape(len(agree), 12, 4, 12, 4).all(axis=(2, 4))
    mean = (one[1].astype(float) + two[1])[whole] / 2
    # Cells are interpolated to pixels, and averaged to cells again.
    assert np.corrcoef(both[1][whole], mean)[0, 1] > 0.9
    assert abs(both[1][whole].mean() - mean.mean()) < 3
    assert "pseudolabel: nothing to do, 9 fresh" in call("run").stderr


def test_what_a_member_depends_on_its_ensemble_does(call: Call, tmp_path: Path) -> None:
    call("run")
    before = rows(tmp_path, "both")["fingerprint"].tolist()
    shown = call("run", "pseudolabel.labelers.two.threshold=0.4").stderr
    assert "pseudolabel.labelers.two.threshold 0.0 -> 0.4: shards 0, 1" in shown
    assert "2 fresh" in shown  # those of the other member
    after = rows(tmp_path, "both")
    assert not set(before) & set(after["fingerprint"])
    one, two, both = (stored(tmp_path, name)[0] for name in ("one", "two", "both"))
    assert np.array_equal(both, np.where(one == two, one, 255))
    # Another rule leaves the members' labels fresh.
    keys = ["two.threshold=0.4", "both.rule=confidence"]
    shown = call("status --json", *(f"pseudolabel.labelers.{key}" for key in keys)).stdout
    (found,) = [s for s in json.loads(shown)["stages"] if s["name"] == "pseudolabel"]
    rule = "pseudolabel.labelers.both.rule agreement -> confidence: shards 0, 1"
    assert found["reasons"] == [rule, "labels changed: both report card"]


def test_an_image_without_a_members_label_is_a_failed_row(
    call: Call, values: dict[str, Any], tmp_path: Path
) -> None:
    """Web images have no label files, so the failed rows are not tried again."""
    values["pseudolabel"]["labelers"]["two"] = {"name": "files"}
    call("run")
    found = rows(tmp_path, "both")
    assert found["status"].value_counts().to_dict() == {"ok": 2, "failed": 2}
    shown = found["error_message"].dropna().unique().tolist()
    assert shown == ["labeler two has no label for the current version of this image"]
    assert "pseudolabel: nothing to do, 9 fresh" in call("run").stderr
    mask = tmp_path / "data/labeled/masks/0.png"
    mask.write_bytes((tmp_path / "data/labeled/masks/1.png").read_bytes())
    assert call("run").returncode == 0
    one, two, both = (
        stored(tmp_path, name)[0][rows(tmp_path, "both")["status"] == "ok"]
        for name in ("one", "two", "both")
    )
    assert np.array_equal(both, np.where(one == two, one, 255))


def test_ensembles_of_ensembles_come_last(
    call: Call, values: dict[str, Any], tmp_path: Path
) -> None:
    whole = {"name": "ensemble", "members": ["both", "one"], "rule": "confidence"}
    values["pseudolabel"]["labelers"] = {"whole": whole, **values["pseudolabel"]["labelers"]}
    done = call("run")
    assert done.returncode == 0, done.stderr
    # `both` is equal to `one` or ignore at each pixel, so the result is `one`.
    assert np.array_equal(stored(tmp_path, "whole")[0], stored(tmp_path, "one")[0])


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": (
        {"members": ["one", "three"]},
        "pseudolabel.labelers.both.members: no labeler 'three'; use one of: one, two",
    ),
    "itself": (
        {"members": ["one", "both"]},
        "pseudolabel.labelers.both.members: the labeler would read its own labels: both -> both; "
        "remove one of these members",
    ),
    "none": (
        {"members": []},
        "pseudolabel.labelers.both.members: [] is wrong; write a list with at least 2 items",
    ),
    "twice": (
        {"members": ["one", "one"]},
        "pseudolabel.labelers.both: these keys are wrong; list each of `members` once",
    ),
    "quorum": (
        {"quorum": 3},
        "pseudolabel.labelers.both: these keys are wrong; lower `quorum`: there are 2 members",
    ),
    "weights": (
        {"rule": "probabilities", "weights": [1, 2, 3]},
        "pseudolabel.labelers.both: these keys are wrong; set 2 `weights`, one per member",
    ),
    "weights of agreement": (
        {"weights": [1, 2]},
        "pseudolabel.labelers.both: these keys are wrong; "
        "remove `weights`: only `rule: probabilities` uses them",
    ),
    "quorum of confidence": (
        {"rule": "confidence", "quorum": 1},
        "pseudolabel.labelers.both: these keys are wrong; "
        "remove `quorum`: only `rule: agreement` uses it",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_members_that_cannot_be_read_are_one_line(
    call: Call, values: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    keys, text = WRONG[kind]
    values["pseudolabel"]["labelers"]["both"] |= keys
    for verb in ("run", "status"):
        done = call(verb)
        assert done.returncode == 1
        assert done.stderr == f"error: {tmp_path / 'config.yaml'}: {text}\n"


def test_a_cycle_is_one_line(call: Call, values: dict[str, Any], tmp_path: Path) -> None:
    labelers = values["pseudolabel"]["labelers"]
    for name, members in {"a": ["b", "one"], "b": ["c", "two"], "c": ["one", "b"]}.items():
        labelers[name] = {"name": "ensemble", "members": members, "rule": "confidence"}
    done = call("status")
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {tmp_path / 'config.yaml'}: pseudolabel.labelers.b.members: the labeler would "
        "read its own labels: b -> c -> b; remove one of these members\n"
    )


def test_a_members_lost_labels_are_made_first(call: Call, tmp_path: Path) -> None:
    call("run")
    before = stored(tmp_path, "both")
    group = rows(tmp_path, "one")["store"].iloc[0]
    for name in ("one", "both"):
        folder = tmp_path / "workspace/manifests/tiny/pseudo_labels" / f"labeler={name}"
        (folder / "part-00001.parquet").unlink()
    (tmp_path / "workspace" / group / "mask/c/1/0/0").unlink()
    assert call("run").returncode == 0
    assert all(map(np.array_equal, before, stored(tmp_path, "both")))
