"""The parts of the mask generator, one by one, against segment_anything's own functions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from segment_anything.modeling import Sam
from segment_anything.utils import amg
from torch.testing import assert_close

from stages.models.embedded import sam_network
from stages.models.embedded.models import SAM
from stages.propose.generator.candidates import PointMasks, Thresholds, boxes_of, select
from stages.propose.generator.crops import Crop, crops
from stages.propose.generator.mask_decoder import SharedMaskDecoder
from stages.propose.generator.resampling import MaskResampler
from stages.propose.generator.run_lengths import area, compress, decode, run_lengths
from stages.propose.generator.searches import FastSearch
from stages.propose.generator.small_regions import remove_small_regions


def plan(layers: int, **options: Any) -> list[Crop]:
    keys = {"points_per_side": 32, "overlap_ratio": 512 / 1500, "points_downscale_factor": 1}
    return list(crops((480, 640), encoder_px=1024, layers=layers, **{**keys, **options}))


def test_crops_of_a_layer() -> None:
    assert [crop.box for crop in plan(1)] == [
        (0, 0, 640, 480),
        (0, 0, 402, 322),
        (0, 159, 402, 480),
        (239, 0, 640, 322),
        (239, 159, 640, 480),
    ]
    assert len(plan(2)) == 21


def test_points_of_crops() -> None:
    [image, crop, *_] = plan(1, points_downscale_factor=3)
    assert 3 * len(image.points()) == 3072
    assert_close(image.points()[:2], np.array([[16.0, 12.0], [48.0, 12.0]]))
    assert len(crop.points()) == 10**2
    assert crop.input_px == (820, 1024)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_each_layer_of_crops_has_its_own_number_of_points(factor: int) -> None:
    """As segment_anything's `build_all_layer_point_grids`."""
    sides = [32, 32 // factor, 32 // factor**2]
    expected = amg.build_all_layer_point_grids(32, 2, factor)
    assert [len(grid) for grid in expected] == [side**2 for side in sides]
    found = [len(crop.points()) for crop in plan(2, points_downscale_factor=factor)]
    assert found == [sides[0] ** 2] + 4 * [sides[1] ** 2] + 16 * [sides[2] ** 2]


def test_stability_of_four_pixels() -> None:
    logits = torch.tensor([[[2, 0.5], [-0.5, -2]]])
    assert_close(amg.calculate_stability_score(logits, 0, 1), torch.tensor([1 / 3]))


def test_boxes() -> None:
    masks = torch.zeros(3, 5, 7, dtype=torch.bool)
    masks[0, 3, 2] = True
    masks[1, 1:4, 0], masks[1, 2, 6] = True, True
    assert boxes_of(masks).tolist() == [[2, 3, 2, 3], [0, 1, 6, 3], [0, 0, 0, 0]]
    assert boxes_of(masks[:0]).shape == (0, 4)


def test_run_lengths() -> None:
    masks = torch.tensor([[[0, 1], [1, 1]], [[1, 1], [1, 1]], [[1, 0], [0, 0]], [[0, 0], [0, 0]]])
    found = run_lengths(masks.bool())
    assert [counts.tolist() for counts in found] == [[1, 3], [0, 4], [0, 1, 3], [4]]
    assert [area(counts) for counts in found] == [3, 4, 1, 0]
    assert run_lengths(torch.zeros(0, 2, 2, dtype=torch.bool)) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (13, 6)])
def test_run_lengths_are_what_pycocotools_writes(size: tuple[int, int]) -> None:
    masks = np.random.default_rng(0).random((20, *size)) < 0.5
    expected = coco.encode(np.asfortranarray(np.moveaxis(masks, 0, -1).astype(np.uint8)))
    for mask, counts, encoded in zip(
        masks, run_lengths(torch.from_numpy(masks)), expected, strict=True
    ):
        assert compress(counts, *size) == encoded["counts"].decode()
        np.testing.assert_array_equal(decode(counts, *size), mask)


@pytest.mark.parametrize("size", [(24, 32), (32, 32), (7, 3), (1, 90), (200, 150), (64, 31)])
def test_masks_are_scaled_as_sam_does(build_sam: Callable[[], Sam], size: tuple[int, int]) -> None:
    sam = build_sam()
    logits = torch.randn(3, 16, 16)
    [crop] = crops(
        size,
        encoder_px=32,
        points_per_side=1,
        layers=0,
        overlap_ratio=0,
        points_downscale_factor=1,
    )
    if min(crop.input_px) == 0:
        pytest.skip("not a row of it would reach the network")
    expected = sam.postprocess_masks(logits[None], crop.input_px, size)[0]
    resample = MaskResampler((16, 16), 32, crop.input_px, size, logits.device)
    assert_close(resample(logits), expected)


@pytest.mark.parametrize("kind", ["one layer", "two layers"])
def test_the_decoder_is_sams(build_sam: Callable[[], Sam], kind: str) -> None:
    sam: Any = build_sam() if kind == "one layer" else sam_network.build(SAM.folder)
    prompts, side = sam.prompt_encoder, sam.image_encoder.img_size
    with torch.inference_mode():
        embeddings = torch.randn(3, prompts.embed_dim, *prompts.image_embedding_size)
        points = torch.rand(6, 2, dtype=torch.float64) * side
        decoder, counts = SharedMaskDecoder(sam), [3, 1, 2]
        decoded = decoder.decode(points, decoder.project_images(embeddings), counts)
        wanted = torch.ones(6, 3, dtype=torch.bool)
        wanted[1], wanted[4, 1] = False, False
        logits = decoder.mask_logits(decoded, wanted)
        masks, ious = [], []
        for embedding, own in zip(embeddings, torch.split(points, counts), strict=True):
            sparse, dense = prompts((own[:, None], torch.ones(len(own), 1)), None, None)
            position = prompts.get_dense_pe()
            mask, iou = sam.mask_decoder(embedding[None], position, sparse, dense, True)
            masks.append(mask)
            ious.append(iou)
    assert_close(decoded.ious, torch.cat(ious), atol=1e-5, rtol=1e-5)
    assert_close(logits, torch.cat(masks)[wanted], atol=1e-4, rtol=1e-4)


