import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from pipeline.files.run_lock import locked
from stages.graph import GRAPH

Maskmill = Callable[..., CompletedProcess[str]]
WriteConfig = Callable[..., Path]


@pytest.fixture
def config(tiny: dict[str, Any], write_config: WriteConfig) -> Path:
    return write_config(tiny)


def shell(*arguments: object) -> CompletedProcess[str]:
    """The real command line, in a process of its own."""
    command = [sys.executable, "-m", "maskmill", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_run_works_from_a_shell(maskmill: Maskmill, config: Path) -> None:
    done = shell("run", "--config", config)
    assert done.returncode == 0, done.stderr
    assert "ingest: 2 labeled, 2 ood, 1 test, 2 unlabeled, 1 val; in " in done.stderr
    assert "ingest: nothing to do, 2 fresh" in maskmill("run", "--config", config).stderr


def test_an_error_is_one_line_in_a_shell(tmp_path: Path) -> None:
    done = shell("status", "--config", tmp_path / "none.yaml")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"error: {tmp_path}/none.yaml: cannot read the file: No such file or directory; "
        "name an existing file; `maskmill configs copy` gives one to begin with\n"
    )


def test_files_that_are_no_config_are_one_line(
    maskmill: Maskmill, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.yaml").write_text("just text")
    config.write_text(config.read_text().replace("role: ood", "role: odd"))
    for path, what in (
        (tmp_path / "folder", "cannot read the file: Is a directory; "),
        (tmp_path / "text.yaml", "not a mapping of keys; write `key: value` lines"),
        (config, "ingest.sources.ood.role: 'odd' is wrong; "),
    ):
        done = maskmill("status", "--config", path)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith(f"error: {path}: {what}")
        assert done.stderr.count("\n") == 1


def test_help_shows_what_to_type(maskmill: Maskmill) -> None:
    done = maskmill("--help")
    assert done.returncode == 0
    for word in ("run", "status", "show", "maskmill run"):
        assert word in done.stdout
    assert "--set" in maskmill("run", "--help").stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["walk"], "No such command 'walk'"),
        (["run", "--confg", "a.yaml"], "No such option"),
        (["run", "--config"], "requires an argument"),
        (["run", "--set"], "requires an argument"),
        (["show"], "Missing argument"),
        (["status", "--json", "please"], "unexpected extra argument"),
    ],
)
def test_misuse_ends_with_2(maskmill: Maskmill, arguments: list[str], text: str) -> None:
    done = maskmill(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert text in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["run", "digest"],
            "maskmill run: no such stage: 'digest'; "
            f"use one of: {', '.join(stage.name for stage in GRAPH)}",
        ),
        (
            ["run", "train"],
            "{config}: the config has no section `train`; add `train:` to it",
        ),
        (
            ["status", "--set", "run"],
            "--set run: not an override; write --set key.subkey=value",
        ),
        (
            ["status", "--set", "ingest.shardsize=4"],
            "--set ingest.shardsize=4: unknown key; did you mean 'shard_size'?",
        ),
        (
            ["show", "0123456789abcdef"],
            "{manifests}/images: no image '0123456789abcdef'; "
            "use an image_id or a uri of this table; `maskmill run ingest` fills it",
        ),
    ],
)
def test_mistakes_end_with_1_and_one_line(
    arguments: list[str], text: str, maskmill: Maskmill, config: Path, tmp_path: Path
) -> None:
    done = maskmill(*arguments, "--config", config)
    assert done.returncode == 1
    assert done.stdout == ""
    manifests = tmp_path / "workspace" / "manifests" / "tiny"
    assert done.stderr == f"error: {text.format(config=config, manifests=manifests)}\n"


def test_status_prints_a_table_and_the_reasons(maskmill: Maskmill, config: Path) -> None:
    done = maskmill("status", "--config", config)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == f"run tiny ({config})"
    assert "│ ingest │ missing │     0 │     0 │       2 │" in lines
    assert lines[-1] == "ingest: not done yet: shards 0, 1"


