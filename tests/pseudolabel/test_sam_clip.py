from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.vocabulary import Vocabulary
from stages.models.clip.clip_weights import ClipConfig
from stages.propose.output import Proposals
from stages.pseudolabel.labelers.base import ImageBatch
from stages.pseudolabel.labelers.dense_clip import DenseClip
from stages.pseudolabel.labelers.sam_clip import SamClip, SamClipConfig
from stages.pseudolabel.pixels import pooling
from stages.pseudolabel.pixels.mask_crops import masked_crops

CPU = torch.device("cpu")
SIZES = ((64, 64), (20, 64), (64, 1), (33, 64))


@pytest.fixture
def labeler(
    clip_folder: Callable[[str], Path], vocabulary: Callable[..., Vocabulary]
) -> Callable[..., SamClip]:
    """A loaded labeler of two classes and a background: ``labeler(fusion="paint")``."""

    def build(**keys: Any) -> SamClip:
        clip = {"model": f"local-dir:{clip_folder('vit')}", "window_px": 32, "stride_px": 16}
        classes = vocabulary(cat=["cat"], dog=["dog", "puppy"], background_concepts=["sky"])
        built = SamClip(SamClipConfig.model_validate({**clip, **keys}), classes)
        built.load(CPU)
        return built

    return build


