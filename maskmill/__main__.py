"""`python -m maskmill`: the command line, where the command `maskmill` is not on the path."""

import os
import sys
from pathlib import Path

_HOME = Path(__file__).resolve().parents[1]
"""The folder that Maskmill's packages are in."""


def _forget_the_working_directory() -> None:
    """Takes the current folder off the import path, unless Maskmill itself is there.

    `python -m` looks for modules in the current folder first, where a user's own `pipeline.py` or
    `stages/` would take the place of Maskmill's packages. The command `maskmill` does not.
    """
    if sys.path and sys.path[0] in ("", os.getcwd()) and Path.cwd() != _HOME:
        del sys.path[0]


if __name__ == "__main__":
    _forget_the_working_directory()
    from maskmill.cli.main import main

    main()
