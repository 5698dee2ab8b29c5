import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import stopping
from pipeline.config.vocabulary import Vocabulary
from stages.labels.pseudo_labels import PseudoLabels
from stages.models.segmenters.description import ModelDescription
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.models.segmenters.protocol import WHOLE_IMAGE
from stages.train.config import VariantConfig
from stages.train.data.batch import TrainBatch
from stages.train.loop.validation import Validation
from stages.train.step.label_sources.student import StudentSource
from stages.train.step.weak_predictions import WeakPredictions
from tests.train.interruptions import BuildLoop, Draw, Killed, dying_at, run_stopped
from tests.train.training_loops import CPU


@pytest.fixture
def validation(
    tmp_path: Path, vocabulary: Vocabulary, variant: Callable[..., VariantConfig]
) -> Validation:
    """On an image of noise, after each step."""
    rng = np.random.default_rng(0)
    files = {"uri": rng.integers(0, 256, (8, 8, 3)), "mask_uri": rng.integers(0, 3, (8, 8))}
    row: Any = {"image_id": None, "mask_id": None, "label_scheme": None}
    for key, pixels in files.items():
        row[key] = str(tmp_path / f"{key}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(row[key])
    path = tmp_path / "best.safetensors"
    description = ModelDescription.of_training(variant().model, vocabulary, WHOLE_IMAGE, {})
    return Validation([row], vocabulary, 1, path, description, CPU, WHOLE_IMAGE)


class CountingSource(StudentSource):
    """Counts the batches that it labeled, and learns from that how sure to be."""

    def __init__(self) -> None:
        super().__init__(StudentSource.Config(threshold=0.3))
        self.labeled = 0
        self.heard: list[tuple[bool, int]] = []

    def label(self, batch: TrainBatch, key: str, weak: WeakPredictions) -> PseudoLabels:
        self.labeled += 1
        return super().label(batch, key, weak).confident(0.3 + self.labeled / 100)

    def validated(self, network: SegmentationNetwork, *, is_best: bool, epoch: int) -> None:
        self.heard.append((is_best, epoch))

    def state(self) -> dict[str, Any]:
        return {"labeled": self.labeled}

    def restore(self, state: Mapping[str, Any], network: SegmentationNetwork) -> None:
        self.labeled = state["labeled"]


def test_the_state_of_sources_is_resumed(build_loop: BuildLoop, draw: Draw) -> None:
    whole = build_loop("whole", sources=[CountingSource()])
    whole.loop.run(draw)
    with pytest.raises(Killed):
        build_loop(sources=[CountingSource()]).loop.run(dying_at(2, draw))
    resumed = build_loop(sources=[CountingSource()])
    resumed.loop.run(draw)
    assert all(map(torch.equal, whole.tensors(), resumed.tensors()))


def test_sources_hear_of_each_validation_and_of_the_epoch_that_comes_next(
    build_loop: BuildLoop, draw: Draw, validation: Validation
) -> None:
    source = CountingSource()
    case = build_loop(sources=[source], validation=validation)
    case.loop.run(draw)
    lines = map(json.loads, (case.folder / "log.jsonl").read_text().splitlines())
    scores = [line["miou"] for line in lines if "miou" in line]
    best = [score > max(scores[:i], default=-1) for i, score in enumerate(scores)]
    assert source.heard == list(zip(best, [0, 1, 1, 2], strict=True))


def test_a_validation_that_a_stop_put_off_is_done_in_the_end(
    build_loop: BuildLoop, draw: Draw, validation: Validation
) -> None:
    heard = []
    whole = build_loop("whole", validation=deepcopy(validation), sources=[CountingSource()])
    whole.loop.run(draw)
    for step in (1, None):
        source, own = CountingSource(), deepcopy(validation)
        loop = build_loop(validation=own, sources=[source], checkpoint_every=100)
        if step is None:
            loop.loop.run(draw)
        else:
            with pytest.raises(stopping.Stopped):
                run_stopped(loop.loop, step, draw)
        heard.append([epoch for _, epoch in source.heard])
    assert heard == [[0], [1, 1, 2]]
    logs = [(each.folder / "log.jsonl").read_text() for each in (whole, loop)]
    assert logs[0] == logs[1]
