"""Arguments and options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

_FILE = "The YAML file that describes the run."
_DEFAULT = "Default: maskmill.yaml or configs/sandbox.yaml here, or the sandbox's of Maskmill."

ConfigArgument = Annotated[Path, typer.Argument(help=_FILE)]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help=f"{_FILE} {_DEFAULT}", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the config; repeatable."),
]
StrictOption = Annotated[
    bool,
    typer.Option("--strict-versions", help="Take what other versions of libraries made as stale."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
