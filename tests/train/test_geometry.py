import pytest
import torch
from torch import Generator, Tensor

from stages.train.data.geometry import CropView, LabelMaps, random_view


def seeded(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def ramp(height: int, width: int) -> Tensor:
    """Values that grow by 1 a column, whatever the number of rows."""
    return torch.arange(width, dtype=torch.uint8).expand(height, width)


def labels_of(view: CropView) -> tuple[Tensor, Tensor]:
    """Mask and confidence of a view's only labels."""
    (maps,) = view.labels.values()
    assert maps.confidence is not None
    return maps.mask, maps.confidence


@pytest.mark.parametrize("seed", range(6))
def test_padding_is_at_the_right_and_bottom_and_nowhere_else(seed: int) -> None:
    image = torch.full((3, 100, 50), 200, dtype=torch.uint8)
    mask = torch.full((100, 50), 3, dtype=torch.uint8)
    mask[:50] = 255  # void: unlabeled, but no padding
    confidence = torch.full((25, 13), 90, dtype=torch.uint8)
    view = random_view(
        image, 64, seeded(seed), labels={"clip": LabelMaps(mask, confidence)}, scale=(0.5, 0.5)
    )
    found, sure = labels_of(view)
    columns = slice(39, None) if view.valid[0, -1] else slice(None, 25)
    expected = torch.zeros(64, 64, dtype=torch.bool)
    expected[:50, columns] = True
    assert torch.equal(view.valid, expected)
    assert torch.equal(view.image, 200 * expected.expand(3, 64, 64).to(torch.uint8))
    assert torch.equal(sure, 90 * expected.to(torch.uint8))
    assert (found[~expected] == 255).all()
    assert (found[:25, columns] == 255).all()
    assert (found[25:50, columns] == 3).all()


@pytest.mark.parametrize("seed", range(8))
def test_without_scaling_a_view_is_a_piece_of_the_image_and_its_mask(seed: int) -> None:
    pixels = torch.randint(0, 255, (20, 30), dtype=torch.uint8, generator=seeded(seed))
    view = random_view(
        pixels.expand(3, 20, 30),
        12,
        seeded(seed),
        labels={"clip": LabelMaps(pixels, pixels)},
        scale=(1, 1),
    )
    mask, confidence = labels_of(view)
    assert view.valid.all()
    assert torch.equal(view.image, mask.expand(3, 12, 12))
    assert torch.equal(confidence, mask)
    pieces = torch.cat([p.unfold(0, 12, 1).unfold(1, 12, 1) for p in (pixels, pixels.flip(1))])
    assert (pieces == mask).all(dim=(2, 3)).any()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("finer", [1, 2, 4])
def test_image_mask_and_confidence_stay_aligned_at_any_scale_and_resolution(
    seed: int, finer: int
) -> None:
    width, height = 240 // finer, 120 // finer
    image = ramp(height, width) * finer + (finer - 1) // 2
    view = random_view(
        image.expand(3, height, width),
        48,
        seeded(seed),
        labels={"clip": LabelMaps(ramp(120, 240), ramp(30, 60) * 4 + 2)},
    )
    mask, confidence = labels_of(view)
    truth = view.image[0][view.valid].float()
    # Up to an image pixel or mask cell and half of what a new pixel covers.
    assert (mask[view.valid] - truth).abs().max() <= finer + 2
    assert (confidence[view.valid] - truth).abs().max() <= finer + 4


def test_the_long_side_takes_every_length_of_its_range() -> None:
    image = ramp(2, 6).expand(3, 2, 6)
    sizes = set()
    for seed in range(200):
        valid = random_view(image, 16, seeded(seed)).valid
        sizes.add((int(valid.any(dim=1).sum()), int(valid.any(dim=0).sum())))
    assert sizes == {(int(2 * long / 6 + 0.5), long) for long in range(3, 13)}


def test_crops_reach_every_place_and_half_of_the_views_are_mirrored() -> None:
    pixels = torch.arange(15, dtype=torch.uint8).view(3, 5)
    corners = [
        random_view(pixels.expand(3, 3, 5), 2, seeded(seed), scale=(1, 1)).image[0]
        for seed in range(400)
    ]
    mirrored = [bool(corner[0, 0] > corner[0, 1]) for corner in corners]
    starts = {int(corner.min()) for corner in corners}
    assert starts == {0, 1, 2, 3, 5, 6, 7, 8}
    assert sum(mirrored) / len(mirrored) == pytest.approx(0.5, abs=0.1)


def test_an_image_without_labels_gives_a_view_without_labels() -> None:
    view = random_view(ramp(8, 8).expand(3, 8, 8), 8, seeded(0))
    assert not view.labels
    assert (view.image.dtype, view.valid.dtype) == (torch.uint8, torch.bool)


def test_a_view_comes_from_its_generator_alone() -> None:
    image = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8)
    first = random_view(image, 32, seeded(7))
    torch.manual_seed(1)
    assert torch.equal(first.image, random_view(image, 32, seeded(7)).image)
    assert not torch.equal(first.image, random_view(image, 32, seeded(8)).image)


