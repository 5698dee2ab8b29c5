"""Weights of trained networks on disk, as safetensors with a few words about them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import BaseModel, JsonValue, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from pipeline.errors import StorageError, WeightsError
from pipeline.files import storage


def save_weights(path: Path, weights: Mapping[str, Tensor], about: dict[str, JsonValue]) -> None:
    """Writes a network's weights as safetensors, with a few words about them in the header.

    They are one entry of it, for several would come in another order each time: the same network
    and words are the same bytes.

    Raises:
        StorageError: There is no room.
    """
    tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
    header = {"about": json.dumps(about, sort_keys=True)}
    replace(path, lambda temporary: save_file(tensors, temporary, metadata=header))


def load_weights(
    path: Path, network: nn.Module, fix: str, classes: tuple[str, ...] | None = None
) -> None:
    """Fills a network from a safetensors file.

    Args:
        path: The file.
        network: What it was saved from, or the like.
        fix: What to do where it cannot be.
        classes: Names that the file must have been trained for, where it says for which.

    Raises:
        WeightsError: The file is missing, or holds another network, or one for other classes.
    """
    try:
        content = storage.read_bytes(path)
        tensors = load(content)
        trained = _about(content).classes
        if classes is not None and trained and trained != classes:
            what = f"trained for the classes {', '.join(trained)}, not {', '.join(classes)}"
            raise WeightsError(what, where=str(path), fix=fix)
        network.load_state_dict(tensors)
    except ValidationError as error:
        what = "cannot load the weights: `about` in its header is damaged"
        raise WeightsError(what, where=str(path), fix=fix) from error
    except (OSError, storage.NoPlainFileError, RuntimeError, SafetensorError) as error:
        what = f"cannot load the weights: {_one_line(error)}"
        raise WeightsError(what, where=str(path), fix=fix) from error


class _About(BaseModel):
    """What is read of the words about weights."""

    classes: tuple[str, ...] = ()
    """What they were trained for; none where nobody said."""


def _about(content: bytes) -> _About:
    """What `save_weights` put into the header of what is safetensors; nothing if another wrote it.

    The header is JSON, after its length in 8 bytes.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return _About.model_validate_json(header.get("about", "{}"))


def replace(path: Path, write: Callable[[Path], None]) -> None:
    """Writes a file of tensors, all or nothing.

    Raises:
        StorageError: There is no room; what was there before stays.
    """
    try:
        with storage.replacing(path) as temporary:
            temporary.touch()
            usual = temporary.stat().st_mode
            write(temporary)
            temporary.chmod(usual)  # safetensors' files are for their owner alone
    except (
        RuntimeError,
        SafetensorError,
    ) as error:  # how torch and safetensors tell of a full disk
        what = f"cannot be written: {_one_line(error)}"
        fix = "free some space and run again; what is done stays done"
        raise StorageError(what, where=str(path), fix=fix) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
