"""The command line: run, status, verify, gc, show, data check, data split."""

import io
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer

from pipeline import stopping
from pipeline.config import config as config_file
from pipeline.config.config import Config
from pipeline.console import Console
from pipeline.engine import torchrun
from pipeline.engine.garbage import collect_garbage
from pipeline.engine.runner import Request, Runner
from pipeline.engine.survey import refuse
from pipeline.engine.verify import Verifier
from pipeline.errors import MaskmillError, from_os_error
from pipeline.state_lines import as_dict, plan_lines, status_lines
from pipeline.stopping import Stopped
from stages.graph import GRAPH
from stages.ingest.check import check_data
from stages.ingest.split import draw_split
from stages.train.check import needed_roles

app = typer.Typer(
    help="Turns web images into training labels, and training labels into a segmenter.",
    epilog="Start with `maskmill run`: it labels and trains on the embedded sandbox.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its boxes cut error texts at 80 columns in a pipe
)
data = typer.Typer(help="Look after the images that a config names.", no_args_is_help=True)
app.add_typer(data, name="data")
console = Console(quiet=not torchrun.is_leader())

ConfigArgument = Annotated[Path, typer.Argument(help="The YAML file that describes the run.")]
ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="The YAML file that describes the run.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the config; repeatable."),
]
StrictOption = Annotated[
    bool,
    typer.Option("--strict-versions", help="Take what other versions of libraries made as stale."),
]
DEFAULT_CONFIG = Path("configs/sandbox.yaml")
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command(epilog="Example: maskmill run pseudolabel --config configs/camvid.yaml")
def run(
    stages: Annotated[
        list[str] | None, typer.Argument(help="Stages to run, with all they need; default all.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="STAGE", help="Run this stage, not what it needs."),
    ] = None,
    shards: Annotated[
        str | None,
        typer.Option(
            "--shards", metavar="3,7", help="Of stages that work shard by shard, only these."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Do the stages named again, even if fresh.")
    ] = False,
    accept_gone: Annotated[
        bool,
        typer.Option("--accept-gone", help="Go on though many images of a source are gone."),
    ] = False,
    strict_versions: StrictOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be done, and do nothing.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: print JSON for programs.")
    ] = False,
) -> None:
    """Do what is missing or stale, and nothing else."""
    if stages and only:
        raise typer.BadParameter("name stages either with --only or without, not both")
    if as_json and not dry_run:
        raise typer.BadParameter("--json goes with --dry-run")
    named = (*(stages or ()), *(only or ()))
    request = Request(named, bool(only), _numbers(shards), force, accept_gone)
    with _loaded(config, overrides) as loaded:
        runner = Runner(loaded, GRAPH, console, strict_versions)
        if not dry_run:
            with stopping.on_signals(console.note):
                runner.run(request)
            return
        found = list(runner.preview(request, thorough=True))
        if as_json:
            plans = [{**as_dict(state), "to_do": [unit.name for unit in do]} for state, do in found]
            typer.echo(json.dumps({"run": loaded.run.run, "stages": plans}, indent=2))
        else:
            for line in (line for state, units in found for line in plan_lines(state, units)):
                console.line(line)
        refuse([state for state, _ in found])


@app.command(epilog="Example: maskmill status --json")
def status(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = None,
    strict_versions: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what is fresh, stale or missing, and why."""
    with _loaded(config, overrides) as loaded:
        states = list(Runner(loaded, GRAPH, console, strict_versions).status())
        if as_json:
            stages = [as_dict(state) for state in states]
            typer.echo(json.dumps({"run": loaded.run.run, "stages": stages}, indent=2))
            refuse(states)
            return
        rows = [
            (s.name, s.state.value, *("-" if n is None else str(n) for n in s.counts.values()))
            for s in states
        ]
        title = f"run {loaded.run.run} ({config})"
        console.table(title, ("stage", "state", "fresh", "stale", "missing"), rows)
        for line in (line for state in states for line in status_lines(state)):
            console.line(line)
        refuse(states)


@app.command(epilog="Example: maskmill verify --rerun")
def verify(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = None,
    rerun: Annotated[bool, typer.Option("--rerun", help="Do what is damaged again.")] = False,
) -> None:
    """Read all that was written, and compare it with its checksums."""
    with _loaded(config, overrides) as loaded, stopping.on_signals(console.note):
        is_whole = Verifier(Runner(loaded, GRAPH, console)).verify(rerun=rerun)
    if not is_whole:
        sys.exit(1)


@app.command(epilog="Example: maskmill gc --dry-run")
def gc(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be deleted, and delete nothing.")
    ] = False,
) -> None:
    """Delete what neither the config nor a manifest points to, and all of images that are gone."""
    with _loaded(config, overrides) as loaded:
        collect_garbage(Runner(loaded, GRAPH, console), dry_run=dry_run)


@app.command(epilog="Example: maskmill show 3f2a9c01d4e5b677")
def show(
    image_id: Annotated[str, typer.Argument(help="An image_id of the images manifest.")],
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = None,
) -> None:
    """Print an image's rows and draw its labels over it."""
    from pipeline.show import show_image  # draws, which no other command does

    with _loaded(config, overrides) as loaded:
        show_image(loaded, image_id, console)


@data.command(epilog="Example: maskmill data check configs/datasets/voc.yaml")
def check(config: ConfigArgument, overrides: SetOption = None) -> None:
    """Show what is on the disk, what is missing, and where to get it."""
    with _loaded(config, overrides) as loaded:
        is_good = check_data(loaded, console, needed_roles(loaded))
    if not is_good:
        sys.exit(1)


@data.command(
    epilog="Example: SPLIT=mine maskmill data split configs/datasets/voc.yaml --labeled 100 "
    "--seed 1 --from configs/datasets/splits/voc/1464/labeled.txt"
)
def split(
    config: ConfigArgument,
    labeled: Annotated[int, typer.Option("--labeled", help="Number of labeled images.")],
    seed: Annotated[int, typer.Option("--seed", help="Of the draw.")] = 0,
    lists: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="FILE", help="List to draw from; repeatable."),
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Draw which images are labeled, and write the lists that the config names."""
    with _loaded(config, overrides) as loaded:
        draw_split(loaded, console, labeled=labeled, seed=seed, lists=lists or [])


def main() -> None:
    """Entry point of the command `maskmill`."""
    # Arrow's own allocator asks for large pages, which the kernel fills with zeros again and again.
    pa.set_memory_pool(pa.system_memory_pool())
    # Torch's idle threads spin by default, which starves the threads that decode images.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        # A terminal may know fewer letters than names have.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except MaskmillError as error:
        for line in error.lines:
            console.error(line)
        sys.exit(1)
    except OSError as error:
        console.error(str(from_os_error(error)))
        _forget_stdout()
        sys.exit(1)
    except Stopped as stopped:
        done = stopped.done or "what is done stays done"
        console.note(f"stopped: {done}; {stopped.how} to go on")
        sys.exit(stopped.exit_code)


@contextmanager
def _loaded(path: Path, overrides: list[str] | None) -> Iterator[Config]:
    """Reads a config; errors in the block name the overrides that set what they are about."""
    sections = {stage.name: stage.Config for stage in GRAPH}
    implied = {stage.name: stage.implied_by for stage in GRAPH if stage.implied_by is not None}
    config = config_file.load(path, sections, overrides or [], implied)
    with config.naming_overrides():
        yield config


def _forget_stdout() -> None:
    """Drops what stdout cannot take (a full disk), which Python would try again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _numbers(text: str | None) -> frozenset[int] | None:
    """Numbers of shards, written "3,7"."""
    if text is None:
        return None
    items = [item.strip() for item in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,9}", item) for item in items):
        raise typer.BadParameter(
            f"{text!r} is no list of numbers such as 3,7", param_hint="--shards"
        )
    return frozenset(map(int, items))


if __name__ == "__main__":
    main()
