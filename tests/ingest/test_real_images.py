import json
import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from pipeline.images.label_files import decode_labels
from tests.repository import ROOT

IMAGES = Path(os.environ.get("MASKMILL_DATA") or "../shared/data")
Ingest = Callable[..., CompletedProcess[str]]
Rows = Callable[[], pd.DataFrame]

pytestmark = pytest.mark.skipif(
    not (IMAGES / "camvid").is_dir(), reason=f"no real images in {IMAGES}; see MASKMILL_DATA"
)


def use(tiny: dict[str, Any], folder: str, scheme: str, ids: Path) -> None:
    source = {"name": "folder", "images": f"{folder}/images", "masks": f"{folder}/masks"}
    tiny["data"] = str(IMAGES.resolve())
    tiny["ingest"]["sources"] = {
        "real": {
            "role": "labeled",
            "label_scheme": scheme,
            "source": {**source, "ids": str(ids)},
        }
    }


def test_camvid_maps_by_the_project_s_own_vocabulary(
    ingest: Ingest, rows: Rows, tiny: dict[str, Any], tmp_path: Path
) -> None:
    stems = sorted(path.stem for path in (IMAGES / "camvid/masks").iterdir())[::39]
    (tmp_path / "ids.txt").write_text("\n".join(stems))
    use(tiny, "camvid", "camvid", tmp_path / "ids.txt")
    vocabulary = yaml.safe_load((ROOT / "configs/vocabularies/camvid.yaml").read_text())
    done = ingest(**{"background": None, **vocabulary})
    assert done.returncode == 0, done.stderr
    table = rows()
    assert table.mask_uri.map(lambda uri: Path(uri).stem).tolist() == stems
    assert set(table.status) == {"ok"}
    for uri, class_ids in zip(table.mask_uri, table.mask_class_ids, strict=True):
        with Image.open(uri) as mask:
            found = np.unique(np.asarray(mask))
        assert list(class_ids) == [value for value in found if value != 11]
    assert {11, *np.concatenate(table.mask_class_ids.tolist())} == set(range(12))


def test_coco_ids_with_gaps_map(
    ingest: Ingest, rows: Rows, tiny: dict[str, Any], tmp_path: Path
) -> None:
    stems = sorted(path.stem for path in (IMAGES / "coco/masks").iterdir())[::5]
    (tmp_path / "ids.txt").write_text("\n".join(stems))
    use(tiny, "coco", "coco", tmp_path / "ids.txt")
    # person and car of the panoptic ids; 0 = nobody labeled it
    scheme = {0: "ignore", 1: "disc", 3: "box", "*": "background"}
    done = ingest(label_schemes={"coco": scheme})
    assert done.returncode == 0, done.stderr
    table = rows()
    assert len(table) == len(stems) == 20
    expected = {1: 1, 3: 2, 0: 255}
    for uri, class_ids in zip(table.mask_uri, table.mask_class_ids, strict=True):
        found = np.unique(decode_labels(Path(uri).read_bytes()))
        assert set(class_ids) == {expected.get(int(value), 0) for value in found} - {255}
    assert set(np.concatenate(table.mask_class_ids.tolist())) == {0, 1, 2}


def test_an_id_that_the_scheme_lacks_is_an_error(
    ingest: Ingest, tiny: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "ids.txt").write_text(min((IMAGES / "camvid/masks").iterdir()).stem)
    use(tiny, "camvid", "camvid", tmp_path / "ids.txt")
    done = ingest(label_schemes={"camvid": {0: "disc", 1: "box"}})
    assert done.returncode == 1
    assert "class id 2, 3, " in done.stderr
    assert "is not in the vocabulary; add it to label_schemes.camvid" in done.stderr


def test_the_lists_of_the_project_name_images_that_are_there(
    maskmill: Ingest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MASKMILL_DATA", str(IMAGES))
    config = ("--config", ROOT / "configs/camvid.yaml", "--set", f"workspace={tmp_path}")
    done = maskmill("status", "--json", *config)
    assert done.returncode == 0, done.stderr
    ingest = json.loads(done.stdout)["stages"][0]
    assert ingest["name"] == "ingest"
    assert ingest["shards"]["missing"] == 10
