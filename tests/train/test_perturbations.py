"""What holds for every perturbation in the folder, whatever views it makes."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from pipeline.config import components
from pipeline.config.vocabulary import Vocabulary
from stages.models.segmenters.networks.base import SegmentationNetwork, frozen_copy
from stages.train.data.batch import TrainBatch
from stages.train.step.label_sources.base import LabelSource
from stages.train.step.label_sources.ema import EmaSource
from stages.train.step.label_sources.enhanced import EnhancedConfig, EnhancedSource
from stages.train.step.label_sources.previous import PreviousConfig, PreviousSource
from stages.train.step.label_sources.stored import StoredConfig, StoredSource
from stages.train.step.label_sources.student import StudentSource
from stages.train.step.parts import TrainingParts
from stages.train.step.perturbations.base import Perturbation
from stages.train.step.schedule import StepPosition
from stages.train.step.step import training_step
from stages.train.step.supervised_losses.cross_entropy import CrossEntropyConfig, CrossEntropyLoss

FAMILY = "stages.train.step.perturbations"
START = StepPosition(step=0, steps=10, steps_an_epoch=5)
BuildNetwork = Callable[[], SegmentationNetwork]
BuildParts = Callable[..., TrainingParts]
RandomBatch = Callable[..., TrainBatch]


def student(**keys: object) -> LabelSource:
    return StudentSource(StudentSource.Config.model_validate(keys))


def stored(**keys: object) -> LabelSource:
    return StoredSource(StoredConfig.model_validate({"labeler": "clip", **keys}))


def ema(**keys: object) -> LabelSource:
    return EmaSource(EmaSource.Config.model_validate(keys))


def enhanced(**keys: object) -> LabelSource:
    return EnhancedSource(EnhancedConfig.model_validate({"labeler": "clip", **keys}))


SOURCES: dict[str, list[LabelSource]] = {
    "student": [student(threshold=0.4)],
    "stored": [stored()],
    "ema": [ema(threshold=0.4)],
    "enhanced": [enhanced(student_threshold=0.4)],
    "both": [student(threshold=0.4), stored(student_threshold=0.4)],
    "three": [
        student(threshold=0.4, mode="pixelratio"),
        student(on="ood", threshold=0.4),
        stored(on="unlabeled", weight=0.5, student="ema"),
    ],
}


def roles(sources: Sequence[LabelSource]) -> list[str]:
    return [role for role in ("unlabeled", "ood") if role in {s.config.on for s in sources}]


def gradients(loss: Tensor, network: SegmentationNetwork) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(network.parameters()), retain_graph=True))


@pytest.fixture(params=components.names(FAMILY))
def perturbation(request: pytest.FixtureRequest, vocabulary: Vocabulary) -> Perturbation:
    found = components.find(FAMILY, request.param, Perturbation)  # type: ignore[type-abstract]
    return found(found.Config(), vocabulary)  # type: ignore[arg-type]


@pytest.fixture
def teacher(pixel_network: BuildNetwork) -> SegmentationNetwork:
    return frozen_copy(pixel_network())


@pytest.fixture(params=SOURCES)
def sources(request: pytest.FixtureRequest) -> list[LabelSource]:
    return SOURCES[request.param]


def test_without_sources_the_step_is_supervised(
    perturbation: Perturbation,
    parts: BuildParts,
    pixel_network: BuildNetwork,
    random_batch: RandomBatch,
) -> None:
    batch = random_batch()
    losses = training_step(parts(perturbation, pixel_network(), []), batch, START)
    logits = pixel_network().train()(batch.labeled.images)
    alone = CrossEntropyLoss(CrossEntropyConfig()).measure(logits, batch.labeled.mask)
    torch.testing.assert_close(losses.total, alone)
    assert losses.terms.keys() == {"supervised"}


def test_a_step_names_its_terms_weighs_them_and_teaches_the_whole_network(
    perturbation: Perturbation,
    parts: BuildParts,
    sources: list[LabelSource],
    pixel_network: BuildNetwork,
    random_batch: RandomBatch,
) -> None:
    network = pixel_network().eval()
    losses = training_step(
        parts(perturbation, network, sources), random_batch(roles(sources)), START
    )
    assert next(iter(losses.terms)) == "supervised"
    assert set(losses.terms) == {"supervised", *(source.name for source in sources)}
    assert losses.labels.keys() == {source.name for source in sources}
    weights = {source.name: source.config.weight for source in sources}
    weighted = sum(weights.get(name, 1) * term for name, term in losses.terms.items())
    share = 1 + sum(weights.values()) if perturbation.averages else 1
    torch.testing.assert_close(losses.total, weighted / share)
    assert network.training
    for name, term in losses.terms.items():
        assert any(gradient.abs().sum() > 0 for gradient in gradients(term, network)), name


def test_a_step_is_a_function_of_its_draws(
    perturbation: Perturbation,
    parts: BuildParts,
    pixel_network: BuildNetwork,
    random_batch: RandomBatch,
) -> None:
    totals = []
    for step in (1, 1, 2):
        batch = random_batch(["ood"], step=step)
        own = parts(perturbation, pixel_network(), SOURCES["stored"])
        totals.append(training_step(own, batch, START).total)
        torch.rand(3)  # other random numbers are of no account
    assert torch.equal(totals[0], totals[1])
    assert not torch.equal(totals[0], totals[2])


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.25, 3.0), (7.0, 0.01)])
def test_the_total_of_equal_losses_is_that_loss_for_any_weights(
    perturbation: Perturbation,
    parts: BuildParts,
    weights: tuple[float, float],
    pixel_network: BuildNetwork,
    random_batch: RandomBatch,
) -> None:
    """A network that knows nothing has cross-entropy ln 3 everywhere."""
    network = pixel_network()
    for parameter in network.decoder_parameters():
        torch.nn.init.zeros_(parameter)
    own, others = weights
    on_web = student(threshold=0, weight=others, on="ood")
    alone = student(threshold=0, weight=own)
    for chosen in ([alone], [on_web], [alone, on_web]):
        losses = training_step(
            parts(perturbation, network, chosen), random_batch(roles(chosen)), START
        )
        share = 1 if perturbation.averages else 1 + sum(each.config.weight for each in chosen)
        torch.testing.assert_close(losses.total, share * torch.tensor(3.0).log())


def test_a_source_with_nothing_to_say_yet_is_left_out(
    perturbation: Perturbation,
    parts: BuildParts,
    pixel_network: BuildNetwork,
    random_batch: RandomBatch,
) -> None:
    """A role that nobody else labels passes no strong view."""
    silent = PreviousSource(PreviousConfig(on="ood"))
    batch = random_batch(["unlabeled", "ood"])
    both = training_step(parts(perturbation, pixel_network(), [student(), silent]), batch, START)
    assert silent.name not in both.terms
    assert silent.name not in both.labels
    alone = training_step(parts(perturbation, pixel_network(), [silent]), batch, START)
    assert alone.terms.keys() == {"supervised"}
    torch.testing.assert_close(alone.total, alone.terms["supervised"])


def test_where_no_pixel_is_confident_only_labeled_pixels_teach(
    perturbation: Perturbation,
    parts: BuildParts,
    pixel_network: BuildNetwork,
    random_batch: RandomBatch,
) -> None:
    if "supmix" in type(perturbation).__module__:
        pytest.skip("labeled pixels teach there twice")
    network = pixel_network()
    unsure = [student(threshold=1, weight=2), student(threshold=1, on="ood")]
    losses = training_step(parts(perturbation, network, unsure), random_batch(roles(unsure)), START)
    alone = gradients(losses.terms["supervised"], network)
    share = 1 + 2 + 1 if perturbation.averages else 1
    for found, expected in zip(gradients(losses.total, network), alone, strict=True):
        torch.testing.assert_close(found * share, expected)
        assert expected.abs().sum() > 0
    assert all(losses.terms[source.name] == 0 for source in unsure)


def test_padding_teaches_nothing(
    perturbation: Perturbation,
    parts: BuildParts,
    sources: list[LabelSource],
    pixel_network: BuildNetwork,
    random_batch: RandomBatch,
) -> None:
    batch = random_batch(roles(sources))
    batch.labeled.mask.fill_(255)  # of which nothing is pasted
    for crops in batch.crops.values():
        crops.valid.zero_()
    losses = training_step(parts(perturbation, pixel_network(), sources), batch, START)
    assert all(losses.terms[source.name] == 0 for source in sources)


def test_the_teacher_stays_as_it_is(
    perturbation: Perturbation,
    parts: BuildParts,
    teacher: SegmentationNetwork,
    sources: list[LabelSource],
    pixel_network: BuildNetwork,
    random_batch: RandomBatch,
) -> None:
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    own = parts(perturbation, pixel_network(), sources, teacher)
    losses = training_step(own, random_batch(roles(sources)), START)
    losses.total.backward()  # type: ignore[no-untyped-call]
    assert not teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(before[name], now) for name, now in teacher.state_dict().items())


def test_under_autocast_every_parameter_learns_as_without(
    perturbation: Perturbation,
    parts: BuildParts,
    sources: list[LabelSource],
    pixel_network: BuildNetwork,
    random_batch: RandomBatch,
) -> None:
    """Passes without gradient must not leave weights behind that know none."""
    found = []
    for is_reduced in (False, True):
        network = pixel_network()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_reduced):
            batch = random_batch(roles(sources))
            losses = training_step(parts(perturbation, network, sources), batch, START)
        found.append(torch.cat([each.flatten() for each in gradients(losses.total, network)]))
    full, reduced = found
    assert torch.cosine_similarity(full, reduced, dim=0) > 0.95
