from collections.abc import Callable

import pytest
import torch

from stages.train.data.batch import SECOND_DRAW, TrainBatch


@pytest.mark.parametrize(
    ("roles", "partners"),
    [
        (["unlabeled"], {"unlabeled": SECOND_DRAW}),
        (["ood"], {"ood": SECOND_DRAW}),
        (["unlabeled", "ood"], {"unlabeled": SECOND_DRAW, "ood": "unlabeled"}),
    ],
)
def test_the_first_role_is_mixed_with_itself_and_the_others_with_the_first(
    random_batch: Callable[..., TrainBatch], roles: list[str], partners: dict[str, str]
) -> None:
    batch = random_batch(roles)
    assert batch.roles == tuple(roles)
    assert {role: batch.paste_source(role) for role in batch.roles} == partners


def test_every_view_of_every_image_has_colours_of_its_own(
    random_batch: Callable[..., TrainBatch],
) -> None:
    """Of one image everywhere; some views change no colour."""
    batch = random_batch(["unlabeled", "ood"])
    image = batch.labeled.pixels[0]
    for crops in batch.crops.values():
        crops.pixels.copy_(image)
    weak = batch.crops[SECOND_DRAW].weak[0]
    views = [view for key in batch.crops for n in range(2) for view in batch.strong(key, n)]
    changed = [view for view in views if not torch.allclose(view, weak, atol=1e-5)]
    assert len({tuple(view.flatten().tolist()) for view in changed}) == len(changed) > 16


def test_a_supervised_batch_has_no_roles(random_batch: Callable[..., TrainBatch]) -> None:
    assert random_batch().roles == ()
