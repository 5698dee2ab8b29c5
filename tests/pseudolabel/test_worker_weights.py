"""A worker labels only with the weights that the command has."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.vocabulary import Vocabulary
from pipeline.engine import worker_code
from pipeline.errors import MaskmillError, WeightsError
from stages.pseudolabel.labelers.dense_clip import DenseClip
from stages.pseudolabel.work import _loaded
from tests.pseudolabel.dense_clips import CPU, config


def test_other_weights_at_the_same_place_are_refused(
    clip_folder: Callable[[str], Path], vocabulary: Callable[..., Vocabulary], tmp_path: Path
) -> None:
    chosen, classes = config(model=f"local-dir:{clip_folder('vit')}"), vocabulary(cat=None)
    facts: dict[str, Any] = dict(DenseClip(chosen, classes).weights_facts())
    words = (DenseClip, chosen.model_dump_json(), classes.model_dump_json(), CPU, "store", tmp_path)
    assert _loaded(*words, json.dumps(facts)).weights_facts() == facts
    other = json.dumps({**facts, "weights": "open_clip_model.safetensors sha256:0123456789ab"})
    with pytest.raises(WeightsError, match=r"has .* sha256:\w+, not .*; put the same files there"):
        _loaded(*words, other)


def test_embedded_weights_are_compared_as_code_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_code, "_ROOT", tmp_path)
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/net.safetensors").write_bytes(b"0")
    command = worker_code._identity()
    (tmp_path / "stages/net.safetensors").write_bytes(b"1")
    (tmp_path / "stages/net.pyc").write_bytes(b"")
    assert worker_code._identity() != command
    with pytest.raises(MaskmillError, match="code of Maskmill"):
        worker_code.check_same(command)
