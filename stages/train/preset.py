"""Presets: published trainings as YAML files, overridden by the keys of the config."""

from pathlib import Path
from typing import Any

import stages.train.presets
from pipeline.config.config_merge import merged
from pipeline.config.yaml_files import read_yaml

FOLDER = Path(stages.train.presets.__path__[0])
_DATASETS = "datasets"
_PROTOCOL = "protocol"
LENGTHS = ("steps", "epochs")
"""Keys for the length of a training; a config sets one of them."""


def names() -> list[str]:
    """Names of all presets."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def datasets(preset: str) -> list[str]:
    """Datasets for which a preset has its own values."""
    return sorted(_read(preset)[_DATASETS])


def overridden(base: dict[str, Any], own: Any) -> Any:
    """The keys of `base`, overridden by `own` (see `merged`); None overrides nothing.

    A length in `own` replaces any length in `base`.
    """
    if own is None:
        return base
    if isinstance(own, dict) and any(own.get(key) is not None for key in LENGTHS):
        base = {key: value for key, value in base.items() if key not in LENGTHS}
    return merged(base, own)


def expanded(keys: Any) -> Any:
    """The keys of a training, added to those of its preset.

    Keys without a preset, or with an unknown one, are returned unchanged; validation reports
    mistakes later.

    Args:
        keys: Keys of one training. `preset` names a file, `dataset` one of the file's datasets,
            whose values override the other values of the file.
    """
    if not (below := layers(keys)):
        return keys
    of_dataset, of_others = below
    return overridden(overridden(of_others, of_dataset), keys)


def layers(keys: Any) -> list[Any]:
    """The values of a preset: those for the training's dataset, and those below them.

    Empty for a training without a preset, or with an unknown one.
    """
    if not isinstance(keys, dict) or (preset := keys.get("preset")) not in names():
        return []
    values = _read(preset)
    of_dataset = values.pop(_DATASETS).get(str(keys.get("dataset"))) or {}
    return [_without_protocol(layer) for layer in (of_dataset, values)]


def protocol(preset: str | None, dataset: str | None) -> dict[str, Any] | None:
    """The keys of `evaluate` by which a preset was scored on a dataset; None if that is unknown."""
    if preset is None:
        return None
    values = _read(preset)
    of_dataset = values[_DATASETS].get(dataset) or {}
    found: dict[str, Any] | None = of_dataset.get(_PROTOCOL, values.get(_PROTOCOL))
    return found


def _without_protocol(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != _PROTOCOL}


def _read(preset: str) -> dict[str, Any]:
    return read_yaml(FOLDER / f"{preset}.yaml", fix="reinstall Maskmill")
