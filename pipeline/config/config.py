"""One YAML file describes a run: a few keys for the run itself and a section per stage.

With `extends: other.yaml`, which lies beside it, a file holds only what differs from that one.

Sections are strict, frozen pydantic models that sit beside what they configure. Every mistake
becomes one line that names the file, the dotted key, what is wrong and what would be right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, create_model

from pipeline.config.config_merge import merged, without_empty
from pipeline.config.config_section import Name, Section
from pipeline.config.vocabulary import Vocabulary
from pipeline.config.yaml_files import parse_value, read_layer, read_yaml
from pipeline.errors import ConfigError
from pipeline.files.storage import Location

S = TypeVar("S", bound=BaseModel)
K = TypeVar("K", bound=Section)


class ClusterConfig(Section):
    """Where stage one runs."""

    workers: int = Field(default=0, ge=0)
    """Local worker processes, one a GPU in turn; 0 = one worker thread inside this process."""
    address: Annotated[str, Field(pattern=r"^(tcp|tls|ucx|wss?)://.")] | None = None
    """Address of a running Dask scheduler (tcp://host:8786); takes precedence over `workers`."""
    retries: int = Field(default=2, ge=0)
    """How often a shard is tried again that was lost with a worker; then it counts as failed."""


class RunConfig(Section):
    """The keys of a config file that belong to no stage."""

    run: Name
    """Name of the run: its folder below manifests/ and artifacts/."""
    workspace: Location = Path()
    """Folder, or address s3://bucket/prefix, that manifests/ and artifacts/ are below."""
    data: Location | None = None
    """Folder, or address s3://bucket/prefix, that relative paths of the sources start from; default
    artifacts/<run>/data."""
    vocabulary: Path
    """The class list; a relative path starts at the config file's folder."""
    cluster: ClusterConfig = ClusterConfig()
    """Where stage one runs."""


@dataclass(frozen=True)
class Config:
    """A whole config file, read and checked.

    Attributes:
        path: The file it came from.
        run: The keys that belong to no stage.
        sections: The checked section of each stage that the file names, by stage name.
        vocabulary: The class list the file points to.
    """

    path: Path
    run: RunConfig
    sections: Mapping[str, Section]
    vocabulary: Vocabulary

    def section(self, kind: type[K]) -> K | None:
        """The section of a type; None if the config has none."""
        found = (section for section in self.sections.values() if isinstance(section, kind))
        return next(found, None)

    @property
    def manifests(self) -> Path:
        """Folder of this run's Parquet tables."""
        return self.run.workspace / "manifests" / self.run.run

    @property
    def artifacts(self) -> Path:
        """Folder of this run's stores, checkpoints and report."""
        return self.run.workspace / "artifacts" / self.run.run

    @property
    def data(self) -> Path:
        """Folder that relative paths of the sources start from."""
        return self.run.data or self.artifacts / "data"


def load(
    path: Path,
    stage_sections: Mapping[str, type[Section]],
    overrides: Sequence[str] = (),
    implied: Mapping[str, str] | None = None,
) -> Config:
    """Reads a config file.

    Args:
        path: The YAML file.
        stage_sections: The model of each stage's section, by stage name.
        overrides: ``key=value`` strings (``--set``): dotted keys, YAML values.
        implied: Stages whose section has default keys where a config has the section of another
            stage and none of theirs; by name, with the other stage's name.

    Raises:
        ConfigError: The file is missing, is not YAML, or holds a wrong or unknown key or value.
    """
    fix = "name an existing file with --config, e.g. configs/sandbox.yaml"
    values: dict[str, Any] = without_empty(_read_extended(path, fix, extending=()))
    for override in overrides:
        _apply(override, values)
    for name, other in (implied or {}).items():
        if other in values:
            values.setdefault(name, {})
    for name in stage_sections.keys() & values.keys():
        if values[name] is None:  # a bare `evaluate:` means all defaults
            values[name] = {}
    fields: dict[str, Any] = {name: (kind | None, None) for name, kind in stage_sections.items()}
    run = parse_section(create_model("ConfigFile", __base__=RunConfig, **fields), values, path=path)
    sections = {name: section for name in fields if (section := getattr(run, name)) is not None}
    vocabulary_file = path.parent / run.vocabulary
    vocabulary = parse_section(
        Vocabulary,
        read_yaml(vocabulary_file, fix=f"set `vocabulary` in {path} to an existing file"),
        path=vocabulary_file,
    )
    return Config(path=path, run=run, sections=sections, vocabulary=vocabulary)


def _read_extended(path: Path, fix: str, extending: tuple[Path, ...]) -> dict[str, Any]:
    """Reads a config file, and below its values those of the file that its `extends` names.

    Args:
        path: The file.
        fix: What to do where it cannot be read.
        extending: The files that lead to this one, by their `extends`.
    """
    values = read_layer(path, fix=fix)
    if "extends" not in values:
        return values
    name, where = without_empty(values.pop("extends")), f"{path}: extends"
    if not isinstance(name, str) or not name or Path(name).name != name:
        fix = "name one config file in the same folder, e.g. sandbox.yaml"
        raise ConfigError(f"{name!r} is wrong", where=where, fix=fix)
    below = path.with_name(name)
    if below in (*extending, path):
        raise ConfigError(f"{name} extends this file", where=where, fix="remove one `extends`")
    fix = f"set `extends` in {path} to an existing file"
    filled: dict[str, Any] = merged(_read_extended(below, fix, (*extending, path)), values)
    return filled


def parse_section(model: type[S], values: object, *, path: Path) -> S:
    """Checks plain values against a section's model.

    Raises:
        ConfigError: A key is unknown or missing, or a value is wrong; names file and dotted key.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _first_error(error, path) from error


_OF_TUPLES = ("tuple_type", "too_short", "too_long")


def _first_error(error: ValidationError, path: Path) -> ConfigError:
    detail = error.errors()[0]
    where = f"{path}: {'.'.join(str(step) for step in detail['loc'])}"
    if detail["type"] == "unknown_key":
        where = f"{where}.{detail['ctx']['key']}".replace(": .", ": ")
        return ConfigError("unknown key", where=where, fix=detail["msg"])
    if detail["type"] == "unknown_component":
        return ConfigError(f"no component {detail['ctx']['name']}", where=where, fix=detail["msg"])
    if detail["type"] == "missing":
        return ConfigError("the key is missing", where=where, fix="add it")
    where = where.removesuffix(": ")
    fix = detail["msg"].removeprefix("Value error, ")
    if detail["type"] in _OF_TUPLES:  # what a file calls a list
        fix = fix.replace("Tuple", "List").replace("tuple", "list")
    if detail["type"] == "value_error" and isinstance(detail["input"], dict):
        return ConfigError("these keys are wrong", where=where, fix=fix)
    text = repr(detail["input"])
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return ConfigError(f"{shown} is wrong", where=where, fix=fix)


def _apply(override: str, values: dict[str, Any]) -> None:
    """Sets one ``dotted.key=value`` in nested plain values, in place."""
    key, equals, text = override.partition("=")
    where = f"--set {override}"
    if not (equals and key):
        raise ConfigError("not an override", where=where, fix="write --set key.subkey=value")
    try:
        value = parse_value(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError("the value is not valid YAML", where=where, fix="quote it") from error
    *parents, last = key.split(".")
    target: Any = values
    for parent in parents:
        step = _step(parent, target, where)
        if isinstance(target, dict) and target.get(step) is None:
            target[step] = {}
        target = target[step]
        if not isinstance(target, dict | list):
            raise ConfigError(f"{parent!r} is a value", where=where, fix="set the key itself")
    target[_step(last, target, where)] = value


def _step(text: str, target: dict[str, Any] | list[Any], where: str) -> Any:
    """A part of a dotted key as the key or the position that it is in its target."""
    if isinstance(target, dict):
        return text
    if text.isdecimal() and int(text) < len(target):
        return int(text)
    fix = f"the list has {len(target)} items; write a position, from 0"
    raise ConfigError(f"{text!r} is no position of the list", where=where, fix=fix)
