import pytest
import torch
from torch import Tensor

from stages.labels.pseudo_labels import PseudoLabels
from stages.train.data.random_numbers import StepRandom
from stages.train.step.pasting import cutmix_boxes, half_of_the_classes, paste
from stages.train.step.strong_views import View


def boxes(count: int, size_px: int, seed: int = 0) -> Tensor:
    return cutmix_boxes(size_px, StepRandom(seed, 0, range(count), count), "boxes")


def test_half_of_the_boxes_are_empty() -> None:
    drawn = boxes(2000, 16)
    assert drawn.flatten(1).any(dim=1).float().mean().item() == pytest.approx(0.5, abs=0.04)


def test_boxes_are_rectangles_of_the_published_areas_and_aspects() -> None:
    size_px = 64
    areas = []
    for box in boxes(600, size_px):
        height, width = int(box.any(dim=1).sum()), int(box.any(dim=0).sum())
        assert int(box.sum()) == height * width
        if height:
            # Both sides were rounded down, by less than one pixel each.
            assert height * width <= 0.4 * size_px**2
            assert (height + 1) * (width + 1) >= 0.02 * size_px**2
            assert (height + 1) / width > 0.3
            assert (width + 1) / height > 0.3
            areas.append(height * width / size_px**2)
    assert min(areas) < 0.05
    assert max(areas) > 0.35


def test_boxes_reach_every_corner_of_the_image() -> None:
    covered = boxes(3000, 32).any(dim=0)
    assert covered.all()


def test_boxes_come_from_the_draws_alone() -> None:
    torch.manual_seed(1)
    first = boxes(8, 32, seed=3)
    torch.manual_seed(2)
    assert torch.equal(first, boxes(8, 32, seed=3))
    assert not torch.equal(first, boxes(8, 32, seed=4))


@pytest.mark.parametrize("size_px", [1, 2, 3])
def test_tiny_images_get_boxes_too(size_px: int) -> None:
    drawn = boxes(500, size_px)
    assert drawn.shape == (500, size_px, size_px)
    assert drawn.dtype == torch.bool


def test_paste_takes_the_inside_of_the_box_from_the_partner() -> None:
    box = torch.zeros(2, 4, 4, dtype=torch.bool)
    box[0, 1:3, 2:] = True
    mixed = paste(torch.full((2, 3, 4, 4), 1.0), torch.full((2, 3, 4, 4), 2.0), box)
    assert torch.equal(mixed, (1.0 + box).unsqueeze(1).expand(2, 3, 4, 4))


def test_paste_leaves_its_inputs_alone_so_that_order_can_be_chosen() -> None:
    # SemiOVS pastes plain ID pixels into web images first, and mixes the ID images afterwards.
    web, own, partner = (torch.full((1, 3, 4, 4), value) for value in (3.0, 1.0, 2.0))
    box = boxes(40, 4).any(dim=0, keepdim=True)
    box[:, 0] = False
    mixed_web = paste(web, own, box)
    mixed_own = paste(own, partner, box)
    assert set(mixed_web.flatten().tolist()) == {1.0, 3.0}
    assert set(mixed_own.flatten().tolist()) == {1.0, 2.0}
    assert (own == 1).all()


def mixture(seed: int) -> View:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 4, 4)
    valid = torch.rand(shape, generator=generator) < 0.5
    mask = torch.randint(0, 5, shape, generator=generator)
    labels = PseudoLabels(mask, torch.rand(shape, generator=generator))
    return View(torch.rand(2, 3, 4, 4, generator=generator), valid, {"student": labels})


def parts(view: View) -> list[Tensor]:
    """All that belongs to pixels: image, validity, class, confidence."""
    labels = view.labels["student"]
    return [view.images.movedim(1, -1), view.valid, labels.mask, labels.confidence]


def test_pasted_pixels_bring_their_label_confidence_and_validity() -> None:
    own, partner = mixture(1), mixture(2)
    box = torch.zeros(2, 4, 4, dtype=torch.bool)
    box[0, 1:3, 2:] = True
    mixed = parts(own.pasted(partner, box))
    for found, mine, theirs in zip(mixed, parts(own), parts(partner), strict=True):
        assert torch.equal(found[box], theirs[box])
        assert torch.equal(found[~box], mine[~box])
    everywhere = parts(own.pasted(partner, torch.ones_like(box)))
    assert all(map(torch.equal, everywhere, parts(partner)))


def test_half_of_the_classes_of_each_image_are_chosen_whole_and_never_void() -> None:
    masks = torch.tensor([[0, 1, 2, 3, 4, 255], [7, 7, 7, 7, 255, 255], [1, 1, 2, 2, 2, 255]])
    chosen = half_of_the_classes(masks[:, None], StepRandom(0, 0, range(3), 3), "classes")[:, 0]
    assert [len(set(masks[i][chosen[i]].tolist())) for i in range(3)] == [2, 0, 1]
    for mask, own in zip(masks, chosen, strict=True):
        assert torch.equal(own, torch.isin(mask, mask[own].unique()))
        assert not own[mask == 255].any()


def test_every_class_is_chosen_at_times() -> None:
    masks = torch.arange(4).repeat(200, 1)[:, None]
    chosen = half_of_the_classes(masks, StepRandom(0, 0, range(200), 200), "classes")[:, 0]
    assert (chosen.sum(dim=1) == 2).all()
    assert (chosen.float().mean(dim=0) - 0.5).abs().max() < 0.12