@pytest.fixture
def batch() -> ImageBatch:
    """Noise of several sizes; of the first image six masks, of the last none."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.zeros(len(SIZES), 3, 64, 64, dtype=torch.uint8)
    proposals = []
    for image, (height, width), count in zip(pixels, SIZES, (6, 3, 2, 0), strict=True):
        noise = torch.randint(0, 256, (3, height, width), generator=generator)
        image[:, :height, :width] = noise.to(torch.uint8)
        masks = torch.rand(count, height, width, generator=generator) > 0.6
        quality = torch.rand(2, count, generator=generator).tolist()
        proposals.append(Proposals((height, width), encoded(masks), *map(tuple, quality)))
    return ImageBatch(pixels, SIZES, tuple(proposals))


def encoded(masks: Tensor) -> tuple[str, ...]:
    stacked = np.asfortranarray(masks.permute(1, 2, 0).numpy().astype(np.uint8))
    return tuple(rle["counts"].decode() for rle in coco.encode(stacked))


def probabilities(logits: Tensor, softmax_over: str) -> Tensor:
    """(P, 3) of the cat, the dog with its two concepts, and the sky, from (P, 4) logits."""

    def best(scores: Tensor) -> Tensor:
        cat, dog, puppy, sky = scores.T
        return torch.stack([cat, torch.maximum(dog, puppy), sky], dim=1)

    return best(logits).softmax(1) if softmax_over == "classes" else best(logits.softmax(1))


def alone(batch: ImageBatch, index: int) -> ImageBatch:
    place = slice(index, index + 1)
    return ImageBatch(batch.pixels[place], batch.sizes[place], batch.proposals[place])


@pytest.mark.parametrize("fusion", ["soft", "paint"])
@pytest.mark.parametrize("classify", ["pooled", "features", "crop"])
def test_an_image_gets_the_same_label_in_any_batch(
    labeler: Callable[..., SamClip], batch: ImageBatch, fusion: str, classify: str
) -> None:
    built = labeler(fusion=fusion, classify=classify)
    together = built.label(batch)
    assert together.mask.shape == together.confidence.shape == (4, 64, 64)
    assert (together.mask.dtype, together.confidence.dtype) == (torch.int64, torch.float32)
    assert set(together.mask.flatten().tolist()) <= {0, 1, 255}
    for index, (height, width) in enumerate(SIZES):
        own = built.label(alone(batch, index))
        assert torch.equal(together.mask[index], own.mask[0])
        confidence = together.confidence[index]
        torch.testing.assert_close(confidence, own.confidence[0], atol=1e-5, rtol=0)
        outside = torch.ones(64, 64, dtype=torch.bool)
        outside[:height, :width] = False
        assert (together.mask[index][outside] == 255).all()
        assert (confidence[together.mask[index] == 255] == 0).all()


@pytest.mark.parametrize("fusion", ["soft", "paint"])
def test_labels_are_the_fused_probabilities(
    labeler: Callable[..., SamClip], batch: ImageBatch, fusion: str
) -> None:
    built = labeler(fusion=fusion, sam_share=0.3, power=2, threshold=0.34)
    found = built.label(batch)
    values = torch.tensor([0, 1, 255])
    for index, dense in enumerate(built.dense_probabilities(batch)):
        proposals = batch.proposals[index]
        masks = torch.from_numpy(proposals.masks())
        own = pooling.mask_means(dense, masks)
        iou, stability = proposals.predicted_iou, proposals.stability_score
        weights = torch.tensor([(i * s) ** 2 for i, s in zip(iou, stability, strict=True)])
        fused = (
            pooling.paint(dense, masks, own)
            if fusion == "paint"
            else pooling.soft(dense, masks, own, weights, 0.3)
        )
        best, channel = fused.max(0)
        expected = values[channel].where(best >= 0.34, 255)
        image = (index, slice(SIZES[index][0]), slice(SIZES[index][1]))
        assert torch.equal(found.mask[image], expected)
        torch.testing.assert_close(found.confidence[image], best.where(expected != 255, 0))


def test_without_masks_its_labels_are_those_of_dense_clip(
    labeler: Callable[..., SamClip], batch: ImageBatch
) -> None:
    built = labeler()
    shared = built.config.model_dump(include=set(ClipConfig.model_fields))
    dense = DenseClip(ClipConfig(**shared), built.vocabulary)
    dense.load(CPU)
    masked, plain = built.label(batch), dense.label(batch)
    assert torch.equal(masked.mask[3], plain.mask[3])
    assert torch.equal(masked.confidence[3], plain.confidence[3])
    assert not torch.equal(masked.confidence[0], plain.confidence[0])


def test_scores_that_are_no_shares_do_no_harm(labeler: Callable[..., SamClip]) -> None:
    """SAM's estimates are not probabilities; a stability of 0/0 is NaN."""
    pixels = torch.full((1, 3, 64, 64), 90, dtype=torch.uint8)
    masks = encoded(torch.ones(3, 64, 64, dtype=torch.bool))
    scores = ((-0.2, 1.3, 0.5), (0.5, 1.0, float("nan")))
    batch = ImageBatch(pixels, ((64, 64),), (Proposals((64, 64), masks, *scores),))
    confidence = labeler(sam_share=1.0).label(batch).confidence
    assert confidence.isfinite().all()
    assert ((confidence == 0) | (confidence > 1 / 3)).all()


@pytest.mark.parametrize("softmax_over", ["classes", "concepts"])
def test_a_masks_mean_feature_names_it(
    labeler: Callable[..., SamClip], batch: ImageBatch, softmax_over: str
) -> None:
    """The feature of a mask on one location is the feature of that location."""
    built = labeler(classify="features", fusion="paint", softmax_over=softmax_over)
    image = batch.pixels[:1, :, :32, :32]
    masks = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(0)) > 0.6
    masks[1] = False
    masks[1, :4, :4] = True  # nearer to the middle of the first location than to any other's
    found = built.feature_probabilities(ImageBatch(image, ((32, 32),)), 0, masks)
    with torch.no_grad():
        coarse = built._clip.dense_features(built._clip.normalize(image))
        assert coarse.shape == (1, 32, 4, 4)
        fine = F.interpolate(coarse, (32, 32), mode="bilinear")[0]
        means = torch.stack([fine[:, mask].mean(1) for mask in masks])
        torch.testing.assert_close(means[1], coarse[0, :, 0, 0])
        cosines = F.normalize(means, dim=1) @ built._queries.T
        scale = float(built._clip.network.logit_scale.exp())
    torch.testing.assert_close(found, probabilities(scale * cosines, softmax_over))
    dense = next(built.dense_probabilities(ImageBatch(image, ((32, 32),))))
    assert not torch.allclose(found, pooling.mask_means(dense, masks), atol=1e-3)


