"""Every file that loading a model's folder reads is among the facts of its labels."""

import ctypes
import gzip
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import open_clip
import pandas as pd
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import WeightsError
from stages.pseudolabel.labelers.base import Labeler
from stages.pseudolabel.labelers.dense_clip import DenseClip
from stages.pseudolabel.labelers.hf import Hf
from stages.pseudolabel.labelers.sed import Sed

CPU = torch.device("cpu")
CLASSES = {"cat": ["cat"], "dog": ["dog"]}
IN_OPEN = 0x20
Make = Callable[..., Vocabulary]
Call = Callable[..., CompletedProcess[str]]


@contextmanager
def opened_in(folder: Path) -> Iterator[set[str]]:
    """Names of the files of a folder that anything opens, libraries in C and Rust too (inotify)."""
    libc, names = ctypes.CDLL(None, use_errno=True), set[str]()
    watch = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(watch, os.fsencode(folder), IN_OPEN) >= 0
    try:
        yield names
        content = os.read(watch, 2**20)
        while content:
            length = struct.unpack_from("iIII", content)[3]
            name, content = content[16 : 16 + length], content[16 + length :]
            names.add(os.fsdecode(name.rstrip(b"\0")))
        names.discard("")  # the folder, which was listed
    finally:
        os.close(watch)


