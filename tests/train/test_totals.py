"""Every preset's total: of equal losses that loss, and on top of it what its guidance adds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.config.config import Config, RunConfig, parse_section
from pipeline.config.config_section import Section
from pipeline.config.vocabulary import Vocabulary
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.train import preset
from stages.train.config import TrainConfig, VariantConfig
from stages.train.data.batch import TrainBatch
from stages.train.step.label_sources.base import LabelSource
from stages.train.step.parts import TrainingParts
from stages.train.step.schedule import StepPosition
from stages.train.step.step import training_step

LN_3 = torch.tensor(3.0).log()
STEPS, STEPS_AN_EPOCH = 40, 4
OF_CLIP = {"name": "dense_clip", "model": "sandbox", "window_px": 16, "stride_px": 16}
SUMS = ("classmix", "supmix-sufd")
"""Presets whose total is no mean: the losses add up."""
TOTALS: dict[str, Callable[..., Tensor]] = {
    "supervised": lambda x: x,
    "fixmatch": lambda x, u: (x + u) / 2,
    "unimatch": lambda x, u: (x + u) / 2,
    "unimatch-v2": lambda x, u: (x + u) / 2,
    "zero-shot-sam-clip": lambda x, u: (x + u) / 2,
    "prevmatch": lambda x, u, previous: (x + u + 0.4 * previous) / 2.4,
    "semivl": lambda x, u, guide: (x + u) / 2 + 0.075 * guide,
    "semiovs-unimatch": lambda x, u, ood: (x + u + ood) / 3,
    "semiovs-prevmatch": lambda x, u, previous, ood: (x + u + 0.4 * previous + ood) / 3.4,
    "semiovs-semivl": lambda x, u, guide, ood: (x + u + 0.5 * ood) / 2.5 + 0.075 * guide,
    "classmix": lambda x, u: x + u,
    "supmix-sufd": lambda x, u: x + u,
}
"""As published, a quarter into a training: epoch 2 of 10, when PrevMatch's weight is 2 / 5."""


class ConfigFile(Section):
    train: TrainConfig


@pytest.fixture
def variant() -> Callable[[str], VariantConfig]:
    """A preset as it is written, but that every pixel counts and labels are there."""

    def read(name: str) -> VariantConfig:
        keys: dict[str, Any] = preset.expanded({"preset": name})
        for source in keys["label_sources"]:
            for threshold in {"threshold", "student_threshold"} & source.keys():
                source[threshold] = 0
            if "labeler" in source:
                source["labeler"] = OF_CLIP if source["name"] == "guidance" else "clip"
        section = parse_section(ConfigFile, {"train": keys}, path=Path("run.yaml"))
        (found,) = section.train.variants.values()
        return found

    return read


@pytest.fixture
def sources(
    tmp_path: Path, vocabulary: Vocabulary, pixel_network: Callable[[], SegmentationNetwork]
) -> Callable[[VariantConfig], list[LabelSource]]:
    """Those of a variant, loaded; earlier selves that know nothing are among them."""
    run = RunConfig(run="a", workspace=tmp_path, vocabulary=Path("pets.yaml"))

    def create(variant: VariantConfig) -> list[LabelSource]:
        found = [choice.create() for choice in variant.label_sources]
        for source in found:
            source.load(Config(tmp_path / "a.yaml", run, {}, vocabulary), torch.device("cpu"))
            source.validated(pixel_network(), is_best=True, epoch=1)
        return found

    return create


def counted(batch: TrainBatch) -> TrainBatch:
    """With crops all of whose pixels count."""
    for crops in batch.crops.values():
        crops.valid.fill_(True)  # guidance divides by padding too
        crops.stored["clip"].mask.clamp_(max=2)
        crops.stored["clip"].confidence.fill_(1)
    return batch


@pytest.mark.parametrize("step", [0, STEPS // 4, STEPS // 2, STEPS - 1])
@pytest.mark.parametrize("name", preset.names())
def test_the_total_of_equal_losses_is_that_loss_and_guidance_comes_on_top(
    name: str,
    step: int,
    variant: Callable[[str], VariantConfig],
    sources: Callable[[VariantConfig], list[LabelSource]],
    pixel_network: Callable[[], SegmentationNetwork],
    parts: Callable[..., TrainingParts],
    random_batch: Callable[..., TrainBatch],
    vocabulary: Vocabulary,
) -> None:
    """A network that knows nothing has cross-entropy ln 3 everywhere."""
    network = pixel_network()
    for parameter in network.decoder_parameters():
        torch.nn.init.zeros_(parameter)
    own = variant(name)
    batch = counted(random_batch(own.roles))
    position = StepPosition(step, STEPS, STEPS_AN_EPOCH)
    chosen = sources(own)
    perturbation = own.perturbation.create(vocabulary)
    losses = training_step(parts(perturbation, network, chosen), batch, position)
    for term, loss in losses.terms.items():
        torch.testing.assert_close(loss, LN_3, msg=term)
    guided = 0.1 * (1 - step / STEPS) if "semivl" in name else 0
    summed = len(chosen) if name in SUMS else 0
    torch.testing.assert_close(losses.total, LN_3 * (1 + summed + guided))


@pytest.mark.parametrize("name", TOTALS)
def test_the_total_of_unequal_losses_is_the_published_one(
    name: str,
    variant: Callable[[str], VariantConfig],
    sources: Callable[[VariantConfig], list[LabelSource]],
    pixel_network: Callable[[], SegmentationNetwork],
    parts: Callable[..., TrainingParts],
    random_batch: Callable[..., TrainBatch],
    vocabulary: Vocabulary,
) -> None:
    own = variant(name)
    batch = counted(random_batch(own.roles))
    perturbation = own.perturbation.create(vocabulary)
    position = StepPosition(STEPS // 4, STEPS, STEPS_AN_EPOCH)
    losses = training_step(parts(perturbation, pixel_network(), sources(own)), batch, position)
    terms = [loss.item() for loss in losses.terms.values()]
    assert all(abs(a - b) > 1e-3 for i, a in enumerate(terms) for b in terms[:i])
    torch.testing.assert_close(losses.total, TOTALS[name](*losses.terms.values()))
