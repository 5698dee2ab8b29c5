"""Where Maskmill cannot run, or would import a user's modules, one line says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository import ROOT

WINDOWS = """
import sys
class NoFcntl:
    def find_spec(self, name, *_):
        if name in ("fcntl", "resource", "pyarrow", "typer"):
            raise ImportError(name)
sys.meta_path.insert(0, NoFcntl())
sys.platform = "win32"
from maskmill.cli.main import main
main()
"""


def call(*arguments: str, cwd: Path, path: str = str(ROOT)) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with modules of a user that are called like Maskmill's."""
    (tmp_path / "stages").mkdir()
    for name in ("pipeline.py", "stages/__init__.py", "typer.py", "yaml.py"):
        (tmp_path / name).write_text("raise SystemExit('not of Maskmill')")
    return tmp_path


def test_windows_is_one_line(tmp_path: Path) -> None:
    done = call("-c", WINDOWS, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "error: Windows: Maskmill runs on Linux and macOS; "
        "use it inside WSL, the Windows Subsystem for Linux\n"
    )


def test_modules_of_the_current_folder_are_not_taken(own: Path) -> None:
    done = call("-m", "maskmill", "status", "--json", cwd=own)
    assert done.returncode == 0, done.stderr
    assert '"run": "sandbox"' in done.stdout


@pytest.mark.parametrize("first", ["pipeline.py", "stages"])
def test_modules_that_take_the_place_of_maskmills_are_one_line(own: Path, first: str) -> None:
    if first == "stages":
        (own / "pipeline.py").unlink()
    script = "from maskmill.cli.main import main; main()"
    done = call("-c", script, "status", cwd=own, path=f"{own}{os.pathsep}{ROOT}")
    assert done.returncode == 1
    name = first.removesuffix(".py")
    assert done.stderr.startswith(
        f"error: {own / first}: Python finds this in place of Maskmill's own package `{name}`; "
    )
    assert done.stderr.count("\n") == 1
