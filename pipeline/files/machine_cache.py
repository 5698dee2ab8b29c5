"""The folder on this machine for files that all runs share and that can be made again."""

import os
import tempfile
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.files.locations import local_path


def cache_folder() -> Path:
    """The folder that MASKMILL_CACHE names, else `maskmill` among the user's caches.

    It may be deleted at any time.

    Raises:
        ConfigError: MASKMILL_CACHE is no path on this machine.
    """
    if named := os.environ.get("MASKMILL_CACHE"):
        try:
            return local_path(named)
        except ValueError as error:
            raise ConfigError(
                f"{named!r} is wrong", where="MASKMILL_CACHE", fix=str(error)
            ) from error
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches, "maskmill")
    try:
        return Path.home() / ".cache" / "maskmill"
    except RuntimeError:  # a container may run under a user id without a user
        return Path(tempfile.gettempdir(), f"maskmill-{os.getuid()}")
