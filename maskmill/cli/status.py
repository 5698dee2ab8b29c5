"""The command `status`."""

import typer

from maskmill.cli.options import ConfigOption, JsonOption, SetOption, StrictOption


def status(
    config: ConfigOption = None,
    overrides: SetOption = None,
    strict_versions: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what is fresh, stale or missing, and why."""
    import json

    from maskmill.cli.opened_run import leader_console, opened_run
    from maskmill.cli.state_lines import as_dict, status_lines
    from pipeline.engine.runner import Runner
    from pipeline.engine.survey import refuse
    from pipeline.redaction import without_secrets
    from stages.graph import GRAPH

    console = leader_console()
    with opened_run(config, overrides) as loaded:
        states = list(Runner(loaded, GRAPH, console, strict_versions).status())
        if as_json:
            stages = [as_dict(state) for state in states]
            text = json.dumps({"run": loaded.run.run, "stages": stages}, indent=2)
            typer.echo(without_secrets(text))
            refuse(states)
            return
        rows = [
            (s.name, s.state.value, *("-" if n is None else str(n) for n in s.counts.values()))
            for s in states
        ]
        title = f"run {loaded.run.run} ({loaded.path})"
        console.table(title, ("stage", "state", "fresh", "stale", "missing"), rows)
        for line in (line for state in states for line in status_lines(state)):
            console.line(line)
        refuse(states)
