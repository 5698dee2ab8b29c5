"""The command `config`."""

from typing import Annotated

import typer

from maskmill.cli.options import ConfigOption, SetOption


def config(
    path: ConfigOption = None,
    overrides: SetOption = None,
    explain: Annotated[
        str | None,
        typer.Option("--explain", metavar="KEY", help="Explain a key, e.g. train.crop_px."),
    ] = None,
) -> None:
    """Print a config with what it extends, or explain a key."""
    import json

    import yaml

    from maskmill.cli.opened_run import leader_console, opened_run

    with opened_run(path, overrides) as loaded:
        if explain is not None:
            from maskmill.cli.explain import explained

            console = leader_console()
            for line in explained(loaded, explain):
                console.line(line)
            return
        values = json.loads(json.dumps(dict(loaded.values)))  # plain, as YAML writes them
        typer.echo(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), nl=False)
