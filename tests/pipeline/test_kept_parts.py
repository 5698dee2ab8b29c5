"""Parts of former keys go away and come back whole, also after a kill between two moves."""

from pathlib import Path

import pytest

from pipeline.config.config_section import Facts
from pipeline.records.kept_parts import KeptParts
from pipeline.records.part_file import digest, read_facts, write_part
from pipeline.records.tables import CONFUSION, METRICS

OLD: Facts = {"steps": 1}
NEW: Facts = {"steps": 2}


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "metrics/part-a.parquet"


@pytest.fixture
def companion(tmp_path: Path) -> Path:
    return tmp_path / "confusion/part-a.parquet"


def write(part: Path, companion: Path, facts: Facts, failed: int = 0) -> None:
    write_part(companion, CONFUSION.rows([]), facts, {})
    write_part(part, METRICS.rows([]), facts, {}, files=[companion], failed=failed)


def test_a_part_is_kept_and_restored_with_its_companions(
    tmp_path: Path, part: Path, companion: Path
) -> None:
    kept = KeptParts(tmp_path)
    write(part, companion, OLD)
    kept.keep(part, [companion], digest(OLD))
    assert kept.all() == []  # of the very keys that are wanted
    kept.keep(part, [companion], digest(NEW))
    assert not part.exists()
    assert not companion.exists()
    write(part, companion, NEW)
    found = kept.find(part, [companion], digest(OLD))
    assert [*found] == [companion, part]
    kept.restore(found, [companion])
    assert read_facts(part) == read_facts(companion) == OLD
    assert set(kept.find(part, [companion], digest(NEW))) == {companion, part}


@pytest.mark.parametrize("returned", [False, True])
def test_a_companion_in_its_place_is_found(
    returned: bool, tmp_path: Path, part: Path, companion: Path
) -> None:
    """A kill between two moves leaves the part kept and its companion in its place."""
    kept = KeptParts(tmp_path)
    write(part, companion, OLD)
    kept.keep(part, [], digest(NEW))
    if returned:
        write_part(part, METRICS.rows([]), NEW, {})
    found = kept.find(part, [companion], digest(OLD))
    assert [*found] == [part]
    kept.restore(found, [companion])
    assert read_facts(part) == read_facts(companion) == OLD


def test_a_companion_of_other_keys_is_not_overwritten(
    tmp_path: Path, part: Path, companion: Path
) -> None:
    """A kill after the present part was kept, before its companion was."""
    kept = KeptParts(tmp_path)
    write(part, companion, OLD)
    kept.keep(part, [companion], digest(NEW))
    write(part, companion, NEW)
    kept.keep(part, [], digest(OLD))
    kept.restore(kept.find(part, [companion], digest(OLD)), [companion])
    assert read_facts(companion) == OLD
    assert set(kept.find(part, [companion], digest(NEW))) == {companion, part}


def test_a_part_without_its_companion_is_not_found(
    tmp_path: Path, part: Path, companion: Path
) -> None:
    kept = KeptParts(tmp_path)
    write(part, companion, OLD)
    kept.keep(part, [companion], digest(NEW))
    kept.path(companion, digest(OLD)).unlink()
    assert kept.find(part, [companion], digest(OLD)) == {}


def test_a_part_that_is_to_be_tried_again_is_not_kept(
    tmp_path: Path, part: Path, companion: Path
) -> None:
    kept = KeptParts(tmp_path)
    write(part, companion, OLD, failed=1)
    kept.keep(part, [], digest(NEW))
    assert kept.all() == []
