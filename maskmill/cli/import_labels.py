"""The command `import`."""

from pathlib import Path
from typing import Annotated

import typer

from maskmill.cli.options import ConfigOption, SetOption


def import_labels(
    folder: Annotated[Path, typer.Argument(help="What `maskmill export labels` wrote.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
    annotations: Annotated[
        Path | None,
        typer.Option("--annotations", help="The tool's own file; default: those in the folder."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the corrected masks; default: corrections/FOLDER."),
    ] = None,
    take_all: Annotated[
        bool, typer.Option("--all", help="Take labels too that were not changed.")
    ] = False,
) -> None:
    """Take corrected labels back: their images become labeled ones of the run."""
    from maskmill.cli.opened_run import leader_console, opened_run
    from stages.corrections.import_labels import Request
    from stages.corrections.import_labels import import_labels as take_back

    with opened_run(config, overrides) as loaded:
        target = out or loaded.path.parent / "corrections" / folder.resolve().name
        take_back(Request(folder, annotations, target, take_all), loaded, leader_console())
