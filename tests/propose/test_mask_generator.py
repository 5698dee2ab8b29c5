import sys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from pycocotools import mask as coco
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam

from pipeline.errors import ConfigError
from stages.propose.mask_generator import MaskGenerator

OPEN = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "points_per_side": 4}
Draw = Callable[[int, int], npt.NDArray[np.uint8]]


@pytest.fixture
def sam(build_sam: Callable[[], Sam]) -> Sam:
    return build_sam()


@pytest.fixture
def image() -> Draw:
    """Noise of a height and width."""

    def draw(height: int, width: int) -> npt.NDArray[np.uint8]:
        return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)

    return draw


def test_its_masks_are_the_official_generators(sam: Sam, image: Draw) -> None:
    pixels = image(24, 32)
    expected = SamAutomaticMaskGenerator(sam, **OPEN).generate(pixels)
    found = MaskGenerator(sam, **OPEN)(pixels)
    assert found
    assert len(found) == len(expected)
    for proposal, mask in zip(found, expected, strict=True):
        decoded = coco.decode({"size": [24, 32], "counts": proposal.rle.encode()})
        assert np.array_equal(decoded, mask["segmentation"])
        assert proposal.area == mask["area"] == decoded.sum()
        assert list(proposal.bbox) == mask["bbox"]
        assert proposal.predicted_iou == mask["predicted_iou"]
        assert proposal.stability_score == mask["stability_score"]


def test_an_image_in_which_nothing_passes_has_no_masks(sam: Sam, image: Draw) -> None:
    assert MaskGenerator(sam, **{**OPEN, "pred_iou_thresh": 1.0})(image(24, 32)) == []


@pytest.mark.parametrize("crop_n_layers", [0, 1])
@pytest.mark.parametrize("size", [(1, 32), (32, 1), (1, 1), (2, 48), (1, 48), (1, 500), (500, 1)])
def test_a_line_of_pixels_is_no_accident(
    sam: Sam, image: Draw, size: tuple[int, int], crop_n_layers: int
) -> None:
    for proposal in MaskGenerator(sam, crop_n_layers=crop_n_layers, **OPEN)(image(*size)):
        decoded = coco.decode({"size": list(size), "counts": proposal.rle.encode()})
        assert decoded.shape == size


def test_crops_in_which_nothing_passes_have_no_masks(sam: Sam, image: Draw) -> None:
    options = {**OPEN, "pred_iou_thresh": 1.0, "crop_n_layers": 1}
    assert MaskGenerator(sam, **options)(image(24, 32)) == []


def test_mending_regions_without_opencv_is_one_line(
    sam: Sam, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)  # importing it fails as if it were missing
    with pytest.raises(ConfigError) as error:
        MaskGenerator(sam, min_mask_region_area=9, **OPEN)
    assert str(error.value) == (
        "propose.min_mask_region_area: 9: OpenCV is not installed; "
        "run `pip install opencv-python-headless`, or set it to 0"
    )
