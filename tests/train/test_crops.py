from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from pipeline.config.class_entry import ClassEntry
from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import DataError
from pipeline.records.label_reader import StoredLabel
from pipeline.records.label_store import LabelStore
from stages.models.segmenters.normalization import normalize
from stages.train.config import VariantConfig
from stages.train.data.batch import SECOND_DRAW, CropBatch
from stages.train.data.colors import lightness
from stages.train.data.crops import Crops, TrainImage
from stages.train.distributed import local_rows
from tests.train.crop_batches import assert_same, batches, colors_of, reds, tensors_of

Bytes = npt.NDArray[np.uint8]


Draw = Callable[[Bytes], str]


COLORS = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250]], np.uint8)
"""A colour a class, so that pixels tell what their label must be."""


CONFIDENCES = np.array([51, 102, 255], np.uint8)
"""A confidence a class, likewise."""


LABEL_SIZES_PX = {"sharp": 64, "coarse": 32}
"""Two labelers. The first names each pixel's colour, the second the colour after it."""


HEIGHT, WIDTH, BLOCK_PX = 64, 48, 8


TENS = {"0": "class 0", "10": "class 1", "20": "class 2"}


VOCABULARY = Vocabulary(
    name="colours",
    classes=tuple(ClassEntry(name=f"class {i}", color="#000000") for i in range(len(COLORS))),
    label_schemes={"tens": TENS},
)


