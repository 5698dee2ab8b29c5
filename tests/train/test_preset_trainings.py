"""Every preset through the real stage: two steps of it, and four images that it learns."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipeline.config.config import parse_section
from pipeline.config.config_section import Section
from pipeline.config.vocabulary import Vocabulary
from stages.labels.confusion import Confusion
from stages.models.segmenters.model_file import load_model_file
from stages.train import preset
from stages.train.config import TrainConfig, VariantConfig
from tests.conftest import VOCABULARY
from tests.shapes import draw_shapes
from tests.train.presets import small
from tests.trainings import training_folder

Call = Callable[..., CompletedProcess[str]]
Train = Callable[[dict[str, Any]], pd.DataFrame]
Keys = dict[str, Any]

CITY = "cityscapes"
EACH = [(name, None) for name in preset.names()] + [
    (name, CITY) for name in preset.names() if CITY in preset.datasets(name)
]
"""Cityscapes has losses, modes and parts of networks that no other dataset has."""
READING = ("stored", "enhanced")
"""Label sources that read the store."""
COUNTS = {"val": 1, "labeled": 4, "unlabeled": 4, "ood": 4}


class ConfigFile(Section):
    train: TrainConfig


def parsed(keys: Keys) -> VariantConfig:
    (found,) = parse_section(ConfigFile, {"train": keys}, path=Path("c")).train.variants.values()
    return found


@pytest.fixture
def published(clip_folder: Path) -> Callable[..., Keys]:
    """The keys of a preset, made small."""

    def read(name: str, dataset: str | None) -> Keys:
        keys = preset.expanded({"preset": name, "dataset": dataset})
        del keys["preset"], keys["dataset"]
        return small(keys, clip_folder)

    return read


@pytest.fixture
def train(tiny: Keys, data: Path, maskmill: Call, write_config: Callable[..., Path]) -> Train:
    """Trains with these keys from ingest on: its metrics, a row a step and a column a name."""
    draw_shapes(data, COUNTS, tuple(COUNTS))

    def run(keys: Keys) -> pd.DataFrame:
        sources = {
            role: {"role": role, "source": {"name": "folder", "images": f"{role}/images"}}
            for role in COUNTS
        }
        for role, source in sources.items():
            source["source"]["masks"] = f"{role}/masks"  # type: ignore[index]
        labelers = {s["labeler"] for s in keys["label_sources"] if s["name"] in READING}
        stored = {labeler: {"name": "files"} for labeler in labelers}
        values: Keys = {**tiny, "ingest": {"sources": sources}, "train": keys}
        if stored:
            roles = ["unlabeled", "ood"]
            values["pseudolabel"] = {"size_px": 32, "roles": roles, "labelers": stored}
        result = maskmill("run", "train", "--config", write_config(values))
        assert result.returncode == 0, result.stderr
        metrics = pd.read_parquet(Path(values["workspace"]) / "manifests/tiny/metrics")
        own = metrics[metrics["split"] == "train"]
        return own.pivot(index="step", columns="name", values="value")

    return run


@pytest.mark.parametrize(("name", "dataset"), EACH)
def test_it_takes_two_steps(
    name: str, dataset: str | None, published: Callable[..., Keys], train: Train
) -> None:
    keys = published(name, dataset)
    metrics = train({**keys, "steps": 2})
    assert list(metrics.index) == [1, 2]
    choices = parsed(keys).label_sources
    terms = {"supervised", *(choice.create().name for choice in choices)}
    if "feature_discriminator" in keys:
        terms |= {"adversarial", "discriminator"}
    names = [f"loss/{term}" for term in ("total", *terms)]
    assert {column for column in map(str, metrics) if column.startswith("loss/")} == {*names}
    last = metrics.loc[2, names]
    assert np.isfinite(last.astype(float)).all()
    assert last["loss/total"] > 0


RATES = {"sgd": 0.05, "adamw": 0.002}
"""Of encoder and decoder alike: nothing is pretrained here."""
QUICK = ("supmix-sufd",)
"""Presets that are tried in the quick suite; all are in the slow one."""


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in preset.names()
    ],
)
def test_it_overfits_four_images(
    name: str, published: Callable[..., Keys], train: Train, tiny: Keys, data: Path
) -> None:
    """What a preset does with labels and views is the same on any network: the quickest, here."""
    keys = {**published(name, None), "model": {"name": "small_unet", "encoder_weights": None}}
    rate = RATES[keys["optimizer"]]
    rates = {"learning_rate": rate, "encoder_multiplier": 1, "decoder_multiplier": 1}
    metrics = train({**keys, **rates, "scale": [1.0, 1.0], "steps": 60})
    start, end = metrics["loss/supervised"].iloc[0], metrics.iloc[-5:].mean()
    assert end["loss/supervised"] < 0.25 * start
    # Sources that label as it learned to cost little; wrong labels would cost more than ignorance.
    for source in (choice.create() for choice in parsed(keys).label_sources):
        if source.file_name() != "guidance":  # of a CLIP that knows nothing
            assert 0 < end[f"loss/{source.name}"] < 0.5 * start  # smoothed labels never cost 0
    weights = training_folder(Path(tiny["workspace"]), "default") / "model.safetensors"
    vocabulary = Vocabulary.model_validate(VOCABULARY)
    cpu = torch.device("cpu")
    predictor = load_model_file(weights, cpu, vocabulary=vocabulary)
    confusion = Confusion.empty(vocabulary.num_classes)
    for path in sorted(data.glob("labeled/images/*.png")):
        truth = np.asarray(Image.open(data / "labeled/masks" / path.name))
        confusion.add(truth, predictor.predict(np.asarray(Image.open(path))))
    assert (confusion.miou or 0) > 0.85
