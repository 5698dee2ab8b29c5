import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from torch import Tensor

from stages.train.data.batch import TrainBatch
from stages.train.loop.divergence import EXPLOSION, LEAST_MEDIAN, DivergedError, LossWatch
from stages.train.step.label_sources.ema import EmaSource
from stages.train.step.supervised_losses.cross_entropy import CrossEntropyConfig, CrossEntropyLoss
from tests.train.interruptions import BuildLoop, Draw


def watching(*losses: float) -> LossWatch:
    watch = LossWatch()
    assert [watch.fault(loss) for loss in losses] == [None] * len(losses)
    return watch


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_a_fault_at_once(loss: float) -> None:
    assert watching().fault(loss) == f"the loss became {loss}"


def test_a_loss_far_above_the_median_is_a_fault() -> None:
    watch = watching(*[0.5] * 30, 400.0)
    assert watch.fault(0.51 * EXPLOSION) == "the loss became 5100, after a median of 0.5"


def test_the_first_losses_may_be_anything() -> None:
    watching(0.1, 5e6, 0.1)


def test_the_median_runs_with_the_losses() -> None:
    watch = watching(*[1e5] * 101, *[0.5] * 60)
    assert watch.fault(1e5) is not None


def test_a_training_that_knows_its_images_may_meet_an_odd_one() -> None:
    watching(*[1e-6] * 50, 20.0)


def test_a_loss_that_is_a_fault_is_not_part_of_the_median() -> None:
    watch = watching(*[0.5] * 30)
    for _ in range(200):
        assert watch.fault(1e9) is not None


def test_the_median_continues_where_it_was() -> None:
    resumed = LossWatch()
    resumed.load_state_dict(watching(*[0.5] * 30).state_dict())
    assert resumed.fault(1e5) is not None


def test_the_limit_itself_is_no_fault() -> None:
    watch = watching(*[0.5] * 30, 0.5 * EXPLOSION)
    assert watch.fault(math.nextafter(0.5 * EXPLOSION, math.inf)) is not None
    least = watching(*[0.0] * 30, LEAST_MEDIAN * EXPLOSION)
    assert least.fault(math.nextafter(LEAST_MEDIAN * EXPLOSION, math.inf)) is not None


def test_twenty_losses_are_enough() -> None:
    watching(*[0.5] * 19, 1e5)
    assert watching(*[0.5] * 20).fault(1e5) is not None


def test_the_median_is_of_101_losses() -> None:
    """Of 51 and 50 it is that of the 51, and never between the two."""
    assert watching(*[100.0] * 51, *[0.5] * 50).fault(6e5) is None
    assert watching(*[100.0] * 51, *[0.5] * 51).fault(4e5) is not None


class Wild(CrossEntropyLoss):
    """Multiplies its loss by a factor of the step; the root of 0 has no finite gradient."""

    def __init__(self, factor: Callable[[int], float], power: float = 1.0) -> None:
        super().__init__(CrossEntropyConfig())
        self.factor, self.power, self.taken = factor, power, 0

    def measure(self, logits: Tensor, mask: Tensor) -> Tensor:
        loss = super().measure(logits, mask) * self.factor(self.taken)
        self.taken += 1
        return loss**self.power


def spoiled(draw: Draw, step: int, value: float) -> Draw:
    """Batches of which one has images of this value, and names them."""

    def drawn(steps: range) -> Iterator[TrainBatch]:
        for number, batch in zip(steps, draw(steps), strict=True):
            if number == step:
                batch.labeled.images.fill_(value)
            yield replace(batch, image_ids={"labeled": [f"a{number}", "b"], "ood": ["c"]})

    return drawn


def test_a_loss_that_is_not_finite_ends_the_training_and_keeps_its_checkpoint(
    build_loop: BuildLoop, draw: Draw
) -> None:
    case = build_loop()
    message = (
        r"the loss became nan in step 2 \(images: labeled a2 b, ood c\); lower .*; "
        r"the checkpoint after step 2 is kept"
    )
    with pytest.raises(DivergedError, match=message) as error:
        case.loop.run(spoiled(draw, 2, float("nan")))
    assert error.value.where == str(case.loop.checkpoint.path)
    assert case.checkpoint["step"] == 2
    assert all(p.isfinite().all() for p in case.student.parameters())


def test_a_loss_that_explodes_ends_the_training(build_loop: BuildLoop, draw: Draw) -> None:
    wild = Wild(lambda step: 1e6 if step == 25 else 1.0)
    case = build_loop(steps=30, sources=[], supervised_loss=wild)
    message = r"the loss became \S+, after a median of \S+ in step 25 \(images: labeled a25 b, "
    with pytest.raises(DivergedError, match=message):
        case.loop.run(spoiled(draw, 25, 0.5))
    assert case.loop.checkpoint.step() == 25


def test_a_gradient_that_is_not_finite_ends_the_training(build_loop: BuildLoop, draw: Draw) -> None:
    case = build_loop(sources=[], supervised_loss=Wild(lambda step: 0.0, power=0.5))
    with pytest.raises(DivergedError, match=r"the gradient became \S+ in step 0; .*no checkpoint"):
        case.loop.run(draw)
    assert not case.loop.checkpoint.path.exists()
    assert all(p.isfinite().all() for p in case.student.parameters())


def test_a_prediction_that_is_not_finite_ends_the_training(
    build_loop: BuildLoop, draw: Draw
) -> None:
    """A confidence that is NaN is below every threshold, so that nothing else would show it."""

    def poisoned(steps: range) -> Iterator[TrainBatch]:
        for number, batch in zip(steps, draw(steps), strict=True):
            if number == 2:
                case.teacher.get_submodule("encoder.1").get_buffer("running_mean").fill_(math.nan)
            yield batch

    case = build_loop(checkpoint_every=100, sources=[EmaSource(EmaSource.Config(threshold=0.4))])
    with pytest.raises(DivergedError, match="the loss became nan in step 2;"):
        case.loop.run(poisoned)


def test_weights_that_are_not_finite_are_not_saved(build_loop: BuildLoop, draw: Draw) -> None:
    def poisoned(steps: range) -> Iterator[TrainBatch]:
        for number, batch in zip(steps, draw(steps), strict=True):
            if number == 2:
                norm = case.student.get_submodule("encoder.1")
                norm.get_buffer("running_mean").fill_(float("inf"))
            yield batch

    case = build_loop(checkpoint_every=2)
    with pytest.raises(DivergedError, match="weights are not finite in step 3"):
        case.loop.run(poisoned)
    assert case.loop.checkpoint.step() == 2
