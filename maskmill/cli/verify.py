"""The command `verify`."""

from typing import Annotated

import typer

from maskmill.cli.options import ConfigOption, SetOption


def verify(
    config: ConfigOption = None,
    overrides: SetOption = None,
    rerun: Annotated[bool, typer.Option("--rerun", help="Do what is damaged again.")] = False,
) -> None:
    """Read all that was written, and compare it with its checksums."""
    from maskmill.cli.opened_run import leader_console, opened_run
    from pipeline import stopping
    from pipeline.engine.runner import Runner
    from pipeline.engine.verify import Verifier
    from stages.graph import GRAPH

    console = leader_console()
    with opened_run(config, overrides) as loaded, stopping.on_signals(console.note):
        is_whole = Verifier(Runner(loaded, GRAPH, console)).verify(rerun=rerun)
    if not is_whole:
        raise typer.Exit(1)
