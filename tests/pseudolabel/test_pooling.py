import pytest
import torch
from torch import Tensor

from stages.pseudolabel.pixels.pooling import mask_means, paint, soft

DENSE = torch.tensor([[[0.9, 0.5, 0.4, 0.2]], [[0.1, 0.5, 0.6, 0.8]]])  # (2, 1, 4)


def masks(*rows: str) -> Tensor:
    """Masks of one row of pixels: ``masks("##..", ".#..")``."""
    return torch.tensor([[[pixel == "#" for pixel in row]] for row in rows])


def pooled_softly(given: Tensor, weights: list[float], share: float) -> Tensor:
    return soft(DENSE, given, mask_means(DENSE, given), torch.tensor(weights), share)


def test_a_mask_holds_the_mean_of_its_pixels() -> None:
    means = mask_means(DENSE, masks("##..", "..#.", "....", "####"))
    expected = [[0.7, 0.3], [0.4, 0.6], [0, 0], [0.5, 0.5]]
    torch.testing.assert_close(means, torch.tensor(expected))


def test_what_is_constant_in_a_mask_is_its_mean() -> None:
    dense = torch.tensor([0.25, 0.75])[:, None, None].expand(2, 5, 7)
    found = mask_means(dense, torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0)) > 0.5)
    torch.testing.assert_close(found, dense[:, 0, 0].expand(3, 2))


def test_smaller_masks_are_painted_over_larger_ones() -> None:
    """An empty mask paints nothing; an uncovered pixel keeps its dense probabilities."""
    expected = torch.tensor([[[0.6, 0.45, 0.45, 0.2]], [[0.4, 0.55, 0.55, 0.8]]])
    for order in (["###.", ".##.", "...."], ["....", ".##.", "###."]):
        given = masks(*order)
        torch.testing.assert_close(paint(DENSE, given, mask_means(DENSE, given)), expected)


def test_soft_mixes_by_weight_and_share() -> None:
    found = pooled_softly(masks("##..", ".##."), [1.0, 3.0], share=0.5)
    # The masks' means of the first channel are 0.7 and 0.45; over pixel 1 they weigh 1 to 3.
    pooled = [0.7, (0.7 + 3 * 0.45) / 4, 0.45]
    first = [0.5 * 0.9 + 0.5 * pooled[0], 0.5 * 0.5 + 0.5 * pooled[1], 0.5 * 0.4 + 0.5 * pooled[2]]
    expected = torch.tensor([*first, 0.2])
    torch.testing.assert_close(found[0, 0], expected)
    torch.testing.assert_close(found[1, 0], 1 - expected)


def test_the_shares_ends_are_dense_and_pooled() -> None:
    all_of_it = masks("####")
    torch.testing.assert_close(pooled_softly(all_of_it, [1.0], share=0.0), DENSE)
    pooled = pooled_softly(all_of_it, [1.0], share=1.0)
    torch.testing.assert_close(pooled, torch.full((2, 1, 4), 0.5))


@pytest.mark.parametrize("weight", [0.0, 1e-30])
def test_masks_of_no_weight_change_nothing_and_faint_ones_count_in_full(weight: float) -> None:
    found = pooled_softly(masks("##.."), [weight], share=1.0)
    expected = DENSE.clone()
    if weight:
        expected[:, 0, :2] = torch.tensor([[0.7], [0.3]])
    torch.testing.assert_close(found, expected)


def test_an_empty_mask_is_skipped() -> None:
    """Whatever its weight."""
    found = pooled_softly(masks("##..", "...."), [1.0, 100.0], share=0.5)
    torch.testing.assert_close(found, pooled_softly(masks("##.."), [1.0], share=0.5))


def test_no_masks_leave_all_as_it_was() -> None:
    none = torch.zeros(0, 1, 4, dtype=torch.bool)
    assert torch.equal(pooled_softly(none, [], share=0.5), DENSE)
    assert torch.equal(paint(DENSE, none, mask_means(DENSE, none)), DENSE)


def test_hundreds_of_masks_are_pooled_as_a_few() -> None:
    generator = torch.Generator().manual_seed(0)
    dense = torch.rand(3, 9, 8, generator=generator).softmax(0)
    many = torch.rand(150, 9, 8, generator=generator) > 0.7
    weights = torch.rand(150, generator=generator)
    means = torch.stack([dense[:, mask].mean(1) for mask in many])
    torch.testing.assert_close(mask_means(dense, many), means)
    total = (many * weights[:, None, None]).sum(0)
    mixed = torch.einsum("pc,phw,p->chw", means, many.float(), weights) / total
    torch.testing.assert_close(soft(dense, many, means, weights, 0.3), 0.7 * dense + 0.3 * mixed)
