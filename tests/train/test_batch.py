from collections.abc import Callable

import pytest

from stages.train.batch import MIX, TrainBatch


@pytest.mark.parametrize(
    ("roles", "partners"),
    [
        (["unlabeled"], {"unlabeled": MIX}),
        (["ood"], {"ood": MIX}),
        (["unlabeled", "ood"], {"unlabeled": MIX, "ood": "unlabeled"}),
    ],
)
def test_the_first_role_is_mixed_with_itself_and_the_others_with_the_first(
    random_batch: Callable[..., TrainBatch], roles: list[str], partners: dict[str, str]
) -> None:
    batch = random_batch(roles)
    assert batch.roles == tuple(roles)
    assert {role: batch.partner(role) for role in batch.roles} == partners


def test_a_supervised_batch_has_no_roles(random_batch: Callable[..., TrainBatch]) -> None:
    assert random_batch().roles == ()
