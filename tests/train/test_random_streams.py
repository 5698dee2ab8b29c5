"""Every purpose, seed, image, step and micro-batch has random numbers of its own."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as reference

from pipeline.config.vocabulary import Vocabulary
from stages.train.config import VariantConfig
from stages.train.data import colors
from stages.train.data.batch import SECOND_DRAW
from stages.train.data.crops import Crops, TrainImage
from stages.train.data.random_numbers import StepRandom, generator
from tests.train.crop_batches import batches
from tests.train.interruptions import BuildLoop, Draw
from tests.train.test_loop import Dice


def texts(rows: Tensor) -> list[str]:
    """A text for each row, equal for equal rows only."""
    return [str(row.tolist()) for row in rows]


def test_a_generator_is_of_seed_purpose_and_position() -> None:
    places = list(product(range(3), ("boxes 0", "boxes 1", "colours of ood 0"), range(4)))
    numbers = [torch.rand(2, generator=generator(*place)) for place in places]
    assert len({*texts(torch.stack(numbers))}) == len(places)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_images_of_neighbouring_steps_share_no_numbers(batch_size: int) -> None:
    found = []
    for step in range(6):
        random = StepRandom(0, step, range(batch_size), batch_size)
        found += texts(random.of_images("boxes", lambda own: torch.rand(2, generator=own)))
    assert len({*found}) == 6 * batch_size


def test_what_a_step_shares_it_shares_with_no_other_step() -> None:
    steps = [StepRandom(0, step, range(4), 4).of_step("members") for step in range(8)]
    assert len({torch.rand((), generator=own).item() for own in steps}) == 8


def test_micro_batches_of_neighbouring_steps_share_no_numbers(
    build_loop: BuildLoop, draw: Draw
) -> None:
    dice = Dice()
    build_loop(accumulate=2, supervised_loss=dice).loop.run(draw)
    assert len(dice.thrown) == len({*dice.thrown}) == 2 * 4


@pytest.fixture
def one_image(
    tmp_path: Path, vocabulary: Vocabulary, variant: Callable[..., VariantConfig]
) -> Callable[[int], Crops]:
    """Crops for a seed, all of one image of noise; so only the geometry can differ."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(tmp_path / "mask.png")
    image = TrainImage(str(tmp_path / "image.png"), mask_uri=str(tmp_path / "mask.png"))
    config = variant(batch_size=2, crop_px=24, scale=[1.0, 2.0])
    others = {"unlabeled": [image], "ood": [image]}
    return lambda seed: Crops([image], others, config, vocabulary, seed)


def test_each_crop_of_an_image_is_another_one(one_image: Callable[[int], Crops]) -> None:
    """Of any seed, step, row and key."""
    found = []
    for seed in (0, 1, 2):
        for batch in batches(one_image(seed), range(3)):
            assert batch.crops.keys() == {"unlabeled", "ood", SECOND_DRAW}
            others = (part.pixels for part in batch.crops.values())
            for pixels in (batch.labeled.pixels, *others):
                found += texts(pixels.flatten(1))
    assert len(found) == 3 * 3 * 4 * 2 == len({*found})


NEUTRAL = [0.0, 0.5, 0.5, 0.5, 0.5, 0.9, 0.9, 0.5]
"""Numbers that jitter by nothing, and neither drop colours nor blur."""


@pytest.mark.parametrize(
    ("place", "value", "change"),
    [
        (1, 0.1, lambda image: reference.adjust_brightness(image, 0.6)),
        (2, 0.1, lambda image: reference.adjust_contrast(image, 0.6)),
        (3, 0.1, lambda image: reference.adjust_saturation(image, 0.6)),
        (4, 0.9, lambda image: reference.adjust_hue(image, 0.2)),
        (5, 0.1, lambda image: reference.rgb_to_grayscale(image, 3)),
    ],
)
def test_each_number_of_an_image_changes_one_property_of_its_colours(
    place: int, value: float, change: Callable[[Tensor], Tensor]
) -> None:
    image = 0.25 + torch.rand(3, 12, 12, generator=generator(0, "image", 0)) / 2
    numbers = torch.tensor([NEUTRAL])
    torch.testing.assert_close(colors._recolored(image[None], numbers)[0], image)
    numbers[0, place] = value
    found = colors._recolored(image[None], numbers)[0]
    torch.testing.assert_close(found, change(image), atol=2e-3, rtol=0)
    assert (found - image).abs().max() > 0.02


def test_the_blur_is_as_wide_as_its_own_number_says() -> None:
    image = torch.rand(1, 3, 24, 24, generator=generator(0, "image", 0))
    numbers = torch.tensor([NEUTRAL])
    numbers[0, 6], numbers[0, 7] = 0.1, 0.75
    expected = colors.blur(image, torch.full((1, 1, 1, 1), 0.1 + 1.9 * 0.75))
    torch.testing.assert_close(colors._recolored(image, numbers), expected)
