"""The command `gc`."""

from typing import Annotated

import typer

from maskmill.cli.options import ConfigOption, SetOption


def gc(
    config: ConfigOption = None,
    overrides: SetOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be deleted, and delete nothing.")
    ] = False,
) -> None:
    """Delete what nothing points to any more, and what is left of gone images."""
    from maskmill.cli.opened_run import leader_console, opened_run
    from pipeline.engine.garbage import collect_garbage
    from pipeline.engine.runner import Runner
    from stages.graph import GRAPH

    with opened_run(config, overrides) as loaded:
        collect_garbage(Runner(loaded, GRAPH, leader_console()), dry_run=dry_run)
