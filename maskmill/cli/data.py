"""The commands `data check` and `data split`."""

from pathlib import Path
from typing import Annotated

import typer

from maskmill.cli.options import ConfigArgument, SetOption

data = typer.Typer(help="Look after the images that a config names.", no_args_is_help=True)


@data.command(epilog="Example: maskmill data check configs/datasets/voc.yaml")
def check(config: ConfigArgument, overrides: SetOption = None) -> None:
    """Show what is on the disk, what is missing, and where to get it."""
    from maskmill.cli.opened_run import leader_console, opened_run
    from stages.ingest.check import check_data
    from stages.train.check import needed_roles

    with opened_run(config, overrides) as loaded:
        is_good = check_data(loaded, leader_console(), needed_roles(loaded))
    if not is_good:
        raise typer.Exit(1)


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
    from maskmill.cli.opened_run import leader_console, opened_run
    from stages.ingest.split import draw_split

    with opened_run(config, overrides) as loaded:
        draw_split(loaded, leader_console(), labeled=labeled, seed=seed, lists=lists or [])
