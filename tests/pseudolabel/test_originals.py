"""What labelers see: those that resize images get them as decoded, not from the canvas."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
import zarr
from PIL import Image
from pycocotools import mask as coco
from torch.nn import functional as F

from pipeline.config.vocabulary import Vocabulary
from pipeline.records.rows import ImageRow
from stages.propose.output import Proposals
from stages.pseudolabel.inputs import InputReader, LabelerInput, batch_of
from stages.pseudolabel.labelers.base import Labeler
from stages.pseudolabel.labelers.dense_clip import DenseClip
from stages.pseudolabel.labelers.sam_clip import SamClip
from stages.pseudolabel.labelers.sed import Sed
from stages.pseudolabel.labelers.segmenter import Segmenter
from tests.conftest import VOCABULARY

CPU = torch.device("cpu")
Bytes = npt.NDArray[np.uint8]
BuildVocabulary = Callable[..., Vocabulary]


def photo(height: int, width: int) -> Bytes:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


def written(pixels: Bytes, path: Path) -> ImageRow:
    Image.fromarray(pixels).save(path)
    return {"row": 0, "image_id": None, "uri": str(path)}  # type: ignore[typeddict-item]


def read(reader: InputReader, row: ImageRow) -> LabelerInput:
    [found] = reader.read([row])
    assert isinstance(found, LabelerInput)
    return found


def test_images_are_read_once_for_the_canvas_and_as_decoded(tmp_path: Path) -> None:
    pixels = photo(60, 90)
    row = written(pixels, tmp_path / "photo.png")
    assert read(InputReader(30), row).original is None
    found = read(InputReader(30, max_side_px=90), row)
    assert found.pixels.shape == (20, 30, 3)
    assert found.original is not None
    np.testing.assert_array_equal(found.original, pixels)


def test_a_key_bounds_the_decoded_image_and_never_enlarges_it(tmp_path: Path) -> None:
    pixels = photo(60, 90)
    row = written(pixels, tmp_path / "photo.png")
    expected = np.asarray(Image.fromarray(pixels).resize((45, 30), Image.Resampling.BILINEAR))
    found = read(InputReader(30, max_side_px=45), row).original
    assert found is not None
    np.testing.assert_array_equal(found, expected)
    larger = read(InputReader(30, max_side_px=900), row).original
    assert larger is not None
    assert larger.shape == (60, 90, 3)


def test_sed_sees_the_file_as_pillow_resizes_it(
    sed_checkpoint: Path, vocabulary: BuildVocabulary
) -> None:
    """Official: short side 640 by Pillow, stretched to 768, scores resized to the image."""
    classes = vocabulary(cat=["cat"], dog=["dog"], sky=["sky"])
    keys = {"model": f"local-dir:{sed_checkpoint.parent}", "weights": str(sed_checkpoint)}
    labeler = Sed(Sed.Config.model_validate({**keys, "input_px": 96}), classes)
    labeler.load(CPU)
    pixels = photo(97, 131)
    # 96 is an eighth of 768: the short side becomes 80.
    seen = Image.fromarray(pixels).resize((108, 80), Image.Resampling.BILINEAR)
    square = torch.from_numpy(np.array(seen)).permute(2, 0, 1)[None].float()
    square = F.interpolate(square, (96, 96), mode="bilinear")[0]
    mean = torch.tensor([122.7709383, 116.7460125, 104.09373615])[:, None, None]
    deviation = torch.tensor([68.5005327, 66.6321579, 70.3231630])[:, None, None]
    scores = labeler._network((square - mean) / deviation, labeler._queries)
    expected = F.interpolate(scores[None], (36, 48), mode="bilinear")[0]
    canvas = np.zeros((36, 48, 3), np.uint8)
    labels = labeler(batch_of([LabelerInput(canvas, original=pixels)], 48))
    torch.testing.assert_close(labels.confidence[0, :36], expected.amax(0), atol=1e-5, rtol=1e-4)
    agree = (labels.mask[0, :36] == expected.argmax(0)).float().mean()
    assert agree > 0.999


def test_a_segmenter_predicts_the_image_as_evaluate_does(
    segmenter: Callable[..., Path], vocabulary: BuildVocabulary
) -> None:
    classes = vocabulary(**{f"class {number}": None for number in range(20)})
    labeler = Segmenter(Segmenter.Config.model_validate({"weights": segmenter(classes)}), classes)
    labeler.load(CPU)
    pixels = photo(8, 12).repeat(8, 0).repeat(8, 1)
    evaluated = labeler._predictor.predict(pixels)
    labels = labeler(batch_of([LabelerInput(pixels, original=pixels)], 96))
    assert np.array_equal(labels.mask[0, :64].numpy(), evaluated)
    small = labeler(batch_of([LabelerInput(np.zeros((32, 48, 3), np.uint8), original=pixels)], 48))
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    _, whole = labeler._predictor.label(image)
    assert len(torch.unique(small.mask[0, :32])) > 1
    assert small.confidence[0, :32].mean() == pytest.approx(float(whole.mean()), abs=0.05)
    halved, _ = labeler._predictor.label(image, (32, 48))
    assert torch.equal(small.mask[0, :32], halved)


def test_crops_of_masks_are_cut_from_the_decoded_image(
    clip_folder: Callable[[str], Path], vocabulary: BuildVocabulary
) -> None:
    """Masks are as large as the canvas; pixels of the crop come from the file."""
    model = f"local-dir:{clip_folder('vit')}"
    keys = {"model": model, "window_px": 16, "stride_px": 16, "classify": "crop", "sam_share": 1}
    labeler = SamClip(SamClip.Config.model_validate(keys), vocabulary(cat=["cat"], dog=["dog"]))
    labeler.load(CPU)
    pixels, mask = photo(64, 64), torch.zeros(1, 16, 16, dtype=torch.bool)
    mask[0, 2:6, 4:12] = True
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    found = labeler.crop_probabilities(image, mask)
    fine = mask.repeat_interleave(4, 1).repeat_interleave(4, 2)
    torch.testing.assert_close(found, labeler.crop_probabilities(image, fine))
    canvas = np.asarray(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BILINEAR))
    encoded = coco.encode(np.asfortranarray(mask[0].numpy().astype(np.uint8)))["counts"].decode()
    proposals = Proposals((16, 16), (encoded,), (1.0,), (1.0,))
    item = LabelerInput(canvas, proposals, original=pixels)
    labels = labeler(batch_of([item], 16))
    inside = mask[0]
    expected = found[0].amax()
    torch.testing.assert_close(labels.confidence[0][inside], expected.expand(int(inside.sum())))


RESIZERS: list[tuple[type[Labeler], dict[str, Any], bool]] = [
    (DenseClip, {"window_px": 16, "stride_px": 16}, False),
    (DenseClip, {"window_px": 16, "stride_px": 16, "short_side_px": 16}, True),
    (SamClip, {"window_px": 16, "stride_px": 16}, False),
    (SamClip, {"window_px": 16, "stride_px": 16, "classify": "features"}, False),
    (SamClip, {"window_px": 16, "stride_px": 16, "classify": "crop"}, True),
]


@pytest.mark.parametrize(("component", "keys", "resizes"), RESIZERS)
def test_whoever_resizes_images_asks_for_them_as_decoded(
    component: type[Labeler], keys: dict[str, Any], resizes: bool, vocabulary: BuildVocabulary
) -> None:
    config = component.Config.model_validate({"model": "sandbox", **keys})
    assert component(config, vocabulary(cat=None)).resizes == resizes


def test_a_run_labels_the_decoded_image_and_a_new_bound_labels_it_again(
    tiny: dict[str, Any],
    write_config: Callable[..., Path],
    call: Callable[..., Any],
    clip_folder: Callable[[str], Path],
    vocabulary: BuildVocabulary,
    tmp_path: Path,
) -> None:
    for path in (Path(tiny["data"]) / "ood/images").iterdir():
        Image.fromarray(photo(90, 120)).save(path)
    own = {"model": f"local-dir:{clip_folder('vit')}", "window_px": 40, "stride_px": 40}
    resizing = {**own, "short_side_px": 40}
    labelers = {
        "own": {"name": "dense_clip", **own},
        "resizing": {"name": "dense_clip", **resizing},
    }
    config = write_config({**tiny, "pseudolabel": {"size_px": 32, "labelers": labelers}})
    call("run", config, code=0)
    folder = tmp_path / "workspace"
    images = pd.read_parquet(folder / "manifests/tiny/images").set_index("row")
    labels = pd.read_parquet(folder / "manifests/tiny/pseudo_labels/labeler=resizing")
    labels = labels[images.loc[labels["row"], "role"].to_numpy() == "ood"]
    labeler = DenseClip(DenseClip.Config.model_validate(resizing), Vocabulary(**VOCABULARY))
    labeler.load(CPU)
    canvas = np.zeros((24, 32, 3), np.uint8)
    expected = labeler(batch_of([LabelerInput(canvas, original=photo(90, 120))], 32))
    for row in labels.to_dict("records"):
        found = zarr.open_group(folder / row["store"], mode="r")["mask"][row["row"]]
        assert np.array_equal(np.asarray(found), expected.mask[0].numpy())
    stale = call("run --dry-run", config, "pseudolabel.max_side_px=64", code=0)
    assert "max_side_px 2560 -> 64" in stale.stderr + stale.stdout
    assert "labelers.own" not in stale.stderr + stale.stdout
    assert "own shard" not in stale.stderr + stale.stdout
