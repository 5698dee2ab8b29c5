from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pycocotools import mask as coco
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.build_sam import _build_sam
from segment_anything.modeling import Sam

from stages.models.embedded import sam_network
from stages.models.embedded.models import SAM
from stages.propose.generator.mask_generator import MaskGenerator, Proposal
from stages.sandbox.world.world import render
from tools.sandbox.sam_metrics import GENERATOR

OPEN: dict[str, Any] = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "points_per_side": 4}
Masks = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]
Draw = Callable[[int, int], Pixels]


@pytest.fixture
def sam(build_sam: Callable[[], Sam]) -> Sam:
    return build_sam()


@pytest.fixture(scope="module")
def shipped() -> Any:
    return sam_network.build(SAM.folder)


@pytest.fixture
def image() -> Draw:
    """Noise of a height and width."""

    def draw(height: int, width: int) -> Pixels:
        return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)

    return draw


def scene(index: int) -> Pixels:
    """A web scene of a seed that was used neither for training nor to choose settings."""
    return render("web", 4_000_000, index).image


def decoded(found: list[Proposal], pixels: Pixels) -> Masks:
    size = list(pixels.shape[:2])
    masks = [coco.decode({"size": size, "counts": one.rle.encode()}) for one in found]
    return np.array(masks, dtype=bool).reshape(-1, *size)


def assert_official(sam: Any, pixels: Pixels, **options: Any) -> list[Proposal]:
    """The same masks in the same order; a pixel may differ where its logit is about 0."""
    expected = SamAutomaticMaskGenerator(sam, **options).generate(pixels)
    [found] = MaskGenerator(sam, **options)([pixels])
    assert found
    assert len(found) == len(expected)
    for proposal, own, mask in zip(found, decoded(found, pixels), expected, strict=True):
        assert (own != mask["segmentation"]).mean() < 0.001
        assert proposal.area == own.sum()
        assert proposal.area == pytest.approx(mask["area"], abs=2)
        assert list(proposal.bbox) == pytest.approx(mask["bbox"], abs=1)
        assert proposal.predicted_iou == pytest.approx(mask["predicted_iou"], abs=1e-5)
        score = pytest.approx(mask["stability_score"], abs=1e-3, nan_ok=True)
        assert proposal.stability_score == score
    return found


OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "many points": {"points_per_side": 13},
    "few points a batch": {"points_per_batch": 3},
    "some pass": {"pred_iou_thresh": 0.6, "stability_score_thresh": 0.8},
    "another offset": {"stability_score_thresh": 0.9, "stability_score_offset": 0.2},
    "nearly all duplicates": {"box_nms_thresh": 0.2},
    "crops": {"crop_n_layers": 1, "crop_overlap_ratio": 0.5, "crop_nms_thresh": 0.4},
    "crops of fewer points": {"crop_n_layers": 2, "crop_n_points_downscale_factor": 2},
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_its_masks_are_the_official_generators(shipped: Any, kind: str) -> None:
    options = {**GENERATOR, "points_per_side": 5, **OPTIONS[kind]}
    assert_official(shipped, scene(0)[:90], **options)


CHANGES: dict[str, tuple[Any, Any]] = {
    "pred_iou_thresh": (0.3, 0.6),
    "stability_score_thresh": (0.3, 0.8),
    "stability_score_offset": (0.2, 2.0),
    "box_nms_thresh": (0.2, 0.9),
    "crop_n_layers": (0, 1),
    "crop_nms_thresh": (0.1, 0.9),
    "crop_overlap_ratio": (0.1, 0.7),
    "points_per_side": (4, 6),
    "min_mask_region_area": (0, 60),
}
"""Two values of each option, of which the masks are others."""


@pytest.mark.parametrize("option", CHANGES)
def test_each_option_has_the_official_effect(shipped: Any, option: str) -> None:
    options = {**GENERATOR, "points_per_side": 4, "crop_n_layers": 1, "stability_score_thresh": 0.5}
    pixels = scene(0)[:90]
    found = []
    for value in CHANGES[option]:
        masks = assert_official(shipped, pixels, **{**options, option: value})
        found.append([one.rle for one in masks])
    assert found[0] != found[1]


@pytest.mark.parametrize("size", [(24, 32), (75, 40), (32, 32)])
@pytest.mark.parametrize("crop_n_layers", [0, 1])
def test_they_are_for_a_sam_with_random_weights(
    sam: Sam, image: Draw, size: tuple[int, int], crop_n_layers: int
) -> None:
    assert_official(sam, image(*size), crop_n_layers=crop_n_layers, **OPEN)


