"""Pretrained weights of encoders: a tag, fetched from the Hugging Face hub, or a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.config_section import Facts
from pipeline.errors import WeightsError
from pipeline.files import locations
from pipeline.files.checksum import checksum

if TYPE_CHECKING:
    from torch import Tensor

_ENDINGS = frozenset([".bin", ".pt", ".pth", ".safetensors"])
_HUB_FILE = "model.safetensors"


def weights_file(weights: str | None) -> Path | None:
    """The file that a key names, there or not; None for a tag, and for random weights."""
    if weights is None:
        return None
    path = locations.local_path(weights)
    is_path = "/" in weights or path.suffix in _ENDINGS
    return path if is_path else None


def weights_facts(weights: str | None, where: str) -> Facts:
    """The tag, whose revision is the field library's; or the checksum of the file.

    Args:
        weights: What the config names.
        where: By which key, such as model.encoder_weights.

    Raises:
        WeightsError: The file is missing.
    """
    file = weights_file(weights)
    if file is None:
        return {"weights": weights}
    if not file.is_file():
        fix = "put the weights there, or set the key to a tag to download them"
        raise WeightsError("there is no such file", where=f"{where}: {file}", fix=fix)
    return {"weights": checksum(file)}


def hub_file(repository: str, where: str, revision: str | None = None) -> Path:
    """The weights of a repository of the Hugging Face hub, downloaded unless they are cached.

    Args:
        repository: Owner and name.
        where: The key of the config that asks for them.
        revision: Branch or commit; None = the newest.

    Raises:
        WeightsError: They cannot be downloaded; says how to fetch them by hand.
    """
    import huggingface_hub

    try:
        cached = huggingface_hub.try_to_load_from_cache(repository, _HUB_FILE, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
        # One request: offline, the hub's own retries would take most of a minute.
        huggingface_hub.file_exists(repository, _HUB_FILE, revision=revision)
        return Path(huggingface_hub.hf_hub_download(repository, _HUB_FILE, revision=revision))
    except Exception as error:  # depends on the hub's version and its http library
        pinned = f" --revision {revision}" if revision else ""
        folder = f"weights/{repository.rpartition('/')[2]}"
        raise WeightsError(
            f"the weights of {repository} cannot be downloaded ({type(error).__name__})",
            where=where,
            fix=f"where there is a connection, run `hf download {repository} {_HUB_FILE}{pinned} "
            f"--local-dir {folder}`, then set the key to {folder}/{_HUB_FILE}",
        ) from error


def read_tensors(path: Path, where: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, of safetensors or of torch; never unpickles objects.

    Args:
        path: The file; see `stages.models.checkpoint_file` for its forms.
        where: The key of the config that names it.

    Raises:
        WeightsError: It is missing, holds more than plain tensors, or values that are not finite.
    """
    from stages.models.checkpoint_file import NotTensorsError, read_checkpoint
    from stages.models.finite import finite_weights

    try:
        tensors = read_checkpoint(path).tensors
    except FileNotFoundError as error:
        fix = "put the weights there, or set the key to a tag to download them"
        raise WeightsError("there is no such file", where=f"{where}: {path}", fix=fix) from error
    except NotTensorsError as error:
        what = f"cannot be read as plain tensors: {error}"
        fix = "use the checkpoint as it was published, at best as safetensors"
        raise WeightsError(what, where=f"{where}: {path}", fix=fix) from error
    return finite_weights(tensors, f"{where}: {path}")


def misfit(error: Exception, name: str, where: str) -> WeightsError:
    """The error for tensors that do not fit a network.

    Args:
        error: What loading them raised.
        name: Of the network.
        where: The key of the config that names the tensors.
    """
    reason = " ".join(str(error).split())[:160]
    what = f"these are not the weights of {name}: {reason}"
    return WeightsError(what, where=where, fix="name those of the same encoder, or another encoder")
