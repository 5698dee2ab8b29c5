from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import JsonValue

from pipeline.config.config_section import Facts
from pipeline.engine.stage import Stage, Unit
from pipeline.engine.staleness import inspect
from pipeline.engine.states import State
from pipeline.records import part_file, tables

FACTS: Facts = {"stage.version": 1, "stage.threshold": 0.5, "inputs.images": "00ff"}


class Planned(Stage[str]):
    """A stage of given units."""

    name = "planned"

    def __init__(self, units: Sequence[Unit[str]]) -> None:
        self.units = units

    def plan(self) -> Sequence[Unit[str]]:
        return self.units

    def run(self, units: Sequence[Unit[str]]) -> None:
        for unit in units:
            part_file.write_part(unit.part, tables.METRICS.rows([]), unit.facts, {})


def planned(folder: Path, count: int = 3, **facts: JsonValue) -> Planned:
    """Units with one fact changed by keyword: ``stage__threshold=0.6``."""
    now = {**FACTS, **{key.replace("__", "."): value for key, value in facts.items()}}
    names = [f"shard {number}" for number in range(count)]
    return Planned([Unit(n, folder / f"part-{n[6:]}.parquet", now, (folder / n,)) for n in names])


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """A folder with three finished units."""
    stage = planned(tmp_path)
    stage.run(stage.units)
    for unit in stage.units:
        unit.outputs[0].touch()
    return tmp_path


def test_what_was_never_done_is_missing(tmp_path: Path) -> None:
    state = inspect(planned(tmp_path))
    assert state.state is State.MISSING
    assert state.counts == {"fresh": 0, "stale": 0, "missing": 3}
    assert state.reasons == ["not done yet: 3 units"]
    assert len(state.unfinished) == 3


def test_what_is_done_is_fresh(done: Path) -> None:
    state = inspect(planned(done))
    assert state.state is State.FRESH
    assert state.counts == {"fresh": 3, "stale": 0, "missing": 0}
    assert state.reasons == []
    assert state.unfinished == []


def test_a_stage_that_waits_for_another_is_not_fresh(done: Path) -> None:
    state = inspect(planned(done), waits_for=["ingest"])
    assert state.state is State.STALE
    assert state.reasons == ["ingest is not fresh"]
    assert state.unfinished == []


def test_more_units_than_before_are_missing_and_make_the_stage_stale(done: Path) -> None:
    state = inspect(planned(done, count=4))
    assert state.state is State.STALE
    assert state.counts == {"fresh": 3, "stale": 0, "missing": 1}
    assert state.reasons == ["not done yet: shard 3"]


def test_a_part_whose_output_is_gone_is_missing(done: Path) -> None:
    (done / "shard 1").unlink()
    state = inspect(planned(done))
    assert state.counts == {"fresh": 2, "stale": 0, "missing": 1}
    assert state.reasons == [f"{done}/shard 1 is gone: shard 1"]
    assert [unit.name for unit in state.unfinished] == ["shard 1"]


LONG: list[JsonValue] = [f"class {number}" for number in range(50)]


@pytest.mark.parametrize(
    ("key", "before", "after", "reasons"),
    [
        ("stage.threshold", 0.5, 0.6, ["stage.threshold 0.5 -> 0.6"]),
        ("stage.version", 1, 2, ["stage.version 1 -> 2"]),
        ("stage.new", None, "a", ["stage.new none -> a"]),
        ("stage.flag", True, None, ["stage.flag true -> none"]),
        ("inputs.ood images", "0f", "f0", ["ood images changed"]),
        ("s.classes", ["a", "b"], ["a", "c"], ["s.classes [..., 'b'] -> [..., 'c']"]),
        ("s.classes", ["a", "b"], ["b", "a"], ["s.classes ['a', 'b'] -> ['b', 'a']"]),
        ("s.classes", LONG, [*LONG, "new"], ["s.classes [..., ] -> [..., 'new']"]),
        (
            "s.scheme",
            {"0": 1, "7": 2, "9": 4},
            {"0": 1, "7": 3, "8": 4},
            ["s.scheme.7 2 -> 3", "s.scheme.8 none -> 4", "s.scheme.9 4 -> none"],
        ),
        ("s.text", "a" * 80, "b", [f"s.text {'a' * 57}... -> b"]),
        (
            "s.text",
            f"/{'a' * 80}/old.txt",
            f"/{'a' * 80}/new.txt",
            [f"s.text ...{'a' * 29}/old.txt -> ...{'a' * 29}/new.txt"],
        ),
    ],
)
def test_reasons_name_the_key_and_both_values(
    key: str, before: JsonValue, after: JsonValue, reasons: list[str], tmp_path: Path
) -> None:
    old = planned(tmp_path, 1, **({key: before} if before is not None else {}))
    old.run(old.units)
    state = inspect(planned(tmp_path, 1, **({key: after} if after is not None else {})))
    assert state.state is State.STALE
    assert state.reasons == [f"{reason}: shard 0" for reason in reasons]


def test_a_reason_is_reported_once_with_the_number_it_touches(done: Path) -> None:
    state = inspect(planned(done, stage__threshold=0.6))
    assert state.reasons == ["stage.threshold 0.5 -> 0.6: 3 units"]
    assert state.counts == {"fresh": 0, "stale": 3, "missing": 0}


@pytest.mark.parametrize(
    ("shards", "others", "text"),
    [
        ([4], [], "shard 4"),
        ([0, 3], [], "shards 0, 3"),
        ([0, 3], ["card"], "shards 0, 3 and card"),
        ([3], ["card", "other card"], "shard 3 and 2 units"),
        (range(9), ["card"], "9 shards and card"),
        ([], ["card"], "card"),
        ([], ["card", "other card"], "2 units"),
    ],
)
def test_units_that_a_reason_touches_are_named(
    tmp_path: Path, shards: Sequence[int], others: Sequence[str], text: str
) -> None:
    units = [Unit(f"shard {n}", tmp_path / f"part-{n}.parquet", FACTS, shard=n) for n in shards]
    units += [Unit(name, tmp_path / f"part-{name}.parquet", FACTS) for name in others]
    assert inspect(Planned(units)).reasons == [f"not done yet: {text}"]


def test_of_very_many_reasons_the_first_are_reported(tmp_path: Path) -> None:
    stage = planned(tmp_path, count=30)  # their outputs are never made
    stage.run(stage.units)
    reasons = inspect(stage).reasons
    assert len(reasons) == 21
    assert reasons[19:] == [f"{tmp_path}/shard 19 is gone: shard 19", "10 more reasons"]


def test_a_damaged_part_is_stale(done: Path) -> None:
    (done / "part-1.parquet").write_bytes(b"PAR1")
    state = inspect(planned(done))
    assert state.counts == {"fresh": 2, "stale": 1, "missing": 0}
    assert state.reasons == [f"{done}/part-1.parquet: damaged manifest part: shard 1"]
