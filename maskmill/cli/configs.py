"""The commands `configs` and `configs copy`."""

from pathlib import Path
from typing import Annotated

import typer

configs = typer.Typer(help="List and copy the configs that come with Maskmill.")


@configs.callback(invoke_without_command=True)
def list_configs(context: typer.Context) -> None:
    """List the configs that come with Maskmill, or copy one of them."""
    if context.invoked_subcommand is not None:
        return
    from maskmill import shipped_configs
    from maskmill.cli.opened_run import leader_console

    console = leader_console()
    names = shipped_configs.names()
    console.lines({name: shipped_configs.description(shipped_configs.path(name)) for name in names})
    console.note("copy one, with all that it names: maskmill configs copy NAME")


@configs.command(epilog="Example: maskmill configs copy camvid")
def copy(
    name: Annotated[str, typer.Argument(help="Its name, as `maskmill configs` lists it.")],
    folder: Annotated[Path, typer.Argument(help="Where to copy it to.")] = Path("configs"),
) -> None:
    """Copy a config, its vocabulary and its lists. Files that are there are never overwritten."""
    from maskmill import shipped_configs
    from maskmill.cli.opened_run import leader_console

    console = leader_console()
    for path in shipped_configs.copy(name, folder):
        console.note(f"wrote {path}")
    console.line(str(folder / shipped_configs.path(name).relative_to(shipped_configs.folder())))
