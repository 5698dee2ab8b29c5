"""The command `list`."""

from pathlib import Path
from typing import Annotated

import typer


def list_parts(
    what: Annotated[
        str | None, typer.Argument(help="The kind: labelers, presets, networks, runs, ...")
    ] = None,
    workspace: Annotated[
        Path, typer.Option("--workspace", help="For `runs`: the folder of manifests/.")
    ] = Path(),
) -> None:
    """List labelers, presets, networks, runs and more."""
    from maskmill.cli.descriptions import KINDS, described
    from maskmill.cli.opened_run import leader_console

    console = leader_console()
    if what is None:
        for kind in (*KINDS, "runs"):
            console.line(kind)
        return
    if found := described(what, workspace):
        console.lines(found)
    else:
        console.note(f"no {what} in {workspace.resolve()}")
