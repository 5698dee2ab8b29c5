from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import config as config_file
from pipeline.config import Config
from pipeline.manifest import METRICS, write_part
from stages.evaluate.tables import read_tables
from stages.graph import GRAPH

Scores = dict[str, float]


@pytest.fixture
def config(values: dict[str, Any], write_config: Callable[..., Path]) -> Config:
    path = write_config(values)
    return config_file.load(path, {stage.name: stage.Config for stage in GRAPH})


@pytest.fixture
def record(manifests: Path) -> Callable[..., None]:
    """Writes scores into the metrics manifest: ``record("plain", val={"miou": 0.5})``."""

    def write(variant: str, **splits: Scores) -> None:
        rows = [
            {"run": "tiny", "variant": variant, "split": split, "name": name, "value": value}
            for split, scores in splits.items()
            for name, value in scores.items()
        ]
        path = manifests / "metrics" / f"part-evaluate-{variant}.parquet"
        write_part(path, METRICS.rows(rows), {}, {})

    return write


Record = Callable[..., None]


def test_without_scores_there_is_no_table(config: Config) -> None:
    assert read_tables(config) == []


def test_losses_of_training_are_no_scores(config: Config, record: Record) -> None:
    record("plain", train={"loss/total": 1.0})
    assert read_tables(config) == []


def test_variants_are_compared_in_the_order_of_the_config_under_their_titles(
    config: Config, record: Record
) -> None:
    record("web", val={"miou": 0.5}, test={"miou": 0.12345})
    record("plain", val={"miou": 0.25}, test={"miou": 1.0})
    first, *_ = read_tables(config)
    assert first.title == "mean IoU, %"
    assert first.header == ("training variant", "val mIoU", "test mIoU")
    assert first.rows == [("Labeled only", "25.0", "100.0"), ("web", "50.0", "12.3")]


def test_classes_are_compared_on_the_last_split(config: Config, record: Record) -> None:
    record("plain", val={"miou": 0.1, "iou/disc": 0.9}, test={"miou": 0.1, "iou/disc": 0.2})
    by_class = read_tables(config)[1]
    assert by_class.title == "IoU by class on test, %"
    assert by_class.header == ("class", "plain", "web")
    assert by_class.rows == [("background", "-", "-"), ("disc", "20.0", "-"), ("box", "-", "-")]


def test_a_split_nobody_was_scored_on_has_no_column(config: Config, record: Record) -> None:
    record("plain", val={"miou": 0.1})
    tables = read_tables(config)
    assert tables[0].header == ("training variant", "val mIoU")
    assert tables[0].rows == [("Labeled only", "10.0"), ("web", "-")]
    assert tables[1].title == "IoU by class on val, %"


def test_labelers_are_compared_on_the_labeled_images(config: Config, record: Record) -> None:
    record("clip", labeled={"miou": 0.3, "pixel_accuracy": 0.75})
    (table,) = read_tables(config)
    assert table.header == ("labeler", "mIoU", "pixels right")
    assert table.rows == [("clip", "30.0", "75.0")]


def test_what_the_config_no_longer_names_is_left_out(config: Config, record: Record) -> None:
    scores = {"miou": 0.5, "pixel_accuracy": 0.5}
    record("removed-variant", test=scores)
    record("removed-labeler", labeled=scores)
    assert read_tables(config) == []
