import pytest

from stages.train.step.schedule import Length, StepPosition, learning_rate, poly, weight


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 1e-3), (500, 5.35887e-4), (999, 1.99526e-6), (1000, 0.0)]
)
def test_poly_has_the_published_values(step: int, rate: float) -> None:
    assert poly(1e-3, step, 1000) == pytest.approx(rate, rel=1e-5)


def test_the_rate_lags_one_step_behind_the_decay() -> None:
    assert learning_rate(1e-3, 0, 1000) == 1e-3
    assert learning_rate(1e-3, 1, 1000) == 1e-3
    assert learning_rate(1e-3, 2, 1000) == poly(1e-3, 1, 1000) < 1e-3
    assert learning_rate(1e-3, 999, 1000) == poly(1e-3, 998, 1000) > 0


@pytest.mark.parametrize(
    ("epoch", "expected"), [(0, 0), (20, 0.5), (39, 0.975), (40, 1), (60, 0.5), (79, 0.025)]
)
def test_a_triangle_rises_to_the_middle_epoch_and_falls(epoch: int, expected: float) -> None:
    moments = (StepPosition(step, 80 * 7, 7) for step in (7 * epoch, 7 * epoch + 6))
    assert [weight("triangle", moment) for moment in moments] == [pytest.approx(expected)] * 2


def test_a_training_of_one_epoch_has_the_whole_weight() -> None:
    assert weight("triangle", StepPosition(0, 5, 7)) == 1


def test_a_weight_falls_from_step_to_step() -> None:
    assert [weight("linear_down", StepPosition(step, 4, 2)) for step in range(4)] == [
        1,
        0.75,
        0.5,
        0.25,
    ]


def test_a_constant_weight_is_whole() -> None:
    assert {weight("constant", StepPosition(step, 4, 2)) for step in range(4)} == {1}


@pytest.mark.parametrize(
    ("length", "is_early"),
    [
        (Length(steps=4, epochs=None, validate_every=3), True),
        (Length(steps=4, epochs=None, validate_every=4), False),
        (Length(steps=4, epochs=None, validate_every=5), False),
        (Length(steps=4, epochs=None, validate_every=None), False),
        (Length(steps=None, epochs=1, validate_every="epoch"), False),
        (Length(steps=None, epochs=2, validate_every="epoch"), True),
    ],
)
def test_the_validation_after_the_last_step_is_not_early(length: Length, is_early: bool) -> None:
    assert length.has_early_validation is is_early
