from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from pipeline.config import config as config_file
from pipeline.config.config import Config
from pipeline.records.part_file import write_part
from pipeline.records.tables import METRICS
from stages.evaluate.output import score_parts, score_tables
from stages.evaluate.score_key import ScoreKey
from stages.graph import GRAPH
from tests.finished_run import write_files

Scores = dict[str, float | None]
Record = Callable[..., None]
Load = Callable[[dict[str, Any]], Config]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Config]:
    """Reads a config of a run that has not begun."""
    monkeypatch.chdir(tmp_path)

    def load(values: dict[str, Any]) -> Config:
        path = write_files(tmp_path, values, {})
        return config_file.load(path, {stage.name: stage.Config for stage in GRAPH})

    return load


@pytest.fixture
def config(values: dict[str, Any], load: Load) -> Config:
    return load(values)


@pytest.fixture
def record(config: Config) -> Record:
    """Writes scores into the metrics manifest: ``record("plain", val={"miou": 0.5})``."""

    def write(name: str, seed: int | None = 0, **splits: Scores) -> None:
        kind: Literal["labeler", "training"] = "labeler" if seed is None else "training"
        place = {"run": "tiny", "kind": kind, "variant": name, "seed": seed}
        for split, scores in splits.items():
            path, _ = score_parts(config, ScoreKey(kind, name, seed, split))
            rows = [{**place, "split": split, "name": n, "value": v} for n, v in scores.items()]
            write_part(path, METRICS.rows(rows), {}, {})

    return write


def test_without_scores_there_is_no_table(config: Config) -> None:
    assert score_tables(config) == []


def test_losses_of_training_are_no_scores(config: Config) -> None:
    place = {"run": "tiny", "kind": "training", "variant": "plain", "seed": 0, "split": "train"}
    rows = METRICS.rows([{**place, "name": "loss/total", "value": 1.0, "step": 1}])
    write_part(config.manifests / "metrics/part-train-plain-seed-0.parquet", rows, {}, {})
    assert score_tables(config) == []


def test_variants_are_compared_in_the_order_of_the_config_under_their_titles(
    config: Config, record: Record
) -> None:
    record("web", val={"miou": 0.5}, test={"miou": 0.12345})
    record("plain", val={"miou": 0.25}, test={"miou": 1.0})
    first, *_ = score_tables(config)
    assert first.title == "mean IoU, %; gain over Labeled only on test"
    assert first.header == ("training variant", "val mIoU", "test mIoU", "gain")
    assert first.rows == [("Labeled only", "25.0", "100.0", "-"), ("web", "50.0", "12.3", "-87.7")]


def test_several_seeds_are_a_mean_and_its_spread(
    values: dict[str, Any], load: Load, record: Record
) -> None:
    """Gains are differences at equal seeds: here both gain the same, though the scores differ."""
    values["train"]["seeds"] = [0, 1]
    config = load(values)
    for seed, plain in ((0, 0.25), (1, 0.35)):
        record("plain", seed, test={"miou": plain, "iou/disc": plain})
        record("web", seed, test={"miou": plain + 0.1})
    record("web", 2, test={"miou": 1.0})  # of a seed that the config no longer has
    record("web", None, test={"miou": 1.0})  # of a labeler
    first, by_class, *_ = score_tables(config)
    seeds = "mean ± sample standard deviation of 2 seeds"
    assert first.title == f"mean IoU, %, {seeds}; gain over Labeled only on test"
    assert first.rows == [
        ("Labeled only", "30.0 ± 7.1", "-"),
        ("web", "40.0 ± 7.1", "+10.0 ± 0.0"),
    ]
    assert by_class.title == "IoU by class on test, %, mean of 2 seeds"
    assert by_class.rows[1] == ("disc", "30.0", "-")


def test_variants_may_have_different_seeds(
    values: dict[str, Any], load: Load, record: Record
) -> None:
    values["train"]["variants"]["web"]["seeds"] = [1, 2, 3]
    config = load(values)
    record("plain", 0, test={"miou": 0.5})
    record("web", 2, test={"miou": 0.5})
    first, *_ = score_tables(config)
    assert "of 1 to 3 seeds; gain over Labeled only on test at equal seeds" in first.title
    assert first.rows == [("Labeled only", "50.0", "-"), ("web", "50.0", "-")]
    record("plain", 1, test={"miou": 0.1})  # of a seed that the config has not
    assert score_tables(config)[0].rows == first.rows


