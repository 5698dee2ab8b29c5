import math

import pytest

from stages.train.loop.divergence import EXPLOSION, LossWatch


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


def test_the_median_goes_on_where_it_was() -> None:
    resumed = LossWatch()
    resumed.load_state_dict(watching(*[0.5] * 30).state_dict())
    assert resumed.fault(1e5) is not None
