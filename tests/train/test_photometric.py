import colorsys
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torch.overrides import TorchFunctionMode
from torchvision.transforms import functional as reference

from stages.models.segmenters.normalization import normalize
from stages.train.data.colors import (
    _recolored,
    blur,
    jitter_color,
    lightness,
    random_colors,
    turn_hue,
)
from stages.train.data.random_numbers import StepRandom


class RefusingIndexes(TorchFunctionMode):
    """Indexing as on a GPU: indexes are on the CPU or on the device of what they index."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.__getitem__ and isinstance(args[1], Tensor):
            assert args[1].device.type in ("cpu", args[0].device.type)
        return func(*args, **(kwargs or {}))


def seeded(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def views_of(images: Tensor, seed: int = 0) -> Tensor:
    return random_colors(images, StepRandom(seed, 0, range(len(images)), len(images)), "colours")


def noise(count: int, size_px: int = 16) -> Tensor:
    return torch.rand(count, 3, size_px, size_px, generator=seeded(0))


def factors(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)


def test_jitter_is_torchvisions_with_its_own_factors_for_each_image() -> None:
    images = noise(3)
    brightness, contrast, saturation, hue = (
        factors(0.5, 1.0, 1.5),
        factors(1.4, 0.6, 0.9),
        factors(0.5, 1.5, 1.1),
        factors(-0.25, 0.1, 0.25),
    )
    views = jitter_color(images, brightness, contrast, saturation, hue)
    for n, image in enumerate(images):
        expected = reference.adjust_brightness(image, brightness[n].item())
        expected = reference.adjust_contrast(expected, contrast[n].item())
        expected = reference.adjust_saturation(expected, saturation[n].item())
        expected = reference.adjust_hue(expected, hue[n].item())
        torch.testing.assert_close(views[n], expected, atol=2e-3, rtol=0)


def test_neutral_factors_change_nothing() -> None:
    images = noise(2)
    one, zero = factors(1, 1), factors(0, 0)
    torch.testing.assert_close(jitter_color(images, one, one, one, zero), images)


def test_turning_the_hue_by_a_third_moves_the_channels_and_leaves_grey_alone() -> None:
    images = noise(1)
    turned = turn_hue(images, factors(1 / 3))
    torch.testing.assert_close(turned, images.roll(1, dims=1), atol=1e-5, rtol=0)
    grey = torch.tensor([0.0, 0.4, 1.0]).view(3, 1, 1, 1).expand(3, 3, 2, 2)
    assert torch.equal(turn_hue(grey, factors(0.1, 0.2, 0.3)), grey)


def test_blur_is_a_gaussian_of_each_images_own_width() -> None:
    images, sigma = noise(2, 32), factors(0.7, 2.0)
    views = blur(images, sigma)
    for n, image in enumerate(images):
        expected = reference.gaussian_blur(image, [13, 13], [sigma[n].item()] * 2)
        inside = slice(6, -6)  # at the border torchvision mirrors
        torch.testing.assert_close(views[n, :, inside, inside], expected[:, inside, inside])


def test_blur_of_hardly_any_width_and_of_flat_images_changes_nothing() -> None:
    torch.testing.assert_close(blur(noise(1), factors(0.1)), noise(1))
    flat = torch.full((1, 3, 5, 4), 0.3)
    torch.testing.assert_close(blur(flat, factors(2.0)), flat)


def test_strong_views_of_one_image_all_differ_and_stay_in_range() -> None:
    images = noise(1).expand(24, 3, 16, 16)
    views = views_of(images)
    assert torch.equal(images, noise(1).expand(24, 3, 16, 16))
    assert views.shape == images.shape
    assert views.min() >= 0
    assert views.max() <= 1
    changed = [view for view in views if not torch.equal(view, images[0])]
    assert len({tuple(view.flatten().tolist()) for view in changed}) == len(changed) > 16


def test_each_change_happens_as_often_as_published() -> None:
    image = torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1).expand(1, 3, 16, 16).clone()
    image[..., 8:] = 0.1
    views = views_of(image.expand(3000, 3, 16, 16))
    grey = (views[:, 0] == views[:, 2]).flatten(1).all(dim=1)
    assert grey.float().mean().item() == pytest.approx(0.2, abs=0.03)
    left = views[:, :, 0, 0]  # seven pixels from the edge, so that no blur gets there
    jittered = ((left - image[0, :, 0, 0]).abs() > 1e-6).any(dim=1)
    assert jittered[~grey].float().mean().item() == pytest.approx(0.8, abs=0.03)
    edge = views[:, :, 0, 7] - views[:, :, 0, 0]
    blurred = (edge.abs() > 1e-4).any(dim=1)
    assert blurred.float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_hue_and_brightness_change_as_far_as_published() -> None:
    """Of colours so pale that nothing is clipped; contrast of one pixel leaves its hue alone."""
    pale = torch.tensor([0.45, 0.5, 0.55]).view(1, 3, 1, 1).expand(2000, 3, 1, 1)
    colors = [tuple(view) for view in views_of(pale).flatten(1).tolist()]
    hues = [colorsys.rgb_to_hsv(*color)[0] for color in colors if max(color) - min(color) > 1e-6]
    turns = torch.tensor([(hue - 7 / 12 + 0.5) % 1 - 0.5 for hue in hues])
    turns = turns[turns.abs() > 1e-5]
    grey = views_of(torch.full((2000, 3, 1, 1), 0.5))[:, 0]
    for found, (least, most) in ((turns, (-0.25, 0.25)), (grey, (0.25, 0.75))):
        assert found.min().item() == pytest.approx(least, abs=5e-3)
        assert found.max().item() == pytest.approx(most, abs=5e-3)


def test_a_view_depends_on_the_draws_and_not_on_the_images_next_to_it() -> None:
    images = noise(6)
    torch.manual_seed(1)
    views = views_of(images, 3)
    part = random_colors(images[2:4], StepRandom(3, 0, range(2, 4), 6), "colours")
    torch.testing.assert_close(part, views[2:4])
    assert not torch.equal(views_of(images, 4), views)


def test_one_pixel_is_enough() -> None:
    views = views_of(torch.rand(16, 3, 1, 1))
    assert views.isfinite().all()


def test_normalize_makes_the_mean_of_imagenet_zero() -> None:
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    brighter = mean + torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    torch.testing.assert_close(normalize(mean), torch.zeros(1, 3, 1, 1))
    torch.testing.assert_close(normalize(brighter), torch.ones(1, 3, 1, 1))


def test_lightness_weighs_green_most() -> None:
    red, green, blue = lightness(torch.eye(3).view(3, 3, 1, 1)).flatten().tolist()
    assert green > red > blue
    assert red + green + blue == pytest.approx(1)


def test_nothing_but_the_pixels_moves_to_their_device() -> None:
    """Indexes that lie on a GPU do not fit a tensor on the CPU; `meta` stands for a GPU."""
    numbers = torch.rand(6, 8, generator=seeded(0))
    with RefusingIndexes():
        views = _recolored(noise(6).to("meta"), numbers)
    assert (views.device.type, views.shape) == ("meta", (6, 3, 16, 16))
