"""What a notebook imports: `maskmill.open` and `maskmill.load`."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import maskmill as api
from maskmill.run import Run
from pipeline.errors import DataError
from tests.predict.conftest import picture, write_model


@pytest.fixture
def config(tiny: dict[str, Any], write_config: Callable[..., Path]) -> Path:
    """Labels web images by their own label files, with a labeler of each kind of size."""
    web = tiny["ingest"]["sources"]["labeled"]["source"]
    tiny["ingest"]["sources"]["more"] = {"role": "ood", "source": dict(web)}
    del tiny["ingest"]["sources"]["labeled"]
    labelers = {"files": {"name": "files"}, "again": {"name": "files"}}
    tiny["pseudolabel"] = {"size_px": 32, "labelers": labelers}
    return write_config(tiny)


@pytest.fixture
def run(config: Path, maskmill: Callable[..., CompletedProcess[str]]) -> Run:
    assert maskmill("run", "pseudolabel", "--config", config).returncode == 0
    return api.open(config)


def test_tables_are_what_pandas_reads(run: Run, tiny: dict[str, Any]) -> None:
    folder = Path(tiny["workspace"], "manifests/tiny")
    for name in ("images", "pseudo_labels"):
        pd.testing.assert_frame_equal(run.table(name), pd.read_parquet(folder / name))
    assert run.table("metrics").empty
    assert "value" in run.table("metrics").columns
    with pytest.raises(DataError, match="use one of: scenes, images, "):
        run.table("labels")


def test_a_label_has_the_size_of_its_image(run: Run) -> None:
    labels = run.table("pseudo_labels")
    row = labels[labels.status == "ok"].iloc[0]
    image = run.table().set_index("image_id").loc[row.image_id]
    found = run.labels(row.image_id, "files")
    assert found.mask.shape == found.confidence.shape == (image.height, image.width)
    shares = dict(zip(row.class_ids, row.class_fractions, strict=True))
    for class_id, share in shares.items():
        assert (found.mask == class_id).mean() == pytest.approx(share, abs=0.1)
    by_path = run.labels(image.uri, "again")
    assert np.array_equal(by_path.mask, found.mask)


def test_what_is_not_there_is_named(run: Run) -> None:
    labels = run.table("pseudo_labels")
    image_id = labels[labels.status == "ok"].image_id.iloc[0]
    for labeler, text in (
        (None, "it has labels of several labelers; name one of: again, files"),
        ("sam", "no such label; name one of: again, files"),
    ):
        with pytest.raises(DataError, match=text):
            run.labels(image_id, labeler)
    with pytest.raises(DataError, match="no image '0000'"):
        run.labels("0000")


def test_a_figure_shows_image_truth_and_labels(run: Run) -> None:
    labels = run.table("pseudo_labels")
    image_id = labels[labels.status == "ok"].image_id.iloc[0]
    image = run.table().set_index("image_id").loc[image_id]
    assert run.figure(image_id).size == (6 * image.width + 5 * 4, image.height)


def test_the_status_is_a_frame(run: Run) -> None:
    assert run.status().loc["pseudolabel", "state"] == "fresh"
    assert run.classes[0] == "background"


def test_a_model_predicts_files_pictures_and_arrays_alike(tmp_path: Path) -> None:
    model = api.load(write_model(tmp_path / "model.safetensors"), "cpu")
    image = picture(3)
    image.save(tmp_path / "image.png")
    found = [
        model.predict(each)
        for each in (tmp_path / "image.png", str(tmp_path / "image.png"), image, np.array(image))
    ]
    for each in found:
        assert each.mask.shape == each.confidence.shape == (30, 40)
        assert np.array_equal(each.mask, found[0].mask)
        assert each.mask.max() < len(model.classes)
        assert each.overlay.size == (40, 30)
    assert 0 < found[0].confidence.min() <= found[0].confidence.max() <= 1


@pytest.mark.parametrize(
    "array", [np.zeros((3, 4)), np.zeros((3, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_an_array_that_is_no_image_is_refused(array: Any, tmp_path: Path) -> None:
    model = api.load(write_model(tmp_path / "model.safetensors"), "cpu")
    with pytest.raises(DataError, match="uint8 RGB"):
        model.predict(array)
    with pytest.raises(DataError):
        model.predict(tmp_path / "missing.png")
    Image.new("L", (5, 4)).save(tmp_path / "grey.png")
    assert model.predict(tmp_path / "grey.png").mask.shape == (4, 5)
