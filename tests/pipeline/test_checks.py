"""Checks come before work: of all stages at once, and again of what is left."""

import pickle
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.config import load
from pipeline.config.config_section import Section
from pipeline.console import Console
from pipeline.engine.findings import Findings
from pipeline.engine.runner import Request, Runner
from pipeline.engine.stage import Stage, Unit
from pipeline.errors import (
    ConfigError,
    DataError,
    MaskmillError,
    WeightsError,
    error_context,
    together,
)
from pipeline.records import manifest, tables
from tests.pipeline.test_runner import Build


class NumbersConfig(Section):
    numbers: tuple[int, ...] = (1, 2)
    least: int = 0
    rehearsal: str = ""


class Numbers(Stage[str]):
    """Writes a row a number."""

    name = "numbers"
    version = 1
    table = tables.METRICS
    Config = NumbersConfig

    def __init__(self, section: Section, context: Any) -> None:
        super().__init__(section, context)
        assert isinstance(section, NumbersConfig)
        self.section = section
        self.folder = context.config.manifests / self.name

    def plan(self) -> Sequence[Unit[str]]:
        facts = {**self.version_facts, "numbers": str(self.section.numbers)}
        return [Unit("all", self.folder / "part-0.parquet", facts)]

    def run(self, units: Sequence[Unit[str]]) -> None:
        rows = [{"name": "number", "value": number} for number in self.section.numbers]
        for unit in units:
            self.commit(unit, tables.METRICS.rows(rows))

    def rehearse(
        self, findings: Findings, units: Sequence[Unit[str]] | None, *, downloads: bool
    ) -> None:
        if self.section.rehearsal:
            told = "not known" if units is None else len(units)
            what = f"{self.section.rehearsal}, units {told}, downloads {downloads}"
            findings.add(WeightsError(what, where=self.name, fix="train it"))


class Roots(Numbers):
    """Cannot work with negative numbers, nor with few."""

    name = "roots"
    needs = ("numbers",)

    def check(self, findings: Findings, pending: Collection[str]) -> None:
        if self.section.least < 0:
            findings.add(ConfigError(f"{self.section.least}", where="roots.least", fix="raise it"))
        if "numbers" in pending:
            return
        folder = self.context.config.manifests / "numbers"
        found = manifest.read(folder, tables.METRICS)["value"].to_pylist()
        for number in (number for number in found if number < 0):
            findings.add(
                DataError(f"{number:.0f} is negative", where="numbers", fix="leave it out")
            )
        if len(found) < self.section.least:
            findings.warn(f"only {len(found)} numbers")


@pytest.fixture
def build(tiny: dict[str, Any], write_config: Callable[..., Path]) -> Build:
    """A runner of both stages: ``build(numbers={"numbers": [3]})``."""

    def build(**sections: dict[str, Any] | None) -> Runner:
        values = {key: value for key, value in tiny.items() if key != "ingest"}
        path = write_config({**values, "numbers": {}, "roots": {}, **sections})
        config = load(path, {"numbers": NumbersConfig, "roots": NumbersConfig})
        return Runner(config, (Numbers, Roots), Console())

    return build


def test_the_checks_of_all_stages_come_before_the_first_one(build: Build) -> None:
    runner = build(roots={"least": -1}, numbers={"rehearsal": "no weights"})
    with pytest.raises(ConfigError, match=r"^roots.least: -1; raise it$"):
        runner.run(Request())
    assert not list(runner.config.manifests.rglob("*.parquet"))
    faults = [[str(fault) for fault in state.faults] for state in runner.status()]
    assert faults == [[], ["roots.least: -1; raise it"]]


def test_what_is_left_is_checked_again_when_a_stage_has_written(build: Build) -> None:
    runner = build(numbers={"numbers": [-1, 4, -9]})
    with pytest.raises(DataError) as error:
        runner.run(Request())
    assert error.value.lines == [
        "numbers: -1 is negative; leave it out",
        "numbers: -9 is negative; leave it out",
    ]
    assert [path.parent.name for path in runner.config.manifests.rglob("*.parquet")] == ["numbers"]
    build().run(Request())  # the old numbers are not judged, as they will be replaced


def test_what_only_torch_can_tell_is_asked_for_of_what_has_something_to_do(build: Build) -> None:
    sections = {"numbers": {"rehearsal": "no weights"}, "roots": {"rehearsal": "none here"}}
    with pytest.raises(WeightsError) as error:
        build(**sections).run(Request())
    assert error.value.lines == [
        "numbers: no weights, units 1, downloads True; train it",
        "roots: none here, units not known, downloads True; train it",
    ]
    found = [state.faults for state, _ in build(**sections).preview(Request(), thorough=True)]
    assert [len(faults) for faults in found] == [1, 1]
    assert "downloads False" in str(found[0][0])
    build().run(Request())
    build(**sections).run(Request())  # all is done


def test_warnings_come_at_the_start_and_return_at_the_end(
    build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    build(roots={"least": 3}).run(Request())
    err = capsys.readouterr().err
    assert err.endswith("warning: only 2 numbers\n")
    assert err.count("warning: only 2 numbers\n") == 2
    build(roots={"least": 3}).run(Request())
    assert capsys.readouterr().err.endswith("nothing to do, 1 fresh\nwarning: only 2 numbers\n")
    assert [state.warnings for state in build(roots={"least": 3}).status()] == [
        (),
        ("only 2 numbers",),
    ]


def test_a_stage_after_those_of_the_command_is_warned_about(
    build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    build(roots={"least": -1}).run(Request(("numbers",)))
    warning = "warning: roots could not run: roots.least: -1; raise it\n"
    assert capsys.readouterr().err.startswith(warning)
    build(numbers={"rehearsal": "no weights"}).run(Request(("roots",), only=True))


def test_several_problems_are_one_error() -> None:
    faults: list[MaskmillError] = [
        DataError(f"fault {n}", where="here", fix="mend it") for n in range(7)
    ]
    error = together([*faults, ConfigError("other", where="there", fix="correct it")])
    assert error.lines == [
        *(f"here: fault {number}; mend it" for number in range(5)),
        "and 2 more that need the same",
        "there: other; correct it",
    ]
    assert pickle.loads(pickle.dumps(error)).lines == error.lines
    with pytest.raises(DataError) as raised, error_context("key"):
        raise error
    assert raised.value.lines[0] == "key: here: fault 0; mend it"


def test_what_a_stage_with_a_fault_has_done_is_shown(build: Build) -> None:
    build().run(Request())
    _, roots = build(roots={"least": -1}).status()
    assert (roots.state.value, roots.counts["fresh"]) == ("fresh", 1)
    assert [str(fault) for fault in roots.faults] == ["roots.least: -1; raise it"]