@pytest.fixture
def folder(
    request: pytest.FixtureRequest,
    clip_folder: Callable[[str], Path],
    sed_checkpoint: Path,
    tmp_path: Path,
) -> Path:
    """A copy of a model's folder, with documents that nothing reads."""
    kind = request.param
    target = tmp_path / "model"
    if kind == "sed":
        shutil.copytree(sed_checkpoint.parent, target)
    elif kind in ("clip", "clip with a tokenizer of transformers"):
        shutil.copytree(clip_folder("vit"), target)
    else:
        shutil.copytree(request.getfixturevalue("hf_folder")(kind), target)
    if kind == "clip with a tokenizer of transformers":
        for path in request.getfixturevalue("hf_folder")("clipseg").glob("*token*"):
            shutil.copy(path, target)
        config = json.loads((target / "open_clip_config.json").read_text())
        config["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "somebody/tokens"}
        del config["model_cfg"]["text_cfg"]["tokenizer_kwargs"]
        (target / "open_clip_config.json").write_text(json.dumps(config))
    for name in ("README.md", "LICENSE", "example.png"):
        (target / name).touch()
    return target


def labeler_of(folder: Path, classes: Vocabulary) -> Labeler:
    keys: dict[str, Any] = {"model": f"local-dir:{folder}"}
    if (folder / "sed.pth").exists():
        keys |= {"weights": str(folder / "sed.pth"), "input_px": 64}
        return Sed(Sed.Config.model_validate(keys), classes)
    if (folder / "open_clip_config.json").exists():
        keys |= {"window_px": 32, "stride_px": 16}
        return DenseClip(DenseClip.Config.model_validate(keys), classes)
    return Hf(Hf.Config.model_validate(keys), classes)


@pytest.mark.parametrize(
    "folder",
    ["clip", "clip with a tokenizer of transformers", "sed", "clipseg", "groupvit", "sam3"],
    indirect=True,
)
def test_every_file_that_is_read_is_a_fact(folder: Path, vocabulary: Make) -> None:
    labeler = labeler_of(folder, vocabulary(**CLASSES))
    facts = labeler.weights_facts()
    listed = {str(value).partition(" sha256:")[0] for value in facts.values()}
    with opened_in(folder) as opened:
        labeler.load(CPU)
    assert opened <= listed
    assert {"README.md", "LICENSE", "example.png"}.isdisjoint(listed)


def test_other_merges_make_labels_stale_and_texts_new(
    tiny: dict[str, Any],
    clip_folder: Callable[[str], Path],
    write_config: Callable[..., Path],
    call: Call,
    tmp_path: Path,
) -> None:
    folder = shutil.copytree(clip_folder("vit"), tmp_path / "clip")
    merges = ["#version: 0.2", "d i", "i s", "b o", "o x</w>"]
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["vocab_size"] = 514 + len(merges) - 1
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    (folder / "bpe.txt.gz").write_bytes(gzip.compress("\n".join(merges).encode(), mtime=0))
    (folder / "open_clip_model.safetensors").unlink()
    torch.manual_seed(0)
    network = open_clip.create_model(f"local-dir:{folder}")
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    clip = {"name": "dense_clip", "model": f"local-dir:{folder}", "window_px": 32, "stride_px": 32}
    path = write_config({**tiny, "pseudolabel": {"size_px": 32, "labelers": {"clip": clip}}})
    assert call("run", path).returncode == 0
    texts = tmp_path / "workspace/artifacts/tiny/labeler_cache/texts"
    assert len([*texts.iterdir()]) == 1
    reversed_merges = [merges[0], *merges[:0:-1]]
    (folder / "bpe.txt.gz").write_bytes(gzip.compress("\n".join(reversed_merges).encode(), mtime=0))
    printed = call("status", path).stdout
    assert "pseudolabel.labelers.clip.weights.bpe.txt.gz bpe.txt.gz sha256:" in printed
    rows = pd.read_parquet(tmp_path / "workspace/manifests/tiny/pseudo_labels")
    assert call("run", path).returncode == 0
    assert len([*texts.iterdir()]) == 2
    again = pd.read_parquet(tmp_path / "workspace/manifests/tiny/pseudo_labels")
    assert (rows["mean_confidence"] != again["mean_confidence"]).any()


def test_a_tokenizer_that_is_missing_is_named(
    clip_folder: Callable[[str], Path], vocabulary: Make, tmp_path: Path
) -> None:
    folder = shutil.copytree(clip_folder("vit"), tmp_path / "clip")
    (folder / "bpe.txt.gz").unlink()
    with pytest.raises(WeightsError) as error:
        labeler_of(folder, vocabulary(**CLASSES)).weights_facts()
    assert str(error.value) == (
        f"{folder}/open_clip_config.json: there is no {folder}/bpe.txt.gz; put it there, or name "
        "another file in `tokenizer_kwargs`"
    )


COMMITS = ("a" * 40, "b" * 40)


@pytest.fixture
def hub(
    hf_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Moves `main` of somebody/tiny to a commit, in a cache of the hub; there is no connection."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def move(commit: str) -> None:
        repository = cache / "models--somebody--tiny"
        shutil.copytree(hf_folder("clipseg"), repository / "snapshots" / commit, dirs_exist_ok=True)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs/main").write_text(commit)

    return move


def test_labels_of_two_commits_of_a_branch_are_not_mixed(
    tiny: dict[str, Any],
    hub: Callable[[str], None],
    write_config: Callable[..., Path],
    call: Call,
    tmp_path: Path,
    data: Path,
) -> None:
    hub(COMMITS[0])
    labels = {"size_px": 32, "labelers": {"seg": {"name": "hf", "model": "somebody/tiny"}}}
    config = write_config({**tiny, "pseudolabel": labels})
    done = call("run", config)
    assert done.returncode == 0, done.stderr
    hub(COMMITS[1])
    told = "pseudolabel: 3 units made by other versions (somebody/tiny@main "
    assert f"{told}{COMMITS[0]} -> {COMMITS[1]})" in call("status", config).stdout
    for number in range(4):
        shutil.copy(data / "ood/images/0.png", data / f"unlabeled/images/new{number}.png")
        with (data / f"unlabeled/images/new{number}.png").open("ab") as file:
            file.write(bytes([number]))
    mixed = call("run", config, "pseudolabel.roles=[ood, unlabeled]")
    assert mixed.returncode == 1
    what = f"its labels were made by somebody/tiny@main at {COMMITS[0]}, which is now {COMMITS[1]}"
    fix = "name one of the two as `revision`, or label all again with --force"
    assert mixed.stderr.splitlines()[-1] == f"error: pseudolabel.labelers.seg: {what}; {fix}"
    both = ("pseudolabel.roles=[ood, unlabeled]",)
    assert call("run --strict-versions", config, *both).returncode == 0
    assert "by other versions" not in call("status", config, *both).stdout
