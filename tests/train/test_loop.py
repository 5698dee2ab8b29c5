import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.optim import SGD, AdamW

from pipeline.config.components import Choice
from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import ConfigError
from stages.labels.pseudo_labels import PseudoLabels
from stages.models.segmenters.builders.base import ModelBuilder
from stages.models.segmenters.builders.small_unet import SmallUNetConfig, SmallUNetModel
from stages.models.segmenters.description import ModelDescription
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.models.segmenters.protocol import WHOLE_IMAGE
from stages.train.data.batch import LabeledBatch, TrainBatch
from stages.train.loop.checkpoint import Checkpoint
from stages.train.loop.divergence import DivergedError
from stages.train.loop.loop import Optimization, Training
from stages.train.loop.validation import Validation
from stages.train.records.training_log import TrainingLog
from stages.train.step.discriminator import Discriminator, FeatureDiscriminator
from stages.train.step.label_sources.base import LabelSource
from stages.train.step.label_sources.ema import EmaSource
from stages.train.step.label_sources.stored import StoredConfig, StoredSource
from stages.train.step.label_sources.student import StudentSource
from stages.train.step.parts import Learner
from stages.train.step.perturbations.base import (
    Labels,
    Perturbation,
    PerturbationConfig,
    StepLosses,
)
from stages.train.step.perturbations.unimatch import UniMatch
from stages.train.step.schedule import Moment, learning_rate
from stages.train.step.strong_views import Mixture
from stages.train.step.supervised_losses.cross_entropy import CrossEntropyConfig, CrossEntropyLoss
from stages.train.step.weak_predictions import Sight

CPU = torch.device("cpu")
STEPS = 4
OPTIMIZATION = Optimization(
    optimizer="sgd",
    learning_rate=0.1,
    decoder_multiplier=10,
    weight_decay=1e-4,
    ema_decay=0.9,
    steps=STEPS,
    seed=5,
    precision="float32",
)
SOURCES = [
    StudentSource(StudentSource.Config(threshold=0.4)),
    StoredSource(StoredConfig(labeler="clip")),
]


@pytest.fixture
def draw(random_batch: Callable[..., TrainBatch]) -> Callable[[range], Iterator[TrainBatch]]:
    def drawn(steps: range) -> Iterator[TrainBatch]:
        return (random_batch(["unlabeled", "ood"], seed=step) for step in steps)

    return drawn


@pytest.fixture
def build(
    tmp_path: Path, pixel_network: Callable[[], SegmentationNetwork], vocabulary: Vocabulary
) -> Callable[..., Training]:
    """Builds the training of a folder; what is in the folder is resumed."""

    def training(folder: str = "first", **keys: Any) -> Training:
        settings = {key: keys.pop(key) for key in list(keys) if hasattr(OPTIMIZATION, key)}
        facts = keys.pop("facts", {"train.steps": STEPS})
        defaults = {
            "perturbation": UniMatch(PerturbationConfig(), vocabulary),
            "sources": SOURCES,
            "supervised_loss": CrossEntropyLoss(CrossEntropyConfig()),
            "discriminator": None,
            "checkpoint_every": 1,
            "log_every": 1,
            "steps_an_epoch": 2,
        }
        return Training(
            network=pixel_network(),
            optimization=replace(OPTIMIZATION, **settings),
            checkpoint=Checkpoint(tmp_path / folder / "last.pt", facts),
            log=TrainingLog(tmp_path / folder / "log.jsonl"),
            **{**defaults, **keys},
        )

    return training


