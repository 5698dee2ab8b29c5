"""Checks, before anything else is imported, of the system and of the import path."""

import sys
from importlib.util import find_spec
from pathlib import Path

_HOME = Path(__file__).resolve().parents[2]
_PACKAGES = ("pipeline", "stages")
"""Packages that are installed with `maskmill`, next to it."""


def problem() -> str | None:
    """Why Maskmill cannot run here, in one line; None if it can."""
    if str(sys.platform) == "win32":
        fix = "use it inside WSL, the Windows Subsystem for Linux"
        return f"Windows: Maskmill runs on Linux and macOS; {fix}"
    for name in _PACKAGES:
        if (place := _place(name)) is not None and _HOME not in place.resolve().parents:
            what = f"Python finds this in place of Maskmill's own package `{name}`"
            fix = "start the command `maskmill` in another folder, or remove this from PYTHONPATH"
            return f"{place}: {what}; {fix}"
    return None


def _place(name: str) -> Path | None:
    """The file or folder that an import of this name would read."""
    spec = find_spec(name)
    if spec is None:
        return None
    folders = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.origin else [])]
    return Path(folders[0])
