"""Files of tensors, written all or nothing."""

from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from pipeline.errors import StorageError
from pipeline.files import storage


def replace(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file of tensors.

    Args:
        path: The file; until the new one is complete, what was there before stays.
        write: Writes the tensors to the path that it is called with.

    Raises:
        StorageError: There is no room; what was there before stays.
    """
    try:
        with storage.replacing(path) as temporary:
            temporary.touch()
            usual = temporary.stat().st_mode
            write(temporary)
            temporary.chmod(usual)  # safetensors' files can be read by their owner only
    except (RuntimeError, SafetensorError) as error:  # what torch and safetensors raise when full
        what = f"cannot be written: {' '.join(str(error).split())[:200]}"
        fix = "free some space and run again; what is done stays done"
        raise StorageError(what, where=str(path), fix=fix) from error
