"""A resumed training of any preset holds what an undisturbed one holds, to the last bit.

The comparison knows no part by name: a part whose state is not in the checkpoint shows up here.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pipeline.config import config as config_file
from pipeline.config.config import Config
from pipeline.console import Console
from pipeline.engine.runner import Request, Runner
from pipeline.engine.stage import Context
from stages.graph import GRAPH
from stages.train import preset
from stages.train.config import TrainConfig
from stages.train.inputs import TrainInputs
from stages.train.loop.build import TrainingJob, _crops, build_training
from stages.train.loop.loop import TrainingLoop
from stages.train.output import TrainingFiles
from stages.train.stage import TrainStage
from tests.conftest import VOCABULARY
from tests.shapes import draw_shapes
from tests.train.interruptions import BuildLoop, Draw, Killed, dying_at
from tests.train.loop_state import differences, state_of
from tests.train.presets import small
from tests.train.training_loops import CPU

STEPS, KILLED_AT = 4, 2
COUNTS = {"val": 1, "labeled": 2, "unlabeled": 4, "ood": 4}
LABELERS = ("sed", "sam_clip")
"""The labelers that presets name."""
QUICK = ("prevmatch", "supmix-sufd")
"""Presets with most kinds of state; all are in the slow suite."""
Build = Callable[[str, dict[str, Any]], tuple[TrainingLoop, Draw]]


def load(folder: Path, **sections: Any) -> Config:
    places = {"workspace": str(folder / "workspace"), "data": str(folder / "data")}
    values = {"run": "tiny", **places, **sections}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**values, "vocabulary": "vocabulary.yaml"}))
    return config_file.load(path, {stage.name: stage.Config for stage in GRAPH})


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with images and their stored labels, and the sections of the config so far."""
    folder = tmp_path_factory.mktemp("presets")
    draw_shapes(folder / "data", COUNTS, tuple(COUNTS))
    (folder / "vocabulary.yaml").write_text(yaml.safe_dump(VOCABULARY))
    sources = {
        role: {
            "role": role,
            "source": {"name": "folder", "images": f"{role}/images", "masks": f"{role}/masks"},
        }
        for role in COUNTS
    }
    files = {name: {"name": "files"} for name in LABELERS}
    sections = {
        "ingest": {"sources": sources},
        "pseudolabel": {"size_px": 32, "roles": ["unlabeled", "ood"], "labelers": files},
    }
    Runner(load(folder, **sections), GRAPH, Console()).run(Request())
    return folder, sections


@pytest.fixture
def build(labeled: tuple[Path, dict[str, Any]], tmp_path: Path) -> Build:
    """Builds the loop of a training in a folder, as the stage does, and what draws its batches."""

    def built(name: str, keys: dict[str, Any]) -> tuple[TrainingLoop, Draw]:
        folder, sections = labeled
        config = load(folder, **sections, train=keys)
        section = config.section(TrainConfig)
        assert section is not None
        context = Context(config, Console())
        (unit,) = TrainStage(section, context).plan()
        files = TrainingFiles(tmp_path / name)
        (variant,) = section.variants.values()
        job = TrainingJob(context, variant, unit, files, CPU, TrainInputs(config))
        crops = partial(_crops(job).batches, device=CPU)
        return build_training(job, lambda done, values: None), crops

    return built


def assert_resumes(build: Build, keys: dict[str, Any]) -> dict[str, Any]:
    """Returns what the training holds at its end."""
    whole, draw = build("whole", keys)
    whole.run(draw)
    killed, draw = build("killed", keys)
    with pytest.raises(Killed):
        killed.run(dying_at(KILLED_AT * killed.config.accumulate, draw))
    resumed, draw = build("killed", keys)
    torch.manual_seed(99)
    starts: list[int] = []

    def noted(steps: range) -> Any:
        starts.append(steps.start)
        return draw(steps)

    resumed.run(noted)
    assert starts == [KILLED_AT * resumed.config.accumulate]
    expected = state_of(whole)
    assert differences(state_of(resumed), expected) == []
    return expected


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in preset.names()
    ],
)
def test_a_resumed_training_of_a_preset_holds_what_an_undisturbed_one_does(
    name: str, build: Build, clip_folder: Path
) -> None:
    keys = preset.expanded({"preset": name})
    del keys["preset"]
    every = {"validate_every": 1, "checkpoint_every": 1, "steps": STEPS}
    held = assert_resumes(build, {**small(keys, clip_folder), **every})
    # What the comparison would miss if it did not look there:
    assert f"loop._watch._recent.{STEPS - 1}" in held
    assert held["loop.validation.best"] > 0
    for number, source in enumerate(keys["label_sources"]):
        if source["name"] == "previous":
            assert held[f"loop.parts.sources.{number}._networks.length"] > 0


def test_the_scale_of_float16_is_resumed(build_loop: BuildLoop, draw: Draw) -> None:
    whole, killed, resumed = (build_loop(name, precision="float16") for name in ("a", "b", "b"))
    whole.loop.run(draw)
    with pytest.raises(Killed):
        killed.loop.run(dying_at(KILLED_AT, draw))
    resumed.loop.run(draw)
    assert differences(state_of(resumed.loop), state_of(whole.loop)) == []
    assert state_of(whole.loop)["loop.optimizer.scaler._growth_tracker"] == STEPS


@pytest.mark.parametrize("seed", [0, 7])
def test_the_crops_of_a_training_are_those_of_its_seed(seed: int, build: Build) -> None:
    """Of one labeled image at most a step, so that not only the order of images differs."""
    keys = {
        "model": {"name": "small_unet", "encoder_weights": None},
        "perturbation": "unimatch",
        "label_sources": ["student"],
        "crop_px": 32,
        "batch_size": 2,
        "steps": 1,
    }
    loops = [build(str(number), {**keys, "seeds": [number]}) for number in (seed, seed + 1)]
    assert [loop.seed for loop, _ in loops] == [seed, seed + 1]
    batches = [next(draw(range(1))) for _, draw in loops]
    assert {batch.random.seed for batch in batches} == {seed, seed + 1}
    views = [{*map(str, batch.labeled.pixels.flatten(1).tolist())} for batch in batches]
    assert not views[0] & views[1]