def blocks(seed: int, pixels_per_block: int = BLOCK_PX) -> Bytes:
    """Class ids in random square blocks, (64, 48) uint8 unless blocks are smaller."""
    rng = np.random.default_rng(seed)
    shape = (HEIGHT // BLOCK_PX, WIDTH // BLOCK_PX)
    ids = rng.integers(0, len(COLORS), shape, dtype=np.uint8)
    return ids.repeat(pixels_per_block, 0).repeat(pixels_per_block, 1)


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Saves (H, W, 3) or (H, W) pixels as the next image file."""

    def save(pixels: Bytes) -> str:
        path = tmp_path / f"{len(list(tmp_path.glob('*.png'))):03d}.png"
        Image.fromarray(pixels).save(path)
        return str(path)

    return save


@pytest.fixture
def labeled(draw: Draw) -> list[TrainImage]:
    masks = [blocks(seed) for seed in (10, 11)]
    return [
        TrainImage(draw(COLORS[mask]), mask_uri=draw(10 * mask), label_scheme="tens")
        for mask in masks
    ]


@pytest.fixture
def stored(draw: Draw, tmp_path: Path) -> list[TrainImage]:
    """Four images in two shards, with stored labels of two labelers."""
    images = [TrainImage(draw(COLORS[blocks(row)]), stored={}) for row in range(4)]
    for offset, (name, size_px) in enumerate(LABEL_SIZES_PX.items()):
        store = LabelStore(tmp_path / "labels.zarr" / name, shard_size=2, size_px=size_px)
        store.grow(2)
        block_px = size_px * BLOCK_PX // HEIGHT
        size = (size_px, size_px * WIDTH // HEIGHT)
        for shard in range(2):
            rows = [2 * shard, 2 * shard + 1]
            masks = np.full((2, size_px, size_px), 255, np.uint8)
            confidences = np.zeros((2, size_px // 4, size_px // 4), np.uint8)
            for index, row in enumerate(rows):
                mask = (blocks(row, block_px) + np.uint8(offset)) % len(COLORS)
                masks[index, :, : size[1]] = mask
                confidences[index, :, : size[1] // 4] = CONFIDENCES[mask[::4, ::4]]
            store.write(shard, rows, masks, confidences)
        images = [
            replace(image, stored={**image.stored, name: StoredLabel(store.path, row, size)})
            for row, image in enumerate(images)
        ]
    return images


@pytest.fixture
def drawn(
    labeled: list[TrainImage], stored: list[TrainImage], variant: Callable[..., VariantConfig]
) -> Crops:
    others = {"unlabeled": stored, "ood": stored}
    return Crops(labeled, others, variant(batch_size=2, crop_px=32), VOCABULARY, seed=3)


@pytest.fixture
def counted(
    draw: Draw, labeled: list[TrainImage], variant: Callable[..., VariantConfig]
) -> Callable[..., Crops]:
    """Crops of unlabeled images of one colour each, whose red channel counts them."""

    def build(count: int, batch_size: int, seed: int = 0) -> Crops:
        images = [TrainImage(draw(np.full((20, 24, 3), red, np.uint8))) for red in range(count)]
        config = variant(batch_size=batch_size, crop_px=16, scale=[1.0, 1.0])
        return Crops(labeled, {"unlabeled": images}, config, VOCABULARY, seed)

    return build


def assert_labels_follow_colors(part: CropBatch) -> None:
    """Wherever a colour is not blended with its neighbours."""
    seen = colors_of(part.weak)
    checked = 0
    for class_id, color in enumerate(COLORS):
        here = (seen == torch.tensor(color)).all(-1) & part.valid
        checked += int(here.sum())
        for offset, name in enumerate(LABEL_SIZES_PX):
            expected = (class_id + offset) % len(COLORS)
            confidence = part.stored[name].confidence[here]
            assert (part.stored[name].mask[here] == expected).all()
            assert torch.equal(confidence, torch.full_like(confidence, CONFIDENCES[expected] / 255))
    assert checked > 0.3 * int(part.valid.sum())


def test_the_crops_are_the_same_for_any_number_of_workers(drawn: Crops) -> None:
    assert_same(batches(drawn, range(5), workers=1), batches(drawn, range(5), workers=3))


def test_the_crops_are_the_same_when_started_in_the_middle(drawn: Crops) -> None:
    assert_same(batches(drawn, range(5))[3:], batches(drawn, range(3, 5)))


def test_the_shares_of_two_processes_make_up_the_whole_batch(drawn: Crops) -> None:
    drawn = replace(drawn, config=drawn.config.model_copy(update={"batch_size": 4}))
    shares = [local_rows(4, rank, 2) for rank in range(2)]
    order = torch.tensor([row for share in shares for row in share]).argsort()
    whole = batches(drawn, range(3))
    parts = [batches(replace(drawn, rows=share), range(3)) for share in shares]
    for one, *two in zip(whole, *parts, strict=True):
        joined = (torch.cat(tensors)[order] for tensors in zip(*map(tensors_of, two), strict=True))
        assert all(map(torch.equal, joined, tensors_of(one)))
        ids = {key: [*two[0].image_ids[key], *two[1].image_ids[key]] for key in one.image_ids}
        assert one.image_ids == {key: [names[i] for i in order] for key, names in ids.items()}


def test_a_batch_says_whose_crops_it_holds(counted: Callable[..., Crops]) -> None:
    crops = counted(6, batch_size=2)
    reds_of = {image.uri: red for red, image in enumerate(crops.others["unlabeled"])}
    drawn_batches = batches(crops, range(3))
    for key in ("unlabeled", SECOND_DRAW):
        printed = [reds_of[name] for batch in drawn_batches for name in batch.image_ids[key]]
        assert printed == reds(drawn_batches, key)
    labeled = sorted(image.uri for image in crops.labeled)
    assert sorted(drawn_batches[0].image_ids["labeled"]) == labeled


def test_another_seed_or_step_draws_other_crops(drawn: Crops) -> None:
    (first, second), (other, _) = (
        batches(crops, range(2)) for crops in (drawn, replace(drawn, seed=4))
    )
    for batch in (second, other):
        assert not torch.equal(batch.labeled.images, first.labeled.images)
        assert not torch.equal(batch.crops["ood"].weak, first.crops["ood"].weak)


def test_every_image_comes_once_an_epoch_in_another_order_each(
    counted: Callable[..., Crops],
) -> None:
    seen = reds(batches(counted(6, batch_size=2), range(6)))
    assert sorted(seen[:6]) == sorted(seen[6:]) == list(range(6))
    assert seen[:6] != seen[6:]


def test_epochs_continue_where_a_batch_spans_two(counted: Callable[..., Crops]) -> None:
    seen = reds(batches(counted(3, batch_size=4), range(3)))
    assert [sorted(seen[i : i + 3]) for i in (0, 3, 6, 9)] == [[0, 1, 2]] * 4


def test_the_second_draw_is_of_the_same_images_in_another_order(
    counted: Callable[..., Crops],
) -> None:
    (seen, mixed) = (
        reds(batches(counted(6, batch_size=2), range(3)), key) for key in ("unlabeled", SECOND_DRAW)
    )
    assert sorted(mixed) == list(range(6))
    assert seen != mixed


def test_stored_labels_move_with_their_images(drawn: Crops) -> None:
    for batch in batches(drawn, range(10)):
        assert batch.roles == ("unlabeled", "ood")
        assert batch.crops.keys() == {"unlabeled", "ood", SECOND_DRAW}
        for part in batch.crops.values():
            assert_labels_follow_colors(part)


def test_hand_made_labels_move_with_their_images(drawn: Crops) -> None:
    for batch in batches(drawn, range(10)):
        seen = colors_of(batch.labeled.images)
        assert batch.labeled.mask.dtype == torch.int64
        for class_id, color in enumerate(COLORS):
            here = (seen == torch.tensor(color)).all(-1)
            assert here.any()
            assert (batch.labeled.mask[here] == class_id).all()


def test_padding_is_invalid_ignored_and_of_no_confidence(drawn: Crops) -> None:
    black = normalize(torch.zeros(3, 1, 1))
    padded_px = 0
    for batch in batches(drawn, range(8)):
        for part in batch.crops.values():
            padding = ~part.valid
            padded_px += int(padding.sum())
            assert torch.equal(padding, (part.weak == black).all(1))
            for labels in part.stored.values():
                assert (labels.mask[padding] == 255).all()
                assert (labels.confidence[padding] == 0).all()
        empty = (batch.labeled.images == black).all(1)
        assert torch.equal(batch.labeled.mask == 255, empty)
    assert padded_px > 0


def test_ignored_pixels_have_no_confidence_but_stay_valid(
    drawn: Crops, draw: Draw, tmp_path: Path
) -> None:
    store = LabelStore(tmp_path / "doubtful.zarr" / "a", shard_size=1, size_px=64)
    store.grow(1)
    store.write(0, [0], np.full((1, 64, 64), 255, np.uint8), np.full((1, 16, 16), 9, np.uint8))
    image = TrainImage(draw(COLORS[blocks(0)]), stored={"a": StoredLabel(store.path, 0, (64, 48))})
    (batch,) = batches(replace(drawn, others={"ood": [image]}), range(1))
    part = batch.crops["ood"]
    assert part.valid.any()
    assert (part.stored["a"].confidence == 0).all()


def test_strong_views_are_other_colours_of_the_same_crop(drawn: Crops, draw: Draw) -> None:
    greys = np.array([0, 120, 240], np.uint8)[:, None].repeat(3, 1)
    images = [TrainImage(draw(greys[blocks(seed)])) for seed in range(4)]
    for batch in batches(replace(drawn, others={"unlabeled": images}), range(4)):
        part = batch.crops["unlabeled"]
        first, second = (batch.strong("unlabeled", number) for number in range(2))
        assert torch.equal(first, batch.strong("unlabeled", 0))
        assert not torch.equal(first, second)
        for weak, *strong in zip(part.weak, first, second, strict=True):
            grey = [lightness(view[None]).flatten() for view in (weak, *strong)]
            assert torch.corrcoef(torch.stack(grey))[0].min() > 0.5


def test_there_is_a_second_draw_only_for_perturbations_that_need_one(
    drawn: Crops, variant: Callable[..., VariantConfig]
) -> None:
    config = variant(perturbation="classmix", batch_size=2, crop_px=32)
    (batch,) = batches(replace(drawn, config=config), range(1))
    assert batch.crops.keys() == {"unlabeled", "ood"}


def test_without_roles_only_labeled_crops_are_drawn(drawn: Crops) -> None:
    (batch,) = batches(replace(drawn, others={}), range(1))
    assert not batch.crops
    assert batch.labeled.images.shape == (2, 3, 32, 32)


@pytest.mark.parametrize("kind", ["image", "mask"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"no image")])
def test_a_file_that_went_bad_is_named(
    drawn: Crops, kind: str, damage: Callable[[Path], object]
) -> None:
    uri = drawn.labeled[0].uri if kind == "image" else drawn.labeled[0].mask_uri
    assert uri is not None
    damage(Path(uri))
    with pytest.raises(DataError, match=rf"{uri}: .*run `maskmill run ingest`"):
        batches(drawn, range(4), workers=2)