def test_gains_are_of_the_seeds_that_both_have(
    values: dict[str, Any], load: Load, record: Record
) -> None:
    values["train"]["variants"]["web"]["seeds"] = [0, 1]
    config = load(values)
    record("plain", 0, test={"miou": 0.5})
    record("web", 0, test={"miou": 0.6})
    record("web", 1, test={"miou": 0.2})
    first, *_ = score_tables(config)
    assert first.title.endswith("; gain over Labeled only on test at equal seeds")
    assert first.rows == [("Labeled only", "50.0", "-"), ("web", "40.0 ± 28.3", "+10.0")]


def test_classes_are_compared_on_the_last_split(config: Config, record: Record) -> None:
    record("plain", val={"miou": 0.1, "iou/disc": 0.9}, test={"miou": 0.1, "iou/disc": 0.2})
    by_class = score_tables(config)[1]
    assert by_class.title == "IoU by class on test, %"
    assert by_class.header == ("class", "plain", "web")
    assert by_class.rows == [("background", "-", "-"), ("disc", "20.0", "-"), ("box", "-", "-")]


def test_the_best_epoch_stands_next_to_the_last(config: Config, record: Record) -> None:
    record("plain", val={"miou": 0.3, "best/miou": 0.4}, test={"miou": 0.2, "best/miou": 0.1})
    record("web", val={"miou": 0.5}, test={"miou": 0.5})
    first, *_ = score_tables(config)
    selection = "best = best epoch on val, which is selection on val"
    assert first.title == f"mean IoU, %; gain over Labeled only on test; {selection}"
    header = ("training variant", "val mIoU", "val best", "test mIoU", "test best", "gain")
    assert first.header == header
    assert first.rows == [
        ("Labeled only", "30.0", "40.0", "20.0", "10.0", "-"),
        ("web", "50.0", "-", "50.0", "-", "+30.0"),
    ]


def test_scores_on_val_during_a_training_are_not_the_result(config: Config, record: Record) -> None:
    record("plain", val={"miou": 0.25})
    place = {"run": "tiny", "kind": "training", "variant": "plain", "seed": 0, "split": "val"}
    rows = METRICS.rows([{**place, "name": "miou", "value": 0.75, "step": 1}])
    write_part(config.manifests / "metrics/part-train-plain-seed-0.parquet", rows, {}, {})
    assert score_tables(config)[0].rows[0] == ("Labeled only", "25.0", "-")


def test_other_scores_are_a_table_of_their_own(
    values: dict[str, Any], load: Load, record: Record
) -> None:
    values["train"]["seeds"] = [0, 1]
    config = load(values)
    for seed, boundary in ((0, 0.1), (1, 0.2)):
        scores = {"miou": 0.1, "nan_miou": 0.15, "boundary_miou": boundary, "pixel_accuracy": 0.9}
        record("plain", seed, val={name: 0.0 for name in scores}, test=scores)
    table = score_tables(config)[1]
    assert table.title == "other scores on test, %, mean of 2 seeds"
    header = ("mIoU of classes that occur", "boundary mIoU", "pixels right")
    assert table.header == ("training variant", *header)
    assert table.rows == [("Labeled only", "15.0", "15.0", "90.0"), ("web", "-", "-", "-")]


def test_a_split_nobody_was_scored_on_has_no_column(config: Config, record: Record) -> None:
    record("plain", val={"miou": 0.1})
    tables = score_tables(config)
    assert tables[0].header == ("training variant", "val mIoU", "gain")
    assert tables[0].rows == [("Labeled only", "10.0", "-"), ("web", "-", "-")]
    assert tables[1].title == "IoU by class on val, %"


def test_labelers_are_compared_by_the_images_they_labeled(config: Config, record: Record) -> None:
    scores = {"miou": 0.3, "pixel_accuracy": 0.75}
    record("clip", None, ood=scores, test={**scores, "miou": 0.2})
    (table,) = score_tables(config)
    assert table.header == ("labeler", "images", "mIoU", "pixels right")
    assert table.rows == [("clip", "ood", "30.0", "75.0"), ("clip", "test", "20.0", "75.0")]


def test_what_the_config_no_longer_names_is_left_out(config: Config, record: Record) -> None:
    scores = {"miou": 0.5, "pixel_accuracy": 0.5}
    record("removed-variant", test=scores)
    record("removed-labeler", None, test=scores)
    assert score_tables(config) == []
