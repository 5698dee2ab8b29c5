"""Stored labels of crops that lie in several stores."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipeline.config.class_entry import ClassEntry
from pipeline.config.vocabulary import Vocabulary
from pipeline.records.label_reader import StoredLabel
from pipeline.records.label_store import LabelStore
from stages.train.config import VariantConfig
from stages.train.data.crops import Crops, TrainImage

SIDE_PX = 16
VOCABULARY = Vocabulary(
    name="greys", classes=tuple(ClassEntry(name=f"grey {i}", color="#000000") for i in range(8))
)


def test_the_label_of_an_image_comes_from_the_store_of_its_own_row(
    tmp_path: Path, variant: Callable[..., VariantConfig]
) -> None:
    """Labels of one labeler lie in several stores while its key is changed and changed back.

    The stores have equal rows with different labels; the grey of an image is its class.
    """
    images = []
    for number in range(8):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (SIDE_PX, SIDE_PX), (number, number, number)).save(path)
        group, row = tmp_path / f"store-{number % 2}", number // 2
        label = StoredLabel(group, row, (SIDE_PX, SIDE_PX))
        images.append(TrainImage(str(path), stored={"clip": label}))
    for odd in (0, 1):
        store = LabelStore(tmp_path / f"store-{odd}", shard_size=4, size_px=SIDE_PX)
        store.grow(1)
        classes = np.array([2 * row + odd for row in range(4)], np.uint8)
        masks = np.broadcast_to(classes[:, None, None], (4, SIDE_PX, SIDE_PX)).copy()
        confidences = np.full((4, SIDE_PX // 4, SIDE_PX // 4), 255, np.uint8)
        store.write(0, list(range(4)), masks, confidences)
    blank = tmp_path / "blank.png"
    Image.new("L", (SIDE_PX, SIDE_PX)).save(blank)
    labeled = [TrainImage(images[0].uri, mask_uri=str(blank))]
    config = variant(batch_size=4, crop_px=SIDE_PX, scale=[1.0, 1.0])
    crops = Crops(labeled, {"ood": images}, config, VOCABULARY, seed=0)
    seen = set()
    for batch in crops.batches(range(2), torch.device("cpu")):
        crop = batch.crops["ood"]
        greys = (crop.pixels[:, 0] * 255).round().long()
        assert torch.equal(crop.stored["clip"].mask[crop.valid], greys[crop.valid])
        seen |= set(greys[crop.valid].tolist())
    assert seen == {*range(8)}
