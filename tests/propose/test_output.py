from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import StorageError
from pipeline.records.part_file import write_part
from pipeline.records.tables import PROPOSALS
from stages.propose.output import Proposals, proposals_part, read_proposals


def test_run_lengths_become_masks() -> None:
    """Runs [1, 3], [0, 4] and [0, 1, 3], which COCO writes as digits."""
    found = Proposals((2, 2), ("13", "04", "013"), (0.0,) * 3, (0.0,) * 3).masks()
    assert found.dtype == np.bool_
    assert found.tolist() == [
        [[False, True], [True, True]],
        [[True, True], [True, True]],
        [[True, False], [False, False]],
    ]


def test_no_masks_have_the_images_size_too() -> None:
    assert Proposals((3, 5), (), (), ()).masks().shape == (0, 3, 5)


def test_failed_images_are_left_out(tmp_path: Path) -> None:
    part = proposals_part(tmp_path, 7)
    masks = {"rle": ["04"], "area": [4], "bbox": [[0, 0, 1, 1]]}
    scores = {"predicted_iou": [0.5], "stability_score": [1.0]}
    good = {"row": 1, "image_id": "a", "height": 2, "width": 2, **masks, **scores, "status": "ok"}
    none: dict[str, list[object]] = {key: [] for key in (*masks, *scores)}
    write_part(part, PROPOSALS.rows([good, {"row": 2, **none, "status": "failed"}]), {}, {})
    assert part.name == "part-00007.parquet"
    assert read_proposals(part) == {(1, "a"): Proposals((2, 2), ("04",), (0.5,), (1.0,))}


def test_a_part_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    part = proposals_part(tmp_path, 0)
    with pytest.raises(StorageError) as missing:
        read_proposals(part)
    what = "no such manifest part; run again: what is missing is made"
    assert str(missing.value) == f"{part}: {what}"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"no Parquet")
    with pytest.raises(StorageError) as damaged:
        read_proposals(part)
    what = "damaged manifest part; make it again with: maskmill verify --rerun"
    assert str(damaged.value) == f"{part}: {what}"