def test_holes_are_filled_then_islands_removed() -> None:
    mask = np.zeros((12, 12), dtype=bool)
    mask[1:7, 1:7], mask[3, 3], mask[9, 9] = True, False, True
    expected = np.zeros_like(mask)
    expected[1:7, 1:7] = True
    cleaned, changed = remove_small_regions(mask, 3)
    assert changed
    np.testing.assert_array_equal(cleaned, expected)
    same, changed = remove_small_regions(expected, 3)
    assert not changed
    np.testing.assert_array_equal(same, expected)


@pytest.mark.parametrize(("min_area", "stays"), [(3, True), (4, True), (5, False)])
def test_a_region_of_just_the_area_stays(min_area: int, stays: bool) -> None:
    hole, island = np.ones((12, 12), dtype=bool), np.zeros((12, 12), dtype=bool)
    hole[4:6, 4:6], island[2:4, 2:4], island[6:11, 6:11] = False, True, True
    cleaned, changed = remove_small_regions(hole, min_area)
    assert (bool(cleaned[4, 4]), changed) == (not stays, not stays)
    cleaned, changed = remove_small_regions(island, min_area)
    assert (bool(cleaned[2, 2]), changed) == (stays, not stays)


def test_of_small_islands_the_largest_stays() -> None:
    mask = np.zeros((9, 9), dtype=bool)
    mask[0, 0], mask[5, 5:7] = True, True
    cleaned, changed = remove_small_regions(mask, 5)
    assert changed
    assert np.argwhere(cleaned).tolist() == [[5, 5], [5, 6]]


@pytest.mark.parametrize("places", [((2, 0), (1, 9)), ((1, 0), (0, 2)), ((1, 0), (0, 5))])
def test_of_equal_islands_the_one_stays_that_opencv_numbers_first(
    places: tuple[tuple[int, int], ...],
) -> None:
    mask = np.zeros((6, 12), dtype=bool)
    for place in places:
        mask[place] = True
    expected, _ = amg.remove_small_regions(mask, 5, "islands")
    found, changed = remove_small_regions(mask, 5)
    assert changed
    assert found.sum() == 1
    np.testing.assert_array_equal(found, expected)


def test_small_regions_are_those_of_opencv() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        height, width = rng.integers(1, 14, 2)
        mask = rng.random((height, width)) < rng.choice([0.05, 0.2, 0.5, 0.8, 1])
        for min_area in (1, 3, 9):
            filled, has_filled = amg.remove_small_regions(mask, min_area, "holes")
            expected, has_removed = amg.remove_small_regions(filled, min_area, "islands")
            found, changed = remove_small_regions(mask, min_area)
            assert changed == (has_filled or has_removed)
            np.testing.assert_array_equal(found, expected)


def test_fast_searches_around_the_best_masks_and_where_none_is() -> None:
    """One mask of the left half, given for the first point only."""
    [crop] = crops(
        (32, 32),
        encoder_px=32,
        points_per_side=16,
        layers=0,
        overlap_ratio=0,
        points_downscale_factor=1,
    )
    limits = Thresholds(0.0, 0.5, 0.5, 1.0, 0.7)
    search = FastSearch(crop, (16, 16), limits, torch.device("cpu"))
    coarse = search.next_points()
    assert set(coarse.tolist()) == {16 * y + x for y in range(0, 16, 2) for x in range(0, 16, 2)}
    logits = torch.full((1, 16, 16), -9.0)
    logits[..., :8] = 9
    search.add(PointMasks(logits, torch.tensor([0.9]), coarse[:1]))
    second = search.next_points().tolist()
    assert {1, 2 * 16 + 1, 16, 17} <= set(second)  # around the first point
    assert 16 * 10 + 11 in second  # of the next coarse grid, not covered
    assert 16 * 10 + 3 not in second  # covered
    rest = []
    while len(points := search.next_points()):
        rest += points.tolist()
    everything = [*coarse.tolist(), *second, *rest]
    # The right half, the coarse grid of the left one, and 4 x 4 points around the first.
    assert len(everything) == len(set(everything)) == 128 + 32 + 12
    [found] = search.result().runs
    assert area(found) == 16 * 32


def test_a_mask_of_just_the_stability_stays() -> None:
    """Of its two pixels above 0 one is above 1: intersection 1, union 2."""
    keys: dict[str, Any] = {"points_per_side": 1, "points_downscale_factor": 1}
    [crop] = crops((2, 2), encoder_px=4, layers=0, overlap_ratio=0.3, **keys)
    logits = torch.full((1, 2, 2), -2.0)
    logits[0, 0] = torch.tensor([2.0, 0.5])
    masks = PointMasks(logits, torch.ones(1), torch.zeros(1, dtype=torch.int64))
    for stability_score, stays in ((0.5, True), (0.51, False)):
        limits = Thresholds(0.0, 0.0, stability_score, 1.0, 0.7)
        found, _ = select(masks, crop, torch.nn.Identity(), limits)  # type: ignore[arg-type]
        assert len(found) == stays
