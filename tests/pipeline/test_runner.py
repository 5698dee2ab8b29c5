from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.config import load
from pipeline.config.config_section import Section
from pipeline.console import Console
from pipeline.engine.runner import Request, Runner
from pipeline.engine.stage import Context, Stage, Unit
from pipeline.errors import ConfigError, DataError
from pipeline.records import manifest, part_file, tables


class CountConfig(Section):
    count: int = 2
    factor: int = 1
    fails_at: int | None = None


@dataclass(frozen=True)
class NumberKey:
    number: int

    def __str__(self) -> str:
        return f"unit {self.number}"


class Count(Stage[NumberKey]):
    """Writes a row a unit."""

    name = "count"
    version = 1
    table = tables.METRICS
    Config = CountConfig

    def __init__(self, section: Section, context: Context) -> None:
        super().__init__(section, context)
        assert isinstance(section, CountConfig)
        self.section = section
        self.folder = context.config.manifests / self.name

    def plan(self) -> Sequence[Unit[NumberKey]]:
        facts = {**self.version_facts, f"{self.name}.factor": self.section.factor}
        return [
            Unit(NumberKey(number), self.folder / f"part-{number}.parquet", facts)
            for number in range(self.section.count)
        ]

    def run(self, units: Sequence[Unit[NumberKey]]) -> None:
        for unit in units:
            if unit.key.number == self.section.fails_at:
                raise DataError("no luck", where=unit.name, fix="try again")
            rows = tables.METRICS.rows([{"name": unit.name, "value": unit.key.number}])
            self.commit(unit, rows)

    def summarize(self) -> None:
        found = manifest.read(self.folder, tables.METRICS).num_rows
        self.context.console.line(f"{self.name}: {found} rows")


class Total(Count):
    """Adds up what `count` wrote; cannot plan before there is something."""

    name = "total"
    needs = ("count",)

    def plan(self) -> Sequence[Unit[NumberKey]]:
        rows = manifest.read(self.context.config.manifests / "count", tables.METRICS)
        if not rows.num_rows:
            raise DataError("nothing to add up", where="count", fix="run it")
        facts = {**self.version_facts, "inputs.rows": part_file.digest(rows.to_pylist())}
        return [Unit(NumberKey(0), self.folder / "part-0.parquet", facts)]


Build = Callable[..., Runner]


@pytest.fixture
def build(tiny: dict[str, Any], write_config: Callable[..., Path]) -> Build:
    """A runner of both stages: ``build(count={"factor": 2})``."""

    def build(**sections: dict[str, Any] | None) -> Runner:
        del tiny["ingest"]
        path = write_config({**tiny, **sections})
        tiny["ingest"] = {}
        config = load(path, {"count": CountConfig, "total": CountConfig})
        return Runner(config, (Count, Total), Console())

    return build


def test_without_names_all_sections_run_in_order(
    build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    build(total={}, count={}).run(Request())
    captured = capsys.readouterr()
    assert captured.out == "count: 2 rows\ntotal: 1 rows\n"
    notes = [line.partition(" in ")[0] for line in captured.err.splitlines()]
    assert notes == [
        "count: not done yet: 2 units",
        "count: done",
        "total: not done yet: unit 0",
        "total: done",
    ]


def test_a_second_run_does_nothing_and_says_so(
    build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = build(count={}, total={})
    runner.run(Request())
    parts = sorted(runner.config.manifests.rglob("*.parquet"))
    before = [path.stat().st_mtime_ns for path in parts]
    capsys.readouterr()
    build(count={}, total={}).run(Request())
    captured = capsys.readouterr()
    assert captured.err == "count: nothing to do, 2 fresh\ntotal: nothing to do, 1 fresh\n"
    assert captured.out == ""
    assert [path.stat().st_mtime_ns for path in parts] == before


def test_a_stage_brings_what_it_needs_and_no_more(build: Build) -> None:
    runner = build(count={}, total={})
    runner.run(Request(("total",)))
    assert {state.name: state.state.value for state in runner.status()} == {
        "count": "fresh",
        "total": "fresh",
    }
    runner = build(count={"factor": 2}, total={})
    runner.run(Request(("count",)))
    assert [state.state.value for state in runner.status()] == ["fresh", "fresh"]


def test_a_stage_whose_need_the_config_leaves_out_runs_alone(build: Build) -> None:
    build(count={}).run(Request())
    build(total={}).run(Request(("total",)))
    assert [state.state.value for state in build(total={}).status()] == ["fresh"]


def test_an_edit_is_reported_and_only_what_it_touches_is_done(
    build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    build(count={}, total={}).run(Request())
    capsys.readouterr()
    build(count={"factor": 3}, total={}).run(Request())
    err = capsys.readouterr().err
    assert "count: count.factor 1 -> 3: 2 units\n" in err
    assert "total: nothing to do, 1 fresh\n" in err  # the rows came out equal
    build(count={"factor": 3, "count": 3}, total={}).run(Request())
    err = capsys.readouterr().err
    assert "count: not done yet: unit 2\n" in err
    assert "total: rows changed: unit 0\n" in err


def test_what_is_done_before_an_error_stays_done(build: Build) -> None:
    with pytest.raises(DataError, match="unit 1: no luck"):
        build(count={"fails_at": 1}).run(Request())
    [state] = build(count={}).status()
    assert state.counts == {"fresh": 1, "stale": 0, "missing": 1}


def test_status_shows_what_waits_for_what_and_writes_nothing(build: Build) -> None:
    runner = build(count={}, total={})
    count, total = runner.status()
    assert (count.state.value, count.reasons) == ("missing", ["not done yet: 2 units"])
    assert (total.state.value, total.reasons) == ("missing", ["count is not fresh"])
    assert not runner.config.run.workspace.exists()
    runner.run(Request())
    count, total = build(count={"factor": 2}, total={}).status()
    assert (count.state.value, total.state.value) == ("stale", "stale")
    assert total.reasons == ["count is not fresh"]


def test_status_of_a_stage_that_cannot_be_planned_is_an_error(build: Build) -> None:
    [total] = build(total={}).status()
    assert [str(fault) for fault in total.faults] == ["count: nothing to add up; run it"]
    assert (total.state.value, total.counts["missing"]) == ("unknown", None)
    with pytest.raises(DataError, match="nothing to add up"):
        build(total={}).run(Request())


def test_what_a_killed_run_left_is_removed(build: Build) -> None:
    runner = build(count={})
    left = runner.config.manifests / "count" / ".part-1.parquet.99.tmp"
    left.parent.mkdir(parents=True)
    left.touch()
    runner.run(Request())
    assert not left.exists()


def test_a_config_without_any_stage_is_reported(build: Build) -> None:
    runner = build()
    with pytest.raises(ConfigError) as error:
        runner.run(Request())
    assert str(error.value) == (
        f"{runner.config.path}: no section of a stage; add one of: count, total"
    )


def test_stages_that_are_not_there_are_named(build: Build) -> None:
    runner = build(count={})
    with pytest.raises(ConfigError) as unknown:
        runner.run(Request(("counts",)))
    assert str(unknown.value) == ("maskmill run: no such stage: 'counts'; use one of: count, total")
    with pytest.raises(ConfigError) as absent:
        runner.run(Request(("total",)))
    assert str(absent.value) == (
        f"{runner.config.path}: the config has no section `total`; add `total:` to it"
    )
    assert not runner.config.run.workspace.exists()