def test_crops_show_a_mask_alone_in_the_middle_of_a_square() -> None:
    image = torch.arange(1.0, 3 * 6 * 8 + 1).reshape(3, 6, 8)
    masks = torch.zeros(3, 6, 8, dtype=torch.bool)
    masks[0, 1:3, 2:6] = True
    masks[0, 2, 5] = False
    masks[1, :, 7] = True
    crops = masked_crops(image, masks, 4)
    assert crops.shape == (3, 3, 4, 4)
    assert torch.equal(crops[0, :, 1:3], image[:, 1:3, 2:6] * masks[0, 1:3, 2:6])
    assert (crops[0, :, [0, 3]] == 0).all()
    assert (crops[2] == 0).all()  # of a mask without a pixel
    column = masked_crops(image, masks, 6)[1]
    assert torch.equal(column[:, :, 2], image[:, :, 7])
    assert (column[:, :, [0, 1, 3, 4, 5]] == 0).all()
    bare = masked_crops(image, masks[:1], 8)[0]
    assert (bare[:, 3:5, 2:6] > 0).any()


def test_a_large_crop_is_smoothed_as_it_is_made_smaller() -> None:
    """Lines one pixel wide become grey, as Pillow makes them, and no pattern of their own."""
    image = torch.arange(64.0).remainder(2).expand(3, 64, 64)
    [crop] = masked_crops(image, torch.ones(1, 64, 64, dtype=torch.bool), 8)
    lines = Image.fromarray(image[0].numpy()).resize((8, 8), Image.Resampling.BILINEAR)
    torch.testing.assert_close(crop[0], torch.from_numpy(np.array(lines)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("softmax_over", ["classes", "concepts"])
def test_a_cropped_mask_is_named_as_clip_names_whole_images(
    labeler: Callable[..., SamClip], batch: ImageBatch, softmax_over: str
) -> None:
    """Compared with open_clip; painted pixels have the confidence of their mask."""
    built = labeler(classify="crop", fusion="paint", softmax_over=softmax_over, batch_size=4)
    masks = torch.from_numpy(batch.proposals[0].masks())
    found = built.crop_probabilities(batch.pixels[0], masks)
    network = built._clip.network
    image = (batch.pixels[0].float() / 255 - built._clip.mean) / built._clip.std
    shown = masked_crops(image, masks, 32)
    with torch.no_grad():
        cosines = network.encode_image(shown, normalize=True) @ built._queries.T
        scale = float(network.logit_scale.exp())
    names = [["cat"], ["dog", "puppy"], ["sky"]]
    assert [len(own) for own in built._channels.members] == [len(own) for own in names]
    expected = probabilities(scale * cosines, softmax_over)
    torch.testing.assert_close(found, expected)
    smallest = int(masks.flatten(1).sum(1).argmin())
    labels = built.label(alone(batch, 0))
    best, channel = expected[smallest].max(0)
    painted = labels.mask[0][masks[smallest]]
    assert (painted == torch.tensor([0, 1, 255])[channel]).all()
    assert (labels.confidence[0][masks[smallest]] - (best if channel < 2 else 0)).abs().max() < 1e-5


def test_a_residual_networks_crops_are_of_its_own_size(
    clip_folder: Callable[[str], Path], vocabulary: Callable[..., Vocabulary], batch: ImageBatch
) -> None:
    """The attention pool takes 32 px only; windows of other sizes skip it."""
    clip = {"model": f"local-dir:{clip_folder('resnet')}", "window_px": 64, "stride_px": 64}
    config = SamClipConfig.model_validate({**clip, "classify": "crop"})
    built = SamClip(config, vocabulary(cat=["cat"], dog=["dog"]))
    built.load(CPU)
    assert built.label(batch).confidence.isfinite().all()