@pytest.fixture
def validation(tmp_path: Path, vocabulary: Vocabulary) -> Validation:
    """On an image of noise, after each step."""
    rng = np.random.default_rng(0)
    files = {"uri": rng.integers(0, 256, (8, 8, 3)), "mask_uri": rng.integers(0, 3, (8, 8))}
    row: dict[str, Any] = {"image_id": None, "mask_id": None, "label_scheme": None}
    for key, pixels in files.items():
        row[key] = str(tmp_path / f"{key}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(row[key])
    path = tmp_path / "best.safetensors"
    keys = SmallUNetConfig(encoder_weights=None)
    model: Choice[ModelBuilder] = Choice("small_unet", SmallUNetModel, keys)
    description = ModelDescription.of_training(model, vocabulary, WHOLE_IMAGE, {})
    return Validation([row], vocabulary, 1, path, description, CPU, WHOLE_IMAGE)


Draw = Callable[[range], Iterator[TrainBatch]]
Build = Callable[..., Training]


class Killed(Exception):
    """Stands for the end of a process."""


def dying_at(step: int, draw: Draw) -> Draw:
    """Batches up to a step, then the end."""

    def drawn(steps: range) -> Iterator[TrainBatch]:
        for number, batch in zip(steps, draw(steps), strict=True):
            if number == step:
                raise Killed
            yield batch

    return drawn


def run(training: Training, draw: Draw) -> tuple[SegmentationNetwork, list[int]]:
    """The teacher, and the steps that were told."""
    told: list[int] = []
    return training.run(draw, CPU, lambda step, values: told.append(step)), told


def numbers(training: Training, teacher: SegmentationNetwork) -> list[Tensor]:
    """Student, teacher, and the saved state of both and of the optimizer."""
    state = torch.load(training.checkpoint.path, weights_only=True)
    parts = state["parts"]
    moments = [entry["momentum_buffer"] for entry in parts["optimizer"]["state"].values()]
    saved = [*parts["network"].values(), *parts["teacher"].values(), *moments]
    return [*training.network.state_dict().values(), *teacher.state_dict().values(), *saved]


def log_of(training: Training) -> list[dict[str, float]]:
    """Of the file beside the checkpoint."""
    lines = training.checkpoint.path.with_name("log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("sources", [SOURCES, [EmaSource(EmaSource.Config(threshold=0.4))]])
@pytest.mark.parametrize("killed_at", [1, 2, 3])
@pytest.mark.parametrize("checkpoint_every", [1, 2])
def test_a_resumed_training_equals_an_undisturbed_one(
    build: Build, draw: Draw, sources: list[LabelSource], killed_at: int, checkpoint_every: int
) -> None:
    whole = build("whole", sources=sources)
    teacher, _ = run(whole, draw)
    with pytest.raises(Killed):
        run(build(sources=sources, checkpoint_every=checkpoint_every), dying_at(killed_at, draw))
    torch.manual_seed(99)
    resumed = build(sources=sources, checkpoint_every=checkpoint_every)
    resumed_teacher, told = run(resumed, draw)
    start = killed_at // checkpoint_every * checkpoint_every
    assert told == [start, *range(start + 1, STEPS + 1)]
    pairs = zip(numbers(whole, teacher), numbers(resumed, resumed_teacher), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert log_of(resumed) == log_of(whole)


def test_a_finished_training_resumes_at_its_end(build: Build, draw: Draw) -> None:
    teacher, _ = run(build(), draw)
    again, told = run(build(), draw)
    assert told == [STEPS]
    assert all(map(torch.equal, teacher.state_dict().values(), again.state_dict().values()))


def test_another_training_starts_anew(build: Build, draw: Draw) -> None:
    run(build(seed=1, facts={"train.seed": 1}), draw)
    other = build(facts={"train.seed": 5})
    teacher, told = run(other, draw)
    alone = build("alone", facts={"train.seed": 5})
    assert told[0] == 0
    pairs = zip(numbers(other, teacher), numbers(alone, run(alone, draw)[0]), strict=True)
    assert all(torch.equal(one, another) for one, another in pairs)
    assert [line["step"] for line in log_of(other)] == [1, 2, 3, 4]


@pytest.mark.parametrize("content", [None, b"", b"{}\n", b"\xff\xfe garbage", b'{"step": 1}\n{"st'])
def test_the_log_of_a_resumed_training_is_whole_whatever_became_of_the_file(
    build: Build, draw: Draw, content: bytes | None
) -> None:
    with pytest.raises(Killed):
        run(build(), dying_at(2, draw))
    file = build().checkpoint.path.with_name("log.jsonl")
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    training = build()
    run(training, draw)
    assert [line["step"] for line in log_of(training)] == [1, 2, 3, 4]
    assert all("loss/total" in line for line in log_of(training))


def test_the_teacher_comes_back_frozen_and_apart_from_the_student(build: Build, draw: Draw) -> None:
    training = build()
    teacher, _ = run(training, draw)
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    student = training.network.state_dict()
    assert any(not torch.equal(student[name], own) for name, own in teacher.state_dict().items())


def test_the_teacher_is_the_first_student_and_then_the_mean_of_two(
    build: Build, draw: Draw
) -> None:
    """Both trainings take the same first step: the rate lags."""
    one, two = build("one", steps=1), build("two", steps=2)
    (first, _), (second, _) = run(one, draw), run(two, draw)
    students = [training.network.state_dict() for training in (one, two)]
    for name, own in first.state_dict().items():
        assert torch.equal(own, students[0][name])
    for name, own in second.named_parameters():
        torch.testing.assert_close(own, (students[0][name] + students[1][name]) / 2)
        assert not torch.equal(students[0][name], students[1][name])


def test_the_log_holds_every_term_and_the_rate(build: Build, draw: Draw) -> None:
    training = build(log_every=3)
    run(training, draw)
    lines = log_of(training)
    assert [line["step"] for line in lines] == [3, STEPS]
    losses = ["total", "supervised", "student_unlabeled", "stored_ood_clip"]
    assert list(lines[0]) == ["step", *(f"loss/{name}" for name in losses), "learning_rate"]
    for line in lines:
        terms = [line[f"loss/{name}"] for name in losses[1:]]
        assert line["loss/total"] == pytest.approx(sum(terms) / 3)


def test_the_rate_decays_polynomially_with_the_published_lag(build: Build, draw: Draw) -> None:
    training = build()
    run(training, draw)
    rates = [line["learning_rate"] for line in log_of(training)]
    assert rates == [learning_rate(0.1, step, STEPS) for step in range(STEPS)]
    assert rates[:2] == [0.1, 0.1]


def test_the_decoder_moves_at_a_multiple_of_the_encoders_rate(build: Build, draw: Draw) -> None:
    """Of one step without momentum and decay, from the same weights."""
    moved: dict[float, dict[str, Tensor]] = {}
    for multiplier in (1.0, 10.0):
        training = build(str(multiplier), steps=1, decoder_multiplier=multiplier, weight_decay=0)
        before = {name: p.detach().clone() for name, p in training.network.named_parameters()}
        run(training, draw)
        after = dict(training.network.named_parameters())
        moved[multiplier] = {name: after[name].detach() - p for name, p in before.items()}
    for name, change in moved[1.0].items():
        factor = 1 if name.startswith("encoder.") else 10
        torch.testing.assert_close(moved[10.0][name], factor * change, rtol=1e-3, atol=1e-6)
    for name in ("encoder.0.weight", "classifier.weight"):
        assert moved[1.0][name].abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "kind", "key", "value"),
    [("sgd", SGD, "momentum", 0.9), ("adamw", AdamW, "betas", (0.9, 0.999))],
)
def test_the_optimizer_has_a_group_for_the_encoder_and_one_for_the_rest(
    build: Build, name: str, kind: type[torch.optim.Optimizer], key: str, value: object
) -> None:
    training = build(optimizer=name)
    optimizer = training.optimization.build(training.network)
    assert isinstance(optimizer, kind)
    encoder, decoder = optimizer.param_groups
    assert [id(p) for p in encoder["params"]] == [
        id(p) for p in training.network.encoder.parameters()
    ]
    assert len(encoder["params"]) + len(decoder["params"]) == len(
        list(training.network.parameters())
    )
    assert {group["weight_decay"] for group in optimizer.param_groups} == {1e-4}
    assert {group[key] for group in optimizer.param_groups} == {value}


def test_layer_decay_needs_blocks(build: Build) -> None:
    training = build(layer_decay=0.9)
    with pytest.raises(ConfigError, match="no transformer blocks") as caught:
        training.optimization.build(training.network)
    assert caught.value.where == "train.layer_decay"


def spoiled(draw: Draw, step: int, value: float) -> Draw:
    """Batches of which one has images of this value, and names them."""

    def drawn(steps: range) -> Iterator[TrainBatch]:
        for number, batch in zip(steps, draw(steps), strict=True):
            if number == step:
                batch.labeled.images.fill_(value)
            yield replace(batch, image_ids={"labeled": [f"a{number}", "b"], "ood": ["c"]})

    return drawn


def test_a_loss_that_is_not_finite_ends_the_training_and_keeps_its_checkpoint(
    build: Build, draw: Draw
) -> None:
    training = build()
    message = (
        r"the loss became nan in step 2 \(images: labeled a2 b, ood c\); lower .*; "
        r"the checkpoint after step 2 is kept"
    )
    with pytest.raises(DivergedError, match=message) as error:
        run(training, spoiled(draw, 2, float("nan")))
    assert error.value.where == str(training.checkpoint.path)
    assert torch.load(training.checkpoint.path, weights_only=True)["step"] == 2
    assert all(p.isfinite().all() for p in training.network.parameters())


def test_a_loss_that_explodes_ends_the_training(
    build: Build, draw: Draw, vocabulary: Vocabulary
) -> None:
    wild = Wild(vocabulary, lambda step: 1e6 if step == 25 else 1.0)
    training = build(steps=30, perturbation=wild)
    message = r"the loss became \S+, after a median of \S+ in step 25 \(images: labeled a25 b, "
    with pytest.raises(DivergedError, match=message):
        run(training, spoiled(draw, 25, 0.5))
    assert training.checkpoint.step() == 25


def test_a_gradient_that_is_not_finite_ends_the_training(
    build: Build, draw: Draw, vocabulary: Vocabulary
) -> None:
    training = build(perturbation=Wild(vocabulary, lambda step: 0.0, power=0.5))
    with pytest.raises(DivergedError, match=r"the gradient became \S+ in step 0; .*no checkpoint"):
        run(training, draw)
    assert not training.checkpoint.path.exists()
    assert all(p.isfinite().all() for p in training.network.parameters())


def test_weights_that_are_not_finite_are_not_saved(build: Build, draw: Draw) -> None:
    def poisoned(steps: range) -> Iterator[TrainBatch]:
        for number, batch in zip(steps, draw(steps), strict=True):
            if number == 2:
                norm = training.network.get_submodule("encoder.1")
                norm.get_buffer("running_mean").fill_(float("inf"))
            yield batch

    training = build(checkpoint_every=2)
    with pytest.raises(DivergedError, match="weights are not finite in step 3"):
        run(training, poisoned)
    assert training.checkpoint.step() == 2


def in_pieces(draw: Draw, pieces: int) -> Draw:
    """The micro-batches of the same images: labeled crops alone."""

    def drawn(micro: range) -> Iterator[TrainBatch]:
        assert micro.start % pieces == micro.stop % pieces == 0
        for batch in draw(range(micro.start // pieces, micro.stop // pieces)):
            images, masks = batch.labeled.images.chunk(pieces), batch.labeled.mask.chunk(pieces)
            for image, mask in zip(images, masks, strict=True):
                yield replace(batch, labeled=LabeledBatch(image, mask), crops={})

    return drawn


def test_micro_batches_add_up_to_the_batch(build: Build, draw: Draw) -> None:
    """All of one size, without BatchNorm's statistics, which are those of a micro-batch."""
    teachers = {}
    for pieces in (1, 2, 4):
        training = build(str(pieces), accumulate=pieces, sources=[])
        training.network.get_submodule("encoder").register_module("1", torch.nn.Identity())
        teachers[pieces], told = run(training, in_pieces(draw, pieces))
        assert told == [0, 1, 2, 3, 4]
        assert len(log_of(training)) == STEPS
    for pieces in (2, 4):
        pairs = zip(teachers[1].parameters(), teachers[pieces].parameters(), strict=True)
        for one, other in pairs:
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_the_discriminator_takes_a_step_a_step(build: Build, draw: Draw) -> None:
    judge = Discriminator(FeatureDiscriminator(8), weight=0.01, learning_rate=1e-3)
    run(build(accumulate=2, sources=SOURCES[:1], discriminator=judge), draw)
    assert {int(state["step"]) for state in judge.optimizer.state.values()} == {STEPS}


def test_a_long_gradient_is_clipped(build: Build, draw: Draw) -> None:
    """Of one step without momentum and decay: the step is as long as the clipped gradient."""
    keys = {"steps": 1, "weight_decay": 0, "decoder_multiplier": 1, "learning_rate": 1.0}
    lengths = {}
    for norm in (None, 1e-3, 1e3):
        training = build(str(norm), clip_norm=norm, **keys)
        before = [p.detach().clone() for p in training.network.parameters()]
        run(training, draw)
        moved = zip(before, training.network.parameters(), strict=True)
        lengths[norm] = torch.cat([(b - p.detach()).flatten() for b, p in moved]).norm().item()
    assert lengths[1e-3] == pytest.approx(1e-3, rel=1e-2)
    assert lengths[None] == lengths[1e3] > 1e-2


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_reduced_precision_trains_nearly_the_same_in_float32_weights(
    build: Build, draw: Draw, precision: str
) -> None:
    exact, _ = run(build("exact", sources=[]), in_pieces(draw, 1))
    reduced, _ = run(build(precision, precision=precision, sources=[]), in_pieces(draw, 1))
    for one, other in zip(exact.parameters(), reduced.parameters(), strict=True):
        assert other.dtype == torch.float32
        torch.testing.assert_close(one, other, atol=2e-2, rtol=0)


def test_a_resumed_float16_training_goes_on_with_its_scale(build: Build, draw: Draw) -> None:
    with pytest.raises(Killed):
        run(build(precision="float16"), dying_at(2, draw))
    saved = torch.load(build().checkpoint.path, weights_only=True)["parts"]["scaler"]
    assert saved["scale"] > 1
    assert saved["_growth_tracker"] == 2
    resumed, whole = build(precision="float16"), build("whole", precision="float16")
    pairs = zip(run(resumed, draw)[0].parameters(), run(whole, draw)[0].parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


class CountingSource(StudentSource):
    """Counts the batches that it labeled, and learns from that how sure to be."""

    def __init__(self) -> None:
        super().__init__(StudentSource.Config(threshold=0.3))
        self.labeled = 0
        self.heard: list[tuple[bool, int]] = []

    def label(self, batch: TrainBatch, key: str, sight: Sight) -> PseudoLabels:
        self.labeled += 1
        return super().label(batch, key, sight).confident(0.3 + self.labeled / 100)

    def validated(self, network: SegmentationNetwork, *, is_best: bool, epoch: int) -> None:
        self.heard.append((is_best, epoch))

    def state(self) -> dict[str, Any]:
        return {"labeled": self.labeled}

    def restore(self, state: Mapping[str, Any], network: SegmentationNetwork) -> None:
        self.labeled = state["labeled"]


def test_the_state_of_sources_is_resumed(build: Build, draw: Draw) -> None:
    whole = build("whole", sources=[CountingSource()])
    teacher, _ = run(whole, draw)
    with pytest.raises(Killed):
        run(build(sources=[CountingSource()]), dying_at(2, draw))
    resumed = build(sources=[CountingSource()])
    again, _ = run(resumed, draw)
    pairs = zip(numbers(whole, teacher), numbers(resumed, again), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_sources_hear_of_each_validation_and_of_the_epoch_that_comes_next(
    build: Build, draw: Draw, validation: Validation
) -> None:
    source = CountingSource()
    training = build(sources=[source], validation=validation, steps_an_epoch=2)
    run(training, draw)
    scores = [line["miou"] for line in log_of(training) if "miou" in line]
    best = [score > max(scores[:i], default=-1) for i, score in enumerate(scores)]
    assert source.heard == list(zip(best, [0, 1, 1, 2], strict=True))


class Supervised(Perturbation):
    """Learns from labeled crops alone."""

    def mixtures(
        self, batch: TrainBatch, role: str, labels: Labels, pasted: Labels
    ) -> list[Mixture]:
        raise AssertionError("there is nothing to mix")

    def step(self, learner: Learner, batch: TrainBatch, moment: Moment) -> StepLosses:
        return super().step(replace(learner, sources=[]), replace(batch, crops={}), moment)


class Wild(Supervised):
    """Multiplies its loss; the root of 0 has no finite gradient."""

    def __init__(
        self, vocabulary: Vocabulary, factor: Callable[[int], float], power: float = 1.0
    ) -> None:
        super().__init__(PerturbationConfig(), vocabulary)
        self.factor, self.power, self.taken = factor, power, 0

    def step(self, learner: Learner, batch: TrainBatch, moment: Moment) -> StepLosses:
        losses = super().step(learner, batch, moment)
        self.taken += 1
        return StepLosses((losses.total * self.factor(self.taken - 1)) ** self.power, losses.terms)


class Dice(Supervised):
    """Notes a random number each step."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(PerturbationConfig(), vocabulary)
        self.thrown: list[float] = []

    def step(self, learner: Learner, batch: TrainBatch, moment: Moment) -> StepLosses:
        self.thrown.append(torch.rand(()).item())
        return super().step(learner, batch, moment)


def test_every_step_has_random_numbers_of_its_own(
    build: Build, draw: Draw, vocabulary: Vocabulary
) -> None:
    dice = {name: Dice(vocabulary) for name in ("whole", "other seed", "resumed")}
    run(build("whole", perturbation=dice["whole"]), draw)
    run(build("other", perturbation=dice["other seed"], seed=6), draw)
    with pytest.raises(Killed):
        run(build(), dying_at(2, draw))
    run(build(perturbation=dice["resumed"]), draw)
    first, other = dice["whole"].thrown, dice["other seed"].thrown
    assert len({*first, *other}) == 2 * STEPS
    assert dice["resumed"].thrown == first[2:]


def test_a_training_learns(build: Build, draw: Draw) -> None:
    """Of stored labels that are the labels of the images' own brightest channel."""

    def bright(steps: range) -> Iterator[TrainBatch]:
        for batch in draw(steps):
            batch.labeled.mask.copy_(batch.labeled.images.argmax(1))
            for part in batch.crops.values():
                part.stored["clip"].mask.copy_(part.weak.argmax(1))
                part.stored["clip"].confidence.fill_(1)
            yield batch

    training = build(steps=25, log_every=25, checkpoint_every=25)
    teacher, _ = run(training, bright)
    (batch,) = draw(range(100, 101))
    images = batch.labeled.images
    assert (teacher(images).argmax(1) == images.argmax(1)).float().mean() > 0.7
