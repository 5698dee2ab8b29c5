"""The mutation run: its changes, its trials, and that its survivors are known ones."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository import ROOT
from tools.mutants.__main__ import read_survivors
from tools.mutants.coverage import TESTS
from tools.mutants.mutations import mutations
from tools.mutants.trial import Outcome, Trial

SOURCE = '''"""A module."""

version = 3
_AT_ONCE = 16


def half(value: int = 2, *, floor: bool = False) -> int:
    """The half of it."""
    if value < 0 and not floor:
        raise ValueError(f"{value} is below {0}")
    facts.append(value, floor=floor)
    return max(value // 2, 1.0)
'''


def test_one_thing_is_changed_at_a_time() -> None:
    found = mutations(SOURCE)
    assert sorted((each.line, each.before, each.after) for each in found) == [
        (7, "2", "1"),
        (7, "2", "3"),
        (7, "False", "True"),
        (9, "0", "1"),
        (9, "not floor", "floor"),
        (9, "value < 0", "value <= 0"),
        (9, "value < 0 and (not floor)", "value < 0 or not floor"),
        (11, "facts.append(value, floor=floor)", "facts.append(value)"),
        (11, "facts.append(value, floor=floor)", "pass"),
        (12, "1.0", "1.5"),
        (12, "2", "1"),
        (12, "2", "3"),
        (12, "max(value // 2, 1.0)", "min(value // 2, 1.0)"),
        (12, "value // 2", "value * 2"),
    ]
    for each in found:
        compile(each.source, "module.py", "exec")
        changed = zip(SOURCE.splitlines(), each.source.splitlines(), strict=True)
        lines = [number for number, (old, new) in enumerate(changed, 1) if old != new]
        assert lines == [each.line]


def test_checks_of_what_is_so_anyway_are_left() -> None:
    assert mutations("pairs = zip(one, one, strict=True)\n") == []


def test_entries_of_mappings_and_operators_of_sets_are_changed() -> None:
    found = mutations('state = {"a": one, **(two | three)}\n')
    assert [each.after for each in found] == ["{**two | three}", "{'a': one}", "two & three"]


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """The trial of a module that has a test."""
    (tmp_path / "counted.py").write_text("def up(n): return n + 1\n")
    test = "from counted import up\n\ndef test_up():\n    assert up(1) == 2\n"
    (tmp_path / "test_counted.py").write_text(test)
    return Trial(tmp_path, "counted.py", ["test_counted.py"])


def test_a_change_is_killed_survives_or_never_ends(trial: Trial) -> None:
    assert trial.of("def up(n): return n - 1\n") is Outcome.KILLED
    assert trial.of("def up(n): return n + n\n") is Outcome.SURVIVED
    assert trial.of("def up(n)\n") is Outcome.KILLED
    assert (trial.folder / "counted.py").read_text() == "def up(n): return n + 1\n"


def test_tests_that_fail_anyway_tell_nothing(trial: Trial) -> None:
    (trial.folder / "test_counted.py").write_text("def test_up():\n    assert False\n")
    with pytest.raises(RuntimeError, match=r"test_counted.py end with 1 without any change"):
        trial.of("def up(n): return n - 1\n")


def test_the_table_names_modules_and_tests_that_exist() -> None:
    for path, tests in TESTS.items():
        missing = [name for name in (path, *tests) if not (ROOT / name).is_file()]
        assert not missing, path


def test_listed_survivors_are_changes_of_today_and_have_reasons() -> None:
    for path, each in read_survivors():
        today = {
            (one.text, one.change) for one in mutations((ROOT / path).read_text(encoding="utf-8"))
        }
        assert (each["line"], each["change"]) in today, f"{path}: {each['change']}"
        assert each["reason"].endswith("."), f"{path}: {each['change']}"


SAMPLED = (
    *("stages/labels/boundary.py", "stages/labels/confusion.py"),
    *("stages/propose/generator/small_regions.py", "stages/pseudolabel/pixels/pooling.py"),
    *("stages/pseudolabel/stored_labels.py", "stages/train/data/geometry.py"),
    *("stages/train/loop/divergence.py", "stages/train/loop/teacher.py"),
    *("stages/train/step/losses.py", "stages/train/step/schedule.py", "pipeline/images/overlay.py"),
    *("stages/pseudolabel/pixels/windows.py", "stages/pseudolabel/calibration.py"),
)
"""Modules whose tests are quick; `make mutants` tries all of the table."""


@pytest.mark.slow
def test_no_change_of_a_sample_survives_but_listed_ones() -> None:
    command = [sys.executable, "-m", "tools.mutants", "--count", "3", *SAMPLED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
