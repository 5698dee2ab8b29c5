"""The recipes of docs/labels.md as their authors' code computes them, with OpenCV and Pillow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.vocabulary import Vocabulary
from stages.models.clip.clip import Clip
from stages.models.clip.clip_weights import ClipConfig, Dense
from stages.pseudolabel.inputs import LabelerInput, batch_of
from stages.pseudolabel.labelers.dense_clip import DenseClip
from stages.pseudolabel.labelers.sam_clip import SamClipConfig
from tests.pseudolabel.clips import CPU, load

BuildVocabulary = Callable[..., Vocabulary]

LABEL_PX = 40
PROMPTS = ["a photo of a cat.", "a photo of a dog.", "a photo of a kitten."]
CLASSES: dict[str, Any] = {"cat": ["cat", "kitten"], "dog": ["dog"], "prompts": "single-dot"}
OF_CLASSES = [[0, 2], [1]]
"""Of each class its prompts, in the order of `PROMPTS`."""


@pytest.fixture
def photo() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A photo larger than its label: what a labeler sees differs from its canvas."""
    random = np.random.default_rng(5)
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
    smooth = np.asarray(coarse.resize((133, 97), Image.Resampling.BICUBIC)).astype(int)
    return (smooth + random.integers(-20, 21, smooth.shape)).clip(0, 255).astype(np.uint8)


@pytest.fixture
def folder(clip_folder: Callable[[str], Path]) -> Path:
    return clip_folder("vit")


@pytest.fixture
def labeled(
    folder: Path, vocabulary: BuildVocabulary, photo: np.ndarray[Any, np.dtype[np.uint8]]
) -> Callable[..., tuple[Tensor, Tensor]]:
    """The label of the photo, 29 x 40, as stage one makes it."""

    def label(**keys: Any) -> tuple[Tensor, Tensor]:
        config = ClipConfig.model_validate({"model": f"local-dir:{folder}", **keys})
        labeler = DenseClip(config, vocabulary(**CLASSES))
        labeler.load(CPU)
        assert labeler.resizes
        canvas = np.zeros((29, LABEL_PX, 3), np.uint8)  # must not be looked at
        labels = labeler(batch_of([LabelerInput(canvas, original=photo)], LABEL_PX))
        return labels.mask[0, :29], labels.confidence[0, :29]

    return label


def cosines(clip: Clip, windows: Tensor, dense: Dense) -> Tensor:
    """(N, K, h, w) of windows (N, 3, S, S) with the prompts."""
    features = clip.dense_features(windows, dense)
    return torch.einsum("ndhw,kd->nkhw", features, clip.encode_text(PROMPTS))


def assert_labels(found: tuple[Tensor, Tensor], expected: Tensor) -> None:
    """Of the classes' probabilities (C, H, W); classes may differ where two are equal."""
    confidence, mask = expected.max(0)
    torch.testing.assert_close(found[1], confidence, atol=2e-5, rtol=1e-4)
    best, second = expected.topk(2, dim=0).values
    sure = best - second > 1e-4
    assert sure.float().mean() > 0.95
    assert len(torch.unique(mask)) == 2
    assert torch.equal(found[0][sure], mask[sure])


