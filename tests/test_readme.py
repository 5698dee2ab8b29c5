"""The README's commands and code, run as they stand, on a smaller world."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
SMALLER = (
    *("sandbox.labeled=8", "sandbox.unlabeled=4", "sandbox.ood=4", "sandbox.val=2"),
    *("sandbox.test=2", "train.steps=2", "train.batch_size=2", "train.crop_px=32"),
)
FROM_MAKE = ("ARGS", "CONFIG", "MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "PYTHON")


def shown_commands() -> list[str]:
    lines = re.findall(r"^    ((?:make|\.venv/bin/maskmill) .*)$", README, re.MULTILINE)
    return [re.sub(r"\s+#.*", "", line) for line in lines]


def expanded(command: str) -> list[str]:
    """The lines that a make command would run; a plain command is its own."""
    if not command.startswith("make "):
        return [command]
    # What the `make test` that may have started this was told is not for this one.
    own = {key: value for key, value in os.environ.items() if key not in FROM_MAKE}
    dry = subprocess.run(
        ["make", "--dry-run", "--directory", REPOSITORY, *shlex.split(command)[1:]],
        env=own,
        capture_output=True,
        text=True,
        check=True,
    )
    return dry.stdout.splitlines()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    return folder


def run_here(monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str]) -> None:
    """Runs a command line in this process, in the current folder."""
    from maskmill.cli.main import main

    of_runs = arguments[0] not in ("predict", "list", "configs", "init", "label", "export")
    smaller = [part for override in SMALLER if of_runs for part in ("--set", override)]
    monkeypatch.setattr("sys.argv", ["maskmill", *arguments, *smaller])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code, arguments


def test_the_readme_shows_the_two_commands_that_do_everything() -> None:
    assert "make pseudolabel train" in shown_commands()
    assert "make test" in shown_commands()


@pytest.mark.parametrize("command", shown_commands())
def test_every_make_target_exists(command: str) -> None:
    assert expanded(command)


def test_commands_and_code_run_as_shown(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace)
    commands = [c for c in shown_commands() if "CONFIG=" not in c]
    image_id = ""
    for line in (line for command in commands for line in expanded(command)):
        name, *arguments = shlex.split(line)
        if name != ".venv/bin/maskmill":
            continue
        if "IMAGE_ID" in arguments:
            image_id = pd.read_parquet(workspace / "manifests/sandbox/images").image_id.iloc[0]
        run_here(monkeypatch, [image_id if a == "IMAGE_ID" else a for a in arguments])
    assert (workspace / f"artifacts/sandbox/show/{image_id}.png").exists()
    assert (workspace / "artifacts/sandbox/report/index.html").exists()
    capsys.readouterr()
    [code] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(code, {})
    assert "uint8" in capsys.readouterr().out
    shown = run_notebook(REPOSITORY / "docs/notebooks/first_look.ipynb")
    assert shown["model"].classes == shown["run"].classes
    assert shown["prediction"].overlay.size == (128, 96)


def run_notebook(path: Path) -> dict[str, Any]:
    """Runs the code of a notebook, cell by cell; returns its names."""
    names: dict[str, Any] = {}
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    return names


def test_every_link_leads_to_a_file() -> None:
    for page in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"):
        text = (REPOSITORY / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (REPOSITORY / target).exists(), f"{page} links to {target}"
