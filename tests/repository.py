"""The files of the repository, wherever the tests are started."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def shipped(pattern: str) -> list[Path]:
    """Files that belong to the project: ``shipped("configs/*.yaml")``. There is at least one.

    A user's own files next to them are left out.
    """
    command = ["git", "ls-files", "-z", f":(glob){pattern}"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:  # no checkout, but an archive of it
        return present(pattern)
    found = [ROOT / name for name in listed.stdout.split("\0") if name]
    return _some([path for path in found if path.exists()], pattern)


def present(pattern: str) -> list[Path]:
    """All files of a pattern, sorted. There is at least one."""
    return _some([path for path in ROOT.glob(pattern) if path.is_file()], pattern)


def _some(paths: list[Path], pattern: str) -> list[Path]:
    assert paths, f"no file {pattern} in {ROOT}"
    return sorted(paths)