@pytest.mark.parametrize("factor", [0.01, 0.5, 100])
@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (64, 100), (1, 900), (900, 1), (1200, 1600)])
def test_every_scale_that_a_config_may_have_works(shape: tuple[int, int], factor: float) -> None:
    image = torch.full((3, *shape), 9, dtype=torch.uint8)
    mask = torch.ones(shape, dtype=torch.uint8)
    view = random_view(
        image, 16, seeded(0), labels={"mine": LabelMaps(mask)}, scale=(factor, factor)
    )
    assert view.valid.any()
    assert torch.equal(view.labels["mine"].mask == 1, view.valid)
    assert torch.equal(view.image[0] == 9, view.valid)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 300)])
@pytest.mark.parametrize("size_px", [1, 16])
def test_thin_images_work(shape: tuple[int, int], size_px: int) -> None:
    mask = torch.ones(shape, dtype=torch.uint8)
    for seed in range(20):
        view = random_view(
            torch.full((3, *shape), 9, dtype=torch.uint8),
            size_px,
            seeded(seed),
            labels={"mine": LabelMaps(mask)},
        )
        assert view.valid.any()
        assert torch.equal(view.labels["mine"].mask == 1, view.valid)
        assert torch.equal(view.image[0] == 9, view.valid)


def test_all_labels_of_a_crop_move_as_one() -> None:
    """Two labelers at other resolutions, next to each other or alone: the same crop."""
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8, generator=seeded(1))
    maps = {"coarse": LabelMaps(ramp(20, 30), ramp(5, 8)), "fine": LabelMaps(ramp(40, 60))}
    both = random_view(image, 24, seeded(3), labels=maps)
    for name, own in maps.items():
        single = random_view(image, 24, seeded(3), labels={name: own})
        assert torch.equal(both.image, single.image)
        assert torch.equal(both.labels[name].mask, single.labels[name].mask)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (100, 900), (40, 40)])
@pytest.mark.parametrize("seed", range(4))
def test_the_short_side_is_scaled_as_mmsegmentation_does(
    height: int, width: int, seed: int
) -> None:
    view = random_view(
        torch.full((3, height, width), 9, dtype=torch.uint8),
        5000,
        seeded(seed),
        scale=(0.5, 2.0),
        short_side_px=512,
        mirror=False,
    )
    ratio = 0.5 + 1.5 * torch.rand((), generator=seeded(seed)).item()
    img_scale = (int(2048 * ratio), int(512 * ratio))
    factor = min(img_scale[0] / max(height, width), img_scale[1] / min(height, width))
    expected = (int(height * factor + 0.5), int(width * factor + 0.5))
    assert (int(view.valid[:, 0].sum()), int(view.valid[0].sum())) == expected


def test_views_are_mirrored_half_of_the_time_or_never() -> None:
    def mirrored(seed: int, mirror: bool) -> bool:
        view = random_view(ramp(8, 8).expand(3, 8, 8), 8, seeded(seed), scale=(1, 1), mirror=mirror)
        return bool(view.image[0, 0, 0] > view.image[0, 0, -1])

    assert 20 < sum(mirrored(seed, True) for seed in range(80)) < 60
    assert not any(mirrored(seed, False) for seed in range(80))


def test_a_label_is_that_of_the_cell_under_the_centre_of_its_pixel() -> None:
    """Of 4 cells a pixel the third: its left edge is the centre. Of 1 it is the only one."""
    cells = ramp(16, 16)
    for scale, expected in ((0.25, [2, 6, 10, 14]), (0.5, [1, 3, 5, 7, 9, 11, 13, 15])):
        view = random_view(
            cells.expand(3, 16, 16),
            len(expected),
            seeded(0),
            labels={"clip": LabelMaps(cells, cells)},
            scale=(scale, scale),
        )
        assert sorted(labels_of(view)[0][0].tolist()) == expected


def test_an_image_of_one_pixel_is_the_mean_of_all_and_not_of_its_middle() -> None:
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    image[:, 3:5, 3:5] = 255
    view = random_view(image, 4, seeded(0), scale=(0.125, 0.125))
    assert int(view.valid.sum()) == 1
    assert 0 < int(view.image.max()) < 64
