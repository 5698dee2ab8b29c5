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
    import yaml

    from maskmill.cli.opened_run import opened_run

    with opened_run(path, overrides) as loaded:
        typer.echo(
            yaml.safe_dump(dict(loaded.values), sort_keys=False, allow_unicode=True), nl=False
        )
