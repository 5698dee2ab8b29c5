import pytest

from stages.train.schedule import learning_rate, poly


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
