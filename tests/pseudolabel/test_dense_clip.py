import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.config.vocabulary import Vocabulary
from stages.labels.pseudo_labels import PseudoLabels
from stages.models.clip.clip import load_clip
from stages.pseudolabel.labelers.base import ImageBatch
from tests.pseudolabel.dense_clips import CHECKPOINT, CPU, loaded
from tests.pseudolabel.image_batches import batch_of

ClipFolder = Callable[[str], Path]


BuildVocabulary = Callable[..., Vocabulary]


def only(labels: PseudoLabels, index: int) -> tuple[Tensor, Tensor]:
    return labels.mask[index], labels.confidence[index]


@pytest.mark.parametrize("tower", ["vit", "resnet", "convnext"])
@pytest.mark.parametrize("short_side_px", [None, 40])
def test_an_image_gets_the_same_label_in_any_batch(
    clip_folder: ClipFolder, vocabulary: BuildVocabulary, tower: str, short_side_px: int | None
) -> None:
    classes = vocabulary(cat=["cat"], dog=["dog", "puppy"], background_concepts=["sky"])
    keys = {"model": f"local-dir:{clip_folder(tower)}", "short_side_px": short_side_px}
    labeler = loaded(classes, batch_size=3, **keys)
    images = batch_of((64, 64), (20, 64), (64, 1), (33, 64))
    together = labeler.label(images)
    again = labeler.label(images)
    larger_forwards = loaded(classes, **keys).label(images)
    assert together.mask.shape == together.confidence.shape == (4, 64, 64)
    assert (together.mask.dtype, together.confidence.dtype) == (torch.int64, torch.float32)
    assert set(together.mask.flatten().tolist()) <= {0, 1, 255}
    assert torch.equal(together.mask, again.mask)
    assert torch.equal(together.confidence, again.confidence)
    assert torch.equal(together.mask, larger_forwards.mask)
    for index, (height, width) in enumerate(images.sizes):
        alone = labeler.label(ImageBatch(images.pixels[index : index + 1], ((height, width),)))
        mask, confidence = only(together, index)
        assert torch.equal(mask, alone.mask[0])
        torch.testing.assert_close(confidence, alone.confidence[0], atol=1e-5, rtol=0)
        outside = torch.ones(64, 64, dtype=torch.bool)
        outside[:height, :width] = False
        assert (mask[outside] == 255).all()
        assert (confidence[mask == 255] == 0).all()
        kept = confidence[mask != 255]
        assert ((kept >= 1 / 3) & (kept <= 1)).all()


@pytest.mark.parametrize("size", [(1, 64), (64, 1), (1, 1)])
@pytest.mark.parametrize("short_side_px", [None, 48])
def test_a_line_of_pixels_is_labeled(
    clip_folder: ClipFolder,
    vocabulary: BuildVocabulary,
    size: tuple[int, int],
    short_side_px: int | None,
) -> None:
    folder = clip_folder("vit")
    classes = vocabulary(cat=None, dog=None)
    labeler = loaded(classes, model=f"local-dir:{folder}", short_side_px=short_side_px)
    labels = labeler.label(batch_of(size))
    assert (labels.mask != 255).sum() == size[0] * size[1]
    assert (labels.mask[0, : size[0], : size[1]] < 2).all()


def test_a_single_class_wins_everywhere_for_certain(
    clip_folder: ClipFolder, vocabulary: BuildVocabulary
) -> None:
    labeler = loaded(vocabulary(cat=None), model=f"local-dir:{clip_folder('vit')}", threshold=1.0)
    labels = labeler.label(batch_of((64, 64)))
    assert torch.equal(labels.mask, torch.zeros(1, 64, 64, dtype=torch.int64))
    assert torch.equal(labels.confidence, torch.ones(1, 64, 64))


def test_two_hundred_classes(clip_folder: ClipFolder, vocabulary: BuildVocabulary) -> None:
    classes = vocabulary(**{f"class {number}": None for number in range(200)})
    labeler = loaded(classes, model=f"local-dir:{clip_folder('vit')}", logit_scale=100.0)
    labels = labeler.label(batch_of((64, 64), (64, 10)))
    found = labels.mask[labels.mask != 255]
    assert len(found) == 64 * 64 + 64 * 10
    assert int(found.max()) < 200
    assert len(set(found.tolist())) > 3


