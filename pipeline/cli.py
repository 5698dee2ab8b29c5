"""The command line: run, status, show."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline import config as config_file
from pipeline.config import Config
from pipeline.console import Console
from pipeline.errors import MaskmillError, from_os_error
from pipeline.runner import Runner
from pipeline.show import show_image
from pipeline.staleness import StageState
from stages.graph import GRAPH

app = typer.Typer(
    help="Turns web images into training labels, and training labels into a segmenter.",
    epilog="Start with `maskmill run`: it labels and trains on the embedded sandbox.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its boxes cut error texts at 80 columns in a pipe
)
console = Console()

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="The YAML file that describes the run.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the config; repeatable."),
]
DEFAULT_CONFIG = Path("configs/sandbox.yaml")


@app.command(epilog="Example: maskmill run pseudolabel --config configs/camvid.yaml")
def run(
    stages: Annotated[
        list[str] | None, typer.Argument(help="Stages to run, with all they need; default all.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = None,
) -> None:
    """Do what is missing or stale, and nothing else."""
    Runner(_load(config, overrides), GRAPH, console).run(stages or [])


@app.command(epilog="Example: maskmill status --json")
def status(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Tell what is fresh, stale or missing, and why."""
    loaded = _load(config, overrides)
    states = list(Runner(loaded, GRAPH, console).status())
    if as_json:
        stages = [_as_dict(state) for state in states]
        typer.echo(json.dumps({"run": loaded.run.run, "stages": stages}, indent=2))
        return
    rows = [(s.name, s.state.value, *(str(count) for count in s.counts.values())) for s in states]
    title = f"run {loaded.run.run} ({config})"
    console.table(title, ("stage", "state", "fresh", "stale", "missing"), rows)
    for state in states:
        for reason in state.reasons:
            console.line(f"{state.name}: {reason}")


@app.command(epilog="Example: maskmill show 3f2a9c01d4e5b677")
def show(
    image_id: Annotated[str, typer.Argument(help="An image_id of the images manifest.")],
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = None,
) -> None:
    """Print an image's rows and draw its labels over it."""
    show_image(_load(config, overrides), image_id, console)


def main() -> None:
    """Entry point of the command `maskmill`."""
    # Torch's idle threads spin by default, and so starve those that decode images beside them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except MaskmillError as error:
        console.error(str(error))
        sys.exit(1)
    except OSError as error:
        console.error(str(from_os_error(error)))
        sys.exit(1)


def _load(path: Path, overrides: list[str] | None) -> Config:
    sections = {stage.name: stage.Config for stage in GRAPH}
    return config_file.load(path, sections, overrides or [])


def _as_dict(state: StageState) -> dict[str, object]:
    return {
        "name": state.name,
        "state": state.state.value,
        "shards": state.counts,
        "reasons": state.reasons,
    }


if __name__ == "__main__":
    main()