def test_status_for_programs_has_this_form(maskmill: Maskmill, config: Path) -> None:
    maskmill("run", "--config", config)
    done = maskmill("status", "--json", "--config", config, "--set", "ingest.sources.ood.role=val")
    assert done.returncode == 1  # an evaluation image needs a label file
    os.rename(config.parent / "data/ood/images/0.png", config.parent / "data/ood/images/9.png")
    done = maskmill("status", "--json", "--config", config)
    assert json.loads(done.stdout) == {
        "run": "tiny",
        "stages": [
            {
                "name": "ingest",
                "state": "stale",
                "shards": {"fresh": 1, "stale": 1, "missing": 1},
                "reasons": ["1 image gone: shard 1", "1 image new: shard 2"],
                "causes": [
                    {
                        "kind": "images changed",
                        "reason": "1 image gone",
                        "images": 1,
                        "units": ["shard 1"],
                        "shards": [1],
                    },
                    {
                        "kind": "images changed",
                        "reason": "1 image new",
                        "images": 1,
                        "units": ["shard 2"],
                        "shards": [2],
                    },
                ],
                "remarks": [
                    "1 new image may be known ones at another place: a run compares their bytes"
                ],
                "faults": [],
                "warnings": [],
            }
        ],
    }


def test_status_writes_nothing(maskmill: Maskmill, config: Path, tmp_path: Path) -> None:
    assert maskmill("status", "--config", config).returncode == 0
    assert not (tmp_path / "workspace").exists()


def test_a_locked_workspace_refuses_a_second_run(
    maskmill: Maskmill, config: Path, tmp_path: Path
) -> None:
    manifests = tmp_path / "workspace" / "manifests" / "tiny"
    with locked(manifests):
        done = maskmill("run", "--config", config)
        assert maskmill("status", "--config", config).returncode == 0
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"error: {manifests}: another command is working on this run: process {os.getpid()} on "
    )
    assert done.stderr.endswith("; wait until it ends\n")
    assert done.stderr.count("\n") == 1


def test_a_full_disk_is_one_line_and_room_repairs_it(config: Path, small_disk: Path) -> None:
    arguments = ("run", "--config", config, "--set", f"workspace={small_disk}")
    filler = small_disk / "filler"
    filler.write_bytes(bytes(108 * 1024))
    done = shell(*arguments)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {small_disk}/manifests/tiny/images/")
    assert done.stderr.endswith(
        ": No space left on device; free some space and run again; what is done stays done\n"
    )
    assert "Traceback" not in done.stderr
    filler.unlink()
    assert shell(*arguments).returncode == 0


def test_a_read_only_workspace_is_one_line_and_can_be_looked_at(
    maskmill: Maskmill, config: Path, small_disk: Path
) -> None:
    workspace = f"workspace={small_disk}"
    maskmill("run", "--config", config, "--set", workspace)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = maskmill("run", "--config", config, "--set", workspace)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {small_disk}/manifests/tiny/.lock: Read-only file system; "
        "set `workspace` to a writable folder\n"
    )
    done = maskmill("status", "--config", config, "--set", workspace, "--json")
    assert json.loads(done.stdout)["stages"][0]["state"] == "fresh"


def test_a_workspace_that_is_a_file_is_one_line(
    maskmill: Maskmill, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    done = maskmill("run", "--config", config, "--set", f"workspace={tmp_path}/file")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path}/file/manifests")
    assert done.stderr.count("\n") == 1


def test_a_stage_with_nothing_to_do_is_one_line_and_results_prints_its_tables(
    maskmill: Maskmill, config: Path
) -> None:
    assert maskmill("results", "--config", config).stdout == ""
    first = maskmill("run", "--config", config)
    assert "ingest: 2 labeled, 2 ood, " in first.stderr + first.stdout
    again = maskmill("run", "--config", config)
    assert (again.stdout, again.stderr) == ("", "ingest: nothing to do, 2 fresh\n")
    results = maskmill("results", "--config", config)
    assert results.returncode == 0
    assert "ingest: 2 labeled, 2 ood, " in results.stderr + results.stdout