def test_they_are_for_the_published_architecture(image: Draw) -> None:
    narrow = _build_sam(32, 1, 2, [0])
    assert_official(narrow, image(60, 80), **{**OPEN, "points_per_side": 1})


@pytest.mark.parametrize("crop_n_layers", [0, 1])
def test_masks_without_small_regions_are_the_official_generators(
    shipped: Any, crop_n_layers: int
) -> None:
    options = {**GENERATOR, "crop_n_layers": crop_n_layers, "min_mask_region_area": 40}
    assert_official(shipped, scene(0), **{**options, "points_per_side": 5})


def test_no_small_islands_are_left(shipped: Any) -> None:
    options: dict[str, Any] = {**GENERATOR, "stability_score_thresh": 0.2}
    before, after = (
        MaskGenerator(shipped, min_mask_region_area=area, **options)([scene(0)])[0]
        for area in (0, 60)
    )
    assert len(after) > 1
    assert {one.rle for one in after} - {one.rle for one in before}
    assert min(one.area for one in after) >= 60
    for one, mask in zip(after, decoded(after, scene(0)), strict=True):  # boxes are the new ones
        rows, columns = np.nonzero(mask)
        left, top, width, height = one.bbox
        assert (left, top) == (columns.min(), rows.min())
        assert (left + width, top + height) == (columns.max(), rows.max())


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_an_image_has_the_same_masks_in_any_batch(shipped: Any, mode: Any) -> None:
    images = [scene(0), scene(1)[:70], scene(2)[:, :33], scene(3)]
    options = {**GENERATOR, "mode": mode, "crop_n_layers": 1, "points_per_side": 5}
    one_by_one = [MaskGenerator(shipped, **options)([pixels])[0] for pixels in images]
    batch = {"points_per_batch": 37, "images_per_batch": 7}
    together = MaskGenerator(shipped, **{**options, **batch})(images)
    for pixels, one, other in zip(images, one_by_one, together, strict=True):
        assert len(one) == len(other) > 0
        assert (decoded(one, pixels) != decoded(other, pixels)).mean() < 0.001


@pytest.mark.parametrize("points_per_side", [8, 16])
def test_fast_finds_nearly_the_same(shipped: Any, points_per_side: int) -> None:
    options: dict[str, Any] = {**GENERATOR, "points_per_side": points_per_side}
    images = [scene(index) for index in range(4)]
    exact, fast = (
        MaskGenerator(shipped, mode=mode, **options)(images) for mode in ("exact", "fast")
    )
    best = []
    for pixels, wanted, found in zip(images, exact, fast, strict=True):
        one, other = (
            masks.reshape(len(masks), -1).astype(float)
            for masks in (decoded(wanted, pixels), decoded(found, pixels))
        )
        both = one @ other.T
        best += (both / (one.sum(1)[:, None] + other.sum(1) - both)).max(axis=1).tolist()
    assert len(best) > 30
    assert np.mean(best) >= 0.98
    assert np.mean(np.array(best) >= 0.75) >= 0.97


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_an_image_in_which_nothing_passes_has_no_masks(sam: Sam, image: Draw, mode: Any) -> None:
    for crop_n_layers in (0, 1):
        options = {**OPEN, "pred_iou_thresh": 1.0, "crop_n_layers": crop_n_layers, "mode": mode}
        options["min_mask_region_area"] = 5
        assert MaskGenerator(sam, **options)([image(24, 32)]) == [[]]


def test_no_images_have_no_masks(sam: Sam) -> None:
    assert MaskGenerator(sam)([]) == []


@pytest.mark.parametrize("crop_n_layers", [0, 1])
@pytest.mark.parametrize("size", [(1, 32), (32, 1), (1, 1), (2, 48), (1, 48), (1, 500), (500, 1)])
def test_a_line_of_pixels_is_no_error(
    sam: Sam, image: Draw, size: tuple[int, int], crop_n_layers: int
) -> None:
    for mode in ("exact", "fast"):
        options: dict[str, Any] = {**OPEN, "crop_n_layers": crop_n_layers, "mode": mode}
        [line, other] = MaskGenerator(sam, **options)([image(*size), image(24, 32)])
        assert other
        assert decoded(line, image(*size)).shape == (len(line), *size)
