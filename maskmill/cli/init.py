"""The command `init`."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[
        Path, typer.Argument(help="Folder of your images; label files may lie below it.")
    ],
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes", help='"car, person", or with label values "car=7, person=#ff0000".'
        ),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option("--masks", help="Folder of the label files, if it is elsewhere.")
    ] = None,
    val: Annotated[
        Path | None, typer.Option("--val", help="Folder of images and label files to score on.")
    ] = None,
    web: Annotated[
        Path | None,
        typer.Option("--web", help="Folder of web images, or of tar archives."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="A published training: maskmill list presets.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the run; default: that of the folder.")
    ] = None,
    into: Annotated[
        Path, typer.Option("--into", help="Folder of the new files; nothing is overwritten.")
    ] = Path(),
    allow_stand_in: Annotated[
        bool,
        typer.Option(
            "--allow-stand-in", help="Label with the sandbox's toy while weights are missing."
        ),
    ] = False,
) -> None:
    """Write a config and a vocabulary for a folder of images."""
    from maskmill.cli.opened_run import leader_console
    from stages.init.found import Folders
    from stages.init.init import Request, propose, summarize, write

    def ask(question: str, default: str) -> str:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return default
        return str(typer.prompt(question, default=default, err=True))

    console = leader_console()
    folders = Folders(folder, masks, val, web)
    project = propose(Request(folders, into, classes, name, preset, allow_stand_in), ask)
    written = write(project, into)
    summarize(project, console)
    for path in written:
        console.note(f"wrote {path}")
    at_hand = into.resolve() == Path.cwd()
    console.line("maskmill run" if at_hand else f"maskmill run --config {into / 'maskmill.yaml'}")
