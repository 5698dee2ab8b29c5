"""The command `run`."""

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from maskmill.cli.options import ConfigOption, SetOption, StrictOption


class ListsStages(TyperCommand):
    """A command whose help lists the stages."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Writes the stages, with a line each, and then the example."""
        from maskmill.cli.descriptions import stages

        with formatter.section("Stages"):
            formatter.write_dl([*stages().items()])
        super().format_epilog(ctx, formatter)


def run(
    stages: Annotated[
        list[str] | None, typer.Argument(help="Stages to run, with all they need; default all.")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="STAGE", help="Run this stage, not what it needs."),
    ] = None,
    shards: Annotated[
        str | None,
        typer.Option(
            "--shards", metavar="3,7", help="Of stages that work shard by shard, only these."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Do the stages named again, even if fresh.")
    ] = False,
    accept_gone: Annotated[
        bool,
        typer.Option("--accept-gone", help="Go on though many images of a source are gone."),
    ] = False,
    strict_versions: StrictOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be done, and do nothing.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: print JSON for programs.")
    ] = False,
) -> None:
    """Do what is missing or stale, and nothing else."""
    import json

    from maskmill.cli.opened_run import leader_console, opened_run
    from maskmill.cli.state_lines import as_dict, plan_lines
    from pipeline import stopping
    from pipeline.engine.runner import Request, Runner
    from pipeline.engine.survey import refuse
    from pipeline.redaction import without_secrets
    from stages.graph import GRAPH

    if stages and only:
        raise typer.BadParameter("name stages either with --only or without, not both")
    if as_json and not dry_run:
        raise typer.BadParameter("--json goes with --dry-run")
    named = (*(stages or ()), *(only or ()))
    request = Request(named, bool(only), _numbers(shards), force, accept_gone)
    console = leader_console()
    with opened_run(config, overrides) as loaded:
        runner = Runner(loaded, GRAPH, console, strict_versions)
        if not dry_run:
            with stopping.on_signals(console.note):
                runner.run(request)
            return
        found = list(runner.preview(request, thorough=True))
        if as_json:
            plans = [{**as_dict(state), "to_do": [unit.name for unit in do]} for state, do in found]
            text = json.dumps({"run": loaded.run.run, "stages": plans}, indent=2)
            typer.echo(without_secrets(text))
        else:
            for line in (line for state, units in found for line in plan_lines(state, units)):
                console.line(line)
        refuse([state for state, _ in found])


def _numbers(text: str | None) -> frozenset[int] | None:
    """Numbers of shards, written "3,7"."""
    import re

    if text is None:
        return None
    items = [item.strip() for item in text.split(",")]
    if not all(re.fullmatch("[0-9]{1,9}", item) for item in items):
        raise typer.BadParameter(
            f"{text!r} is no list of numbers such as 3,7", param_hint="--shards"
        )
    return frozenset(map(int, items))
