"""The command `label`."""

from pathlib import Path
from typing import Annotated

import typer


def label(
    folder: Annotated[Path, typer.Argument(help="Folder of images.")],
    classes: Annotated[str, typer.Option("--classes", help='Names: "person, car".')],
    out: Annotated[Path, typer.Option("--out", help="The folder of the results.")],
    to: Annotated[
        str, typer.Option("--to", metavar="FORMAT[,...]", help="Formats: maskmill list formats.")
    ] = "png",
    min_confidence: Annotated[
        float,
        typer.Option("--min-confidence", min=0, max=1, help="Less sure pixels are ignored."),
    ] = 0,
    allow_stand_in: Annotated[
        bool,
        typer.Option(
            "--allow-stand-in", help="Label with the sandbox's toy while weights are missing."
        ),
    ] = False,
) -> None:
    """Label a folder of images, and export the labels; an interrupted call goes on."""
    from maskmill.cli.opened_run import leader_console
    from maskmill.labeling import Request
    from maskmill.labeling import label as label_images
    from pipeline import stopping

    console = leader_console()
    request = Request(folder, out, classes, to, min_confidence, allow_stand_in)
    with stopping.on_signals(console.note):
        label_images(request, console)
