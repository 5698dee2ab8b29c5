"""Where on this machine is kept what can be had again, and what all runs share."""

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """The folder that MASKMILL_CACHE names, else `maskmill` among the user's caches.

    It may be deleted at any time.
    """
    if named := os.environ.get("MASKMILL_CACHE"):
        return Path(named)
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches, "maskmill")
    try:
        return Path.home() / ".cache" / "maskmill"
    except RuntimeError:  # a container may run under a number that is no user
        return Path(tempfile.gettempdir(), f"maskmill-{os.getuid()}")
