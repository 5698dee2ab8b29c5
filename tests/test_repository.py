"""Which files the tests of the repository look at."""

import subprocess
from pathlib import Path

import pytest

from tests import repository


def test_files_of_a_user_do_not_belong_to_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "ROOT", tmp_path)
    ours, theirs = tmp_path / "configs/ours.yaml", tmp_path / "configs/theirs.yaml"
    ours.parent.mkdir()
    ours.touch()
    theirs.touch()
    assert repository.shipped("configs/*.yaml") == [ours, theirs]  # an archive holds no others
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", ours], cwd=tmp_path, check=True)
    assert repository.shipped("configs/*.yaml") == [ours]
    assert repository.present("configs/*.yaml") == [ours, theirs]


def test_no_file_is_not_a_success() -> None:
    for look in (repository.shipped, repository.present):
        with pytest.raises(AssertionError, match="no file pipelines"):
            look("pipelines/**/*.py")
