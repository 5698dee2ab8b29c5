"""The commands `export labels` and `export predictions`."""

from pathlib import Path
from typing import Annotated

import typer

from maskmill.cli.export_model import model, push
from maskmill.cli.options import ConfigOption, SetOption

export = typer.Typer(help="Take labels and predictions away, in the formats of other tools.")

ToOption = Annotated[
    str, typer.Option("--to", metavar="FORMAT[,...]", help="Formats: maskmill list formats.")
]
OutOption = Annotated[
    Path, typer.Option("--out", help="A new folder; with several formats a folder for each in it.")
]
SplitOption = Annotated[
    float | None,
    typer.Option("--split", min=0, max=1, help="The share of images that train, by chance."),
]


@export.command(epilog="Example: maskmill export labels --to coco --out out/ --labeler sam_clip")
def labels(
    to: ToOption,
    out: OutOption,
    config: ConfigOption = None,
    overrides: SetOption = None,
    labeler: Annotated[
        str | None, typer.Option("--labeler", help="The labeler; default: the run's only one.")
    ] = None,
    roles: Annotated[
        str,
        typer.Option("--roles", help="Roles; labeled, val and test images have their label files."),
    ] = "ood",
    min_confidence: Annotated[
        float,
        typer.Option("--min-confidence", min=0, max=1, help="Less sure pixels are ignored."),
    ] = 0,
    split: SplitOption = None,
) -> None:
    """Write the stored labels of a run, at the size of the images."""
    from maskmill.cli.opened_run import leader_console, opened_run
    from pipeline import stopping
    from stages.export.export import export as write
    from stages.export.export import folders
    from stages.export.run_labels import RunLabels

    console = leader_console()
    with opened_run(config, overrides) as loaded, stopping.on_signals(console.note):
        chosen = [role.strip() for role in roles.split(",")]
        found = RunLabels(loaded, labeler, chosen, min_confidence, split)
        for name, folder in folders(to, out):
            write(found, name, folder, console)


@export.command(epilog="Example: maskmill export predictions predicted/ --to yolo --out out/")
def predictions(
    folder: Annotated[Path, typer.Argument(help="What `maskmill predict --to masks` wrote.")],
    to: ToOption,
    out: OutOption,
    split: SplitOption = None,
) -> None:
    """Write predicted masks."""
    from maskmill.cli.opened_run import leader_console
    from pipeline import stopping
    from stages.export.export import export as write
    from stages.export.export import folders
    from stages.export.predicted_labels import PredictedLabels

    console = leader_console()
    with stopping.on_signals(console.note):
        found = PredictedLabels(folder, split)
        for name, target in folders(to, out):
            write(found, name, target, console)


export.command(epilog="Example: maskmill export model --run sandbox/plus-web --to onnx --out m/")(
    model
)
export.command(epilog="Example: maskmill export push m/ --repo me/segmenter")(push)
