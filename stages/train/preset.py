"""Presets: published trainings as files, whose keys a config's own ones are laid over."""

from pathlib import Path
from typing import Any

import stages.train.presets
from pipeline.config.config_merge import merged
from pipeline.config.yaml_files import read_yaml

FOLDER = Path(stages.train.presets.__path__[0])
_DATASETS = "datasets"
LENGTHS = ("steps", "epochs")
"""Keys that say how long a training is, either of them."""


def names() -> list[str]:
    """Names of the presets there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def datasets(preset: str) -> list[str]:
    """Datasets that a preset has values of its own for."""
    return sorted(_read(preset)[_DATASETS])


def lengthened(base: dict[str, Any], own: Any) -> Any:
    """Plain keys with others over them (see `merged`), of which any length replaces any length.

    Without others (None) they stay as they are.
    """
    if own is None:
        return base
    if isinstance(own, dict) and any(own.get(key) is not None for key in LENGTHS):
        base = {key: value for key, value in base.items() if key not in LENGTHS}
    return merged(base, own)


def expanded(keys: Any) -> Any:
    """The keys of a training, laid over those of its preset.

    Args:
        keys: Of one training; `preset` names a file, `dataset` one of the file's datasets, whose
            values come before the others of the file. Without a preset, or with one that is not
            there, they stay as they are; so do mistakes.
    """
    if not (below := layers(keys)):
        return keys
    of_dataset, of_others = below
    return lengthened(lengthened(of_others, of_dataset), keys)


def layers(keys: Any) -> list[Any]:
    """The values of a preset: those for the training's dataset, and those below them.

    Empty for a training without a preset, or with an unknown one.
    """
    if not isinstance(keys, dict) or (preset := keys.get("preset")) not in names():
        return []
    values = _read(preset)
    of_dataset = values.pop(_DATASETS).get(str(keys.get("dataset")))
    return [of_dataset or {}, values]


def _read(preset: str) -> dict[str, Any]:
    return read_yaml(FOLDER / f"{preset}.yaml", fix="install the package anew")
