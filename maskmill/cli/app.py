"""All commands, in the order of the help, each with an example."""

from typing import Annotated

import typer

from maskmill import __version__
from maskmill.cli.config import config
from maskmill.cli.configs import configs
from maskmill.cli.data import data
from maskmill.cli.export import export
from maskmill.cli.gc import gc
from maskmill.cli.import_labels import import_labels
from maskmill.cli.init import init
from maskmill.cli.label import label
from maskmill.cli.list import list_parts
from maskmill.cli.predict import predict
from maskmill.cli.results import results
from maskmill.cli.run import ListsStages, run
from maskmill.cli.show import show
from maskmill.cli.status import status
from maskmill.cli.verify import verify

app = typer.Typer(
    epilog="Start with `maskmill run`: it labels and trains on the embedded sandbox.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its boxes cut error texts at 80 columns in a pipe
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"maskmill {__version__}")
        raise typer.Exit


@app.callback()
def maskmill(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Turns web images into training labels, and training labels into a segmenter."""


app.command(epilog='Example: maskmill init photos/ --classes "person, car"')(init)
app.command(epilog='Example: maskmill label photos/ --classes "person, car" --out out/')(label)
app.command(cls=ListsStages, epilog="Example: maskmill run train --set train.steps=400")(run)
app.command(epilog="Example: maskmill status --json")(status)
app.command(epilog="Example: maskmill results --config configs/camvid.yaml")(results)
app.command(epilog="Example: maskmill show photos/0001.jpg")(show)
app.command(epilog="Example: maskmill predict new/ --run sandbox/plus-web --out predicted/")(
    predict
)
app.command(epilog="Example: maskmill verify --rerun")(verify)
app.command(epilog="Example: maskmill gc --dry-run")(gc)
app.command(epilog="Example: maskmill config --explain train.crop_px")(config)
app.command("list", epilog="Example: maskmill list labelers")(list_parts)
app.add_typer(export, name="export")
app.command("import", epilog="Example: maskmill import out/ --annotations corrected.xml")(
    import_labels
)
app.add_typer(configs, name="configs")
app.add_typer(data, name="data")
