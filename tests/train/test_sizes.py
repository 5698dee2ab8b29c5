from typing import Any

import pytest

from stages.models.segmenters.protocol import MAX_ASPECT
from stages.train.config import TrainConfig, VariantConfig
from stages.train.data.scale_check import Size, Sizes


def variant(**keys: Any) -> VariantConfig:
    values = {"model": "small_unet", "perturbation": "unimatch", **keys}
    return TrainConfig.model_validate(values).variants["default"]


def printed(
    val: list[Size], *, labeled: list[Size], scale: list[float], evaluated: bool = True, **keys: Any
) -> str | None:
    return Sizes(labeled, val, [], evaluated).mismatch(variant(scale=scale, **keys))


@pytest.mark.parametrize(
    ("val", "labeled", "scale", "span"),
    [
        ([(24, 32)], [(24, 32)], [0.25, 0.5], "8 to 16 px, but most are scored at 32 px"),
        ([(24, 32)], [(24, 32)], [2.0, 2.0], "64 px, but most are scored at 32 px"),
        ([(24, 32)], [(24, 32)], [0.5, 2.0], None),
        ([(24, 32)], [(96, 128)], [0.2, 0.3], None),  # pixels count, not shares
        ([(24, 32)], [(24, 32)], [0.5, 0.95], None),  # nearly
        ([(24, 32)], [(24, 32)], [0.5, 0.9], "16 to 29 px, but most are scored at 32 px"),
        ([(24, 32)], [(24, 32)], [1.05, 2.0], None),
        ([(24, 32)], [(6, 8), (96, 128)], [0.5, 1.0], None),
        ([(12, 16), (48, 64)], [(24, 32)], [1.0, 1.0], "32 px, but most are scored at 16 to 64 px"),
        ([(24, 32), (48, 64)], [(24, 32)], [1.0, 1.0], None),  # half of them
        ([(24, 32), (48, 64), (48, 64)], [(24, 32)], [1.0, 1.0], "scored at 32 to 64 px"),
        ([(1, 32)], [(32, 24)], [1.0, 1.0], None),  # long sides, as crops are scaled
        ([], [(24, 32)], [0.25, 0.5], None),
    ],
)
def test_most_images_are_scored_at_sizes_of_crops(
    val: list[Size], labeled: list[Size], scale: list[float], span: str | None
) -> None:
    found = printed(val, labeled=labeled, scale=scale)
    assert (found is None) == (span is None)
    assert span is None or span in (found or "")


def test_validations_are_scores_too() -> None:
    sizes: dict[str, Any] = {"labeled": [(24, 32)], "scale": [0.25, 0.5], "evaluated": False}
    assert printed([(24, 32)], **sizes) is None
    assert printed([(24, 32)], **sizes, validate_every=1) is not None


def test_test_images_count() -> None:
    sizes = Sizes([(24, 32)], [(12, 16)], [(24, 32), (24, 32)], evaluated=True)
    assert sizes.mismatch(variant(scale=[0.25, 0.5])) is not None
    assert sizes.mismatch(variant(scale=[1.0, 1.0])) is None


def test_very_long_images_are_no_longer_than_crops_make_them() -> None:
    """A short side of 16 px would make the long one 16000 px; `geometry` bounds the aspect."""
    sizes: dict[str, Any] = {"labeled": [(4, 4000)], "scale": [1.0, 1.0], "short_side_px": 16}
    longest = int(16 * MAX_ASPECT)
    assert printed([(16, longest)], **sizes) is None
    assert f"long sides of {longest} px" in str(printed([(16, 2 * longest)], **sizes))
