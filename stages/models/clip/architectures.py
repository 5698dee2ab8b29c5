"""The architectures of open_clip, and the tags of their published weights."""

import difflib
import re
import textwrap
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip

from pipeline.console import Console
from pipeline.errors import ConfigError, WeightsError
from pipeline.files.checksum import digest
from stages.models.clip.clip_weights import FOLDER_PREFIX
from stages.models.clip.folder_check import check_folder

HUB_FILE = "open_clip_model.safetensors"
"""Name of the weights in repositories of the Hugging Face hub."""


def model_config(name: str) -> dict[str, Any]:
    """open_clip's config of an architecture, or of local-dir:FOLDER.

    Raises:
        ConfigError: The architecture is unknown.
        WeightsError: The folder is not in open_clip's layout.
    """
    try:
        config: dict[str, Any] | None = open_clip.get_model_config(name)
    except (OSError, ValueError) as error:
        fix = "use a folder with open_clip_config.json, as open_clip saves it"
        raise WeightsError(reason_of(error), where=f"model: {name}", fix=fix) from error
    if config is None:
        close = difflib.get_close_matches(name, open_clip.list_models(), n=1)
        fix = f"use an architecture such as {(close or ['ViT-B-16'])[0]}, or local-dir:FOLDER"
        raise ConfigError("open_clip has no such architecture", where=f"model: {name}", fix=fix)
    if name.startswith(FOLDER_PREFIX):
        check_folder(config, f"model: {name}")
    return config


def tag_of(model: str, name: str) -> dict[str, Any]:
    """open_clip's entry of an architecture's weights.

    Raises:
        ConfigError: There is no such tag.
    """
    tag: dict[str, Any] = open_clip.get_pretrained_cfg(model, name)
    if not tag:
        known = open_clip.list_pretrained_tags_by_model(model)
        fix = f"use one of {', '.join(known)}, or a checkpoint file" if known else "use a file"
        what = f"open_clip has no such weights of {model}"
        raise ConfigError(what, where=f"weights: {name}", fix=fix)
    return tag


def fetch_tag(model: str, name: str, console: Console | None = None) -> Path:
    """Downloads the weights of a tag, unless they are in the cache of the Hugging Face hub.

    Args:
        model: An architecture of open_clip.
        name: Of the tag.
        console: Shows that a download starts; on a terminal the hub's library draws its own bar.

    Returns:
        The file; it holds what was published, as far as the hub says what that was.

    Raises:
        ConfigError: There is no such model or tag.
        WeightsError: They cannot be downloaded, or are damaged.
    """
    model_config(model)
    tag = tag_of(model, name)
    repository, _, file = tag["hf_hub"].rpartition("/")
    file = file or HUB_FILE
    where = f"weights: {name}"
    try:
        if not huggingface_hub.try_to_load_from_cache(repository, file):
            # A single request first: offline, the hub's own retries take most of a minute.
            huggingface_hub.file_exists(repository, file)
            if console is not None:
                console.note(f"downloads {file} of {repository}")
        path = Path(open_clip.download_pretrained(tag))
    except Exception as error:  # its type depends on the versions of the hub and its http library
        quick = f"{model}-quickgelu"
        renamed = tag.get("quick_gelu") and quick in open_clip.list_models()
        fix = (
            f"where there is a connection, run `hf download {repository} {file} --local-dir "
            f"weights`, then set `model: {quick if renamed else model}` and "
            f"`weights: weights/{file}`"
        )
        what = f"cannot be downloaded ({reason_of(error)})"
        raise WeightsError(what, where=where, fix=fix) from error
    blob = path.resolve()
    # In the hub's cache, the name of a large file is its published SHA-256.
    if re.fullmatch("[0-9a-f]{64}", blob.name) and digest(blob) != blob.name:
        path.unlink()
        blob.unlink()
        what = f"{path} differed from the published file and was deleted"
        raise WeightsError(what, where=where, fix="run again to download it")
    return path


def reason_of(error: Exception) -> str:
    """An error of a library as a few words on one line."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", 160)
