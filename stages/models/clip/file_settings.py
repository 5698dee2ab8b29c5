"""What a checkpoint file does not say itself: the activation and the normalization of its model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import open_clip
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save_file

from pipeline.errors import ConfigError, WeightsError
from stages.models.checkpoint_file import (
    CheckpointFile,
    NotTensorsError,
    TorchScriptError,
    one_line,
    read_checkpoint,
)
from stages.models.clip.architectures import HUB_FILE
from stages.models.clip.clip_weights import FOLDER_CONFIG, openai_repository
from stages.models.segmenters.normalization import OPENAI, Normalization

_QUICK = "-quickgelu"


def read_clip_file(path: Path, model: str, where: str) -> CheckpointFile:
    """Reads a checkpoint of a CLIP.

    Args:
        path: The file.
        model: The architecture of open_clip, or local-dir:FOLDER.
        where: The key that names it, for errors.

    Raises:
        WeightsError: It is missing, damaged, or no checkpoint of plain tensors.
    """
    try:
        return read_checkpoint(path)
    except TorchScriptError as error:
        repository = openai_repository(model)
        fix = f"save its `state_dict()`, or a checkpoint of open_clip, preferably {HUB_FILE}"
        if repository is not None:
            fix = (
                f"set `weights: openai`, or run `hf download {repository} {HUB_FILE} --local-dir "
                f"{path.parent}`, which are the same weights, and set "
                f"`model: {model.removesuffix(_QUICK)}{_QUICK}` and "
                f"`weights: {path.parent / HUB_FILE}`"
            )
        raise WeightsError(str(error), where=where, fix=fix) from error
    except (NotTensorsError, OSError) as error:
        what = f"cannot be read as plain tensors: {error}"
        fix = f"use a checkpoint saved by open_clip, preferably {HUB_FILE}"
        raise WeightsError(what, where=where, fix=fix) from error


def settings_of(
    path: Path, model: str, read: CheckpointFile, normalization: Normalization | None
) -> dict[str, Any]:
    """Arguments of `open_clip.create_model` for a checkpoint file of an architecture.

    Args:
        path: The file. A config of open_clip next to it counts.
        model: The architecture of open_clip.
        read: The checkpoint.
        normalization: The config's own key, which counts first.

    Raises:
        ConfigError: open_clip's weights of this architecture differ in activation or
            normalization, and nothing tells which of them the file is like.
        WeightsError: The config next to the file is damaged.
    """
    options: dict[str, Any] = {}
    is_quick = read.is_of_openai or _activation_beside(path)
    if is_quick is False and model.endswith(_QUICK):
        what = f"it has the exact GELU by the {FOLDER_CONFIG} next to it"
        fix = f"set `model: {model.removesuffix(_QUICK)}`"
        raise ConfigError(what, where=f"weights: {path}", fix=fix)
    if is_quick is None and not model.endswith(_QUICK):
        is_quick = _activation_of_all_tags(model, path)
    if is_quick:
        options["force_quick_gelu"] = True  # open_clip would take exact GELU without a word
    found = normalization or normalization_beside(path)
    if found is None:
        found = OPENAI if read.is_of_openai else _normalization_of_all_tags(model)
    options["force_preprocess_cfg"] = {"mean": tuple(found.mean), "std": tuple(found.std)}
    return options


def normalization_beside(path: Path) -> Normalization | None:
    """What the config of open_clip next to a file says of normalization; None if nothing.

    Raises:
        WeightsError: The config is damaged, or its numbers cannot be those of images in [0, 1].
    """
    config = _mapping_beside(path, "preprocess_cfg")
    stated = {key: config[key] for key in ("mean", "std") if key in config}
    if not stated:
        return None
    try:
        # As open_clip does, what is missing is OpenAI's.
        return TypeAdapter(Normalization).validate_python({**asdict(OPENAI), **stated})
    except ValidationError as error:
        what = "preprocess_cfg.mean and std must be three numbers each, from 0 to 1, and std not 0"
        raise _damaged(path, what) from error


@contextmanager
def as_safetensors(path: Path, read: CheckpointFile) -> Iterator[Path]:
    """A file of only the tensors, as open_clip reads it: the file itself, or a temporary one."""
    if read.is_as_written:
        yield path
        return
    with TemporaryDirectory(prefix="maskmill-") as folder:
        plain = Path(folder, HUB_FILE)
        save_file({name: each.contiguous().clone() for name, each in read.tensors.items()}, plain)
        yield plain


def _mapping_beside(path: Path, key: str) -> dict[str, Any]:
    """A mapping in the config next to a file; empty if there is none."""
    file = path.with_name(FOLDER_CONFIG)
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _damaged(path, one_line(error)) from error
    found = config.get(key, {}) if isinstance(config, dict) else None
    if not isinstance(found, dict):
        raise _damaged(path, f"{key} is no mapping")
    return found


def _damaged(path: Path, what: str) -> WeightsError:
    fix = "replace it by the published one, or remove it"
    return WeightsError(what, where=str(path.with_name(FOLDER_CONFIG)), fix=fix)


def _activation_beside(path: Path) -> bool | None:
    """Whether the config next to a file says QuickGELU; None if there is no config."""
    if not path.with_name(FOLDER_CONFIG).is_file():
        return None
    is_quick = _mapping_beside(path, "model_cfg").get("quick_gelu", False)
    if not isinstance(is_quick, bool):
        raise _damaged(path, "model_cfg.quick_gelu must be true or false")
    return is_quick


def _activation_of_all_tags(model: str, path: Path) -> bool:
    """Whether all of open_clip's weights of an architecture have QuickGELU, or none has."""
    tags = _tags(model)
    quick = [name for name, tag in tags.items() if tag.get("quick_gelu")]
    if quick and len(quick) < len(tags):
        what = (
            f"weights of {model} have QuickGELU ({', '.join(quick)}) or exact GELU (the others), "
            "and the file does not say"
        )
        fix = (
            f"set `model: {model}{_QUICK}`, or put its {FOLDER_CONFIG} next to it; for exact GELU "
            '{"model_cfg": {"quick_gelu": false}} in that file is enough'
        )
        raise ConfigError(what, where=f"weights: {path}", fix=fix)
    return bool(quick)


def _normalization_of_all_tags(model: str) -> Normalization:
    """The normalization that all of open_clip's weights of an architecture have in common."""
    tags = _tags(model).values()
    found = {Normalization(tuple(tag["mean"]), tuple(tag["std"])) for tag in tags}
    if len(found) > 1:
        shown = " or ".join(str(list(each.mean)) for each in sorted(found, key=lambda n: n.mean))
        what = f"weights of {model} are normalized by the mean {shown}, and the file does not say"
        fix = (
            f"put its {FOLDER_CONFIG} next to it, or set `normalization: {{mean: [...], "
            "std: [...]}`"
        )
        raise ConfigError(what, where=f"model: {model}", fix=fix)
    return found.pop() if found else OPENAI


def _tags(model: str) -> dict[str, dict[str, Any]]:
    """The settings of all of open_clip's weights of an architecture, by tag."""
    names = open_clip.list_pretrained_tags_by_model(model)
    return {name: open_clip.get_pretrained_cfg(model, name) for name in names}