def test_sclip_s_recipe_is_its_published_code(
    labeled: Callable[..., tuple[Tensor, Tensor]],
    folder: Path,
    photo: np.ndarray[Any, np.dtype[np.uint8]],
) -> None:
    """OpenCV's resize of the photo, mean logits of windows, resized plainly to the label."""
    found = labeled(
        variant="sclip",
        short_side_px=24,
        long_side_px=146,
        resize="opencv",
        window_px=16,
        stride_px=8,
        softmax_over="concepts",
        logit_scale=65.0,
    )
    scale = min(24 / 97, 146 / 133)
    size = (int(97 * scale + 0.5), int(133 * scale + 0.5))
    seen = torch.from_numpy(cv2.resize(photo, size[::-1], interpolation=cv2.INTER_LINEAR))
    clip = load(folder, 16, dense=Dense("sclip"))
    image = (seen.permute(2, 0, 1)[None].float() / 255 - clip.mean) / clip.std
    total, count = torch.zeros(1, 3, *size), torch.zeros(1, 1, *size)
    rows, columns = (max(side - 16 + 7, 0) // 8 + 1 for side in size)
    for row in range(rows):
        for column in range(columns):
            bottom, right = min(row * 8 + 16, size[0]), min(column * 8 + 16, size[1])
            window = (..., slice(bottom - 16, bottom), slice(right - 16, right))
            own = cosines(clip, image[window], Dense("sclip"))
            total[window] += F.interpolate(own, (16, 16), mode="bilinear")
            count[window] += 1
    logits = F.interpolate(total / count, (29, LABEL_PX), mode="bilinear")[0]
    shares = (65 * logits).softmax(0)
    assert_labels(found, torch.stack([shares[own].amax(0) for own in OF_CLASSES]))


def test_gem_s_recipe_is_its_published_code(
    labeled: Callable[..., tuple[Tensor, Tensor]],
    folder: Path,
    photo: np.ndarray[Any, np.dtype[np.uint8]],
) -> None:
    """A square by Pillow's bicubic resize, and maps stretched to 0 to 1 for each prompt."""
    found = labeled(
        variant="gem",
        short_side_px=32,
        fit="square",
        resize="bicubic",
        maps="min-max",
        window_px=32,
        stride_px=32,
        logit_scale=1.0,
    )
    square = Image.fromarray(photo).resize((32, 32), Image.Resampling.BICUBIC)
    clip = load(folder, 32, dense=Dense("gem"))
    seen = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None]
    image = (seen.float() / 255 - clip.mean) / clip.std
    maps = F.interpolate(cosines(clip, image, Dense("gem")), (32, 32), mode="bilinear")[0]
    low, high = (each[:, None, None] for each in (maps.flatten(1).amin(1), maps.flatten(1).amax(1)))
    heat = (maps - low) / (high - low)
    of_classes = torch.stack([heat[own].amax(0) for own in OF_CLASSES])
    at_label = F.interpolate(of_classes[None], (29, LABEL_PX), mode="bilinear")[0]
    assert_labels(found, at_label.softmax(0))


def test_a_map_without_a_range_is_no_number_less(folder: Path, vocabulary: BuildVocabulary) -> None:
    """A window of a single location: highest and lowest score are the same."""
    keys = {"model": f"local-dir:{folder}", "window_px": 8, "stride_px": 8, "maps": "min-max"}
    labeler = DenseClip(ClipConfig.model_validate(keys), vocabulary(**CLASSES))
    labeler.load(CPU)
    flat = np.full((8, 8, 3), 99, np.uint8)
    labels = labeler(batch_of([LabelerInput(flat)], 8))
    torch.testing.assert_close(labels.confidence, torch.full((1, 8, 8), 0.5))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"resize": "opencv"}, "set `short_side_px` too: .*, and resize would have no effect"),
        ({"fit": "square", "resize": "bicubic"}, "and fit, resize would have no effect"),
        (
            {"short_side_px": 32, "fit": "square", "long_side_px": 64},
            "leave out `long_side_px`: the sides of a square are `short_side_px`",
        ),
    ],
)
def test_keys_that_would_do_nothing_are_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ClipConfig(model="sandbox", window_px=32, stride_px=32, **keys)


def test_masks_as_a_whole_have_no_map_to_stretch() -> None:
    keys: dict[str, Any] = {"model": "sandbox", "window_px": 32, "stride_px": 32}
    SamClipConfig(**keys, maps="min-max")
    for classify in ("features", "crop"):
        with pytest.raises(ValidationError, match=f"leave out `maps`: `classify: {classify}`"):
            SamClipConfig(**keys, maps="min-max", classify=classify)


def test_keys_of_recipes_are_facts_only_where_they_are_written() -> None:
    keys: dict[str, Any] = {"model": "sandbox", "window_px": 32, "stride_px": 32}
    new = {f"x.{key}" for key in ("long_side_px", "fit", "resize", "maps")}
    assert not new & ClipConfig(**keys).facts("x").keys()
    written = ClipConfig(**keys, short_side_px=32, resize="opencv", long_side_px=2048).facts("x")
    assert (written["x.resize"], written["x.long_side_px"]) == ("opencv", 2048)