def test_improbable_pixels_are_ignored(
    clip_folder: ClipFolder, vocabulary: BuildVocabulary
) -> None:
    model = f"local-dir:{clip_folder('vit')}"
    classes = vocabulary(cat=None, dog=None, boat=None)
    everything = loaded(classes, model=model).label(batch_of((64, 50)))
    threshold = float(everything.confidence[:, :, :50].median())
    likely = loaded(classes, model=model, threshold=threshold).label(batch_of((64, 50)))
    kept = everything.confidence >= threshold
    assert 0.4 < kept[:, :, :50].float().mean() < 0.6
    assert torch.equal(likely.mask, everything.mask.where(kept, 255))
    assert torch.equal(likely.confidence, everything.confidence.where(kept, 0))


COLORS = {"coal": (0, 0, 0), "snow": (255, 255, 255), "rose": (230, 20, 40)}


@pytest.fixture(params=["vit", "resnet", "convnext"])
def color_clip(request: pytest.FixtureRequest, clip_folder: ClipFolder, tmp_path: Path) -> Path:
    """A CLIP folder whose text side names the colours as its image side sees them."""
    source = clip_folder(request.param)
    clip = load_clip(source, source / CHECKPOINT, window_px=32, device=CPU)
    windows = torch.tensor(list(COLORS.values()), dtype=torch.uint8)[..., None, None]
    seen = clip.dense_features(clip.normalize(windows).expand(-1, -1, 32, 32)).mean((2, 3))
    clip.network.text_projection.copy_(torch.eye(32))
    read = clip.network.encode_text(clip.tokenizer(list(COLORS)))
    # Each text like its own colour, and at right angles to the others.
    clip.network.text_projection.copy_(torch.linalg.pinv(read) @ torch.linalg.pinv(seen).T)
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    save_file(clip.network.state_dict(), tmp_path / CHECKPOINT)
    return tmp_path


def stripes(*colors: str, width: int = 32) -> ImageBatch:
    image = torch.tensor([COLORS[color] for color in colors], dtype=torch.uint8)
    canvas = width * len(colors)
    pixels = image.repeat_interleave(width, 0).T[:, None].expand(3, 32, canvas)
    square = torch.zeros(1, 3, canvas, canvas, dtype=torch.uint8)
    square[0, :, :32] = pixels
    return ImageBatch(square, ((32, canvas),))


@pytest.mark.parametrize(
    ("background", "rose"), [({}, 255), ({"background": "other", "other": []}, 2)]
)
def test_each_part_of_an_image_gets_the_class_it_shows(
    color_clip: Path, vocabulary: BuildVocabulary, background: dict[str, Any], rose: int
) -> None:
    classes = vocabulary(
        dark=["coal"],
        light=["snow"],
        **background,
        background_concepts=["rose"],
        templates=["{}"],
    )
    keys = {"model": f"local-dir:{color_clip}", "logit_scale": 10_000.0}
    images = stripes("snow", "rose", "coal")
    labels = loaded(classes, stride_px=32, **keys).label(images)
    expected = torch.tensor([1, rose, 0]).repeat_interleave(32).expand(32, 96)
    assert torch.equal(labels.mask[0, :32], expected)
    assert (labels.mask[0, 32:] == 255).all()
    assert (labels.confidence[0, :32][expected != 255] > 0.9).all()
    overlapping = loaded(classes, stride_px=20, short_side_px=64, **keys).label(images)
    middles = overlapping.mask[0, 16, 16::32]
    assert middles.tolist() == [1, rose, 0]


def test_the_best_of_a_classs_concepts_counts(
    color_clip: Path, vocabulary: BuildVocabulary
) -> None:
    classes = vocabulary(red=["rose"], gray=["coal", "snow"], templates=["{}"])
    labeler = loaded(classes, model=f"local-dir:{color_clip}", stride_px=32)
    labels = labeler.label(stripes("snow", "rose", "coal"))
    assert labels.mask[0, 16, 16::32].tolist() == [1, 0, 1]


def test_the_learned_scale_counts_where_none_is_given(
    color_clip: Path, vocabulary: BuildVocabulary
) -> None:
    classes = vocabulary(dark=["coal"], light=["snow"], templates=["{}"])
    keys = {"model": f"local-dir:{color_clip}", "stride_px": 32}
    learned, given, lower = (
        loaded(classes, logit_scale=scale, **keys).label(stripes("snow", "coal")).confidence
        for scale in (None, 1 / 0.07, 0.1)
    )
    torch.testing.assert_close(learned, given)
    assert (lower[0, :32] < learned[0, :32]).all()
