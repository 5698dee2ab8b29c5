"""One YAML file describes a run: a few keys for the run itself and a section per stage.

With `extends: other.yaml`, a file in the same folder, a file holds only the differences from it.

Sections are strict, frozen pydantic models next to the code that they configure. Every mistake
becomes one line: the file or `--set` with the key as written there, what is wrong, and the fix.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError, create_model
from pydantic_core import ErrorDetails

from pipeline.config.config_merge import merged, without_empty
from pipeline.config.config_section import Name, Section
from pipeline.config.origins import Layer, Origins, Place
from pipeline.config.overrides import apply_override
from pipeline.config.plain_words import KEY, MAPPING, Unit, Words, in_plain_words
from pipeline.config.vocabulary import Vocabulary
from pipeline.config.yaml_files import read_layer, read_yaml
from pipeline.errors import ConfigError, MaskmillError, together
from pipeline.files.config_paths import ConfigLocation, ConfigPaths, LocalPath
from pipeline.files.locations import Location

S = TypeVar("S", bound=Section)
K = TypeVar("K", bound=Section)
R = TypeVar("R", bound="RunConfig")


class ClusterConfig(Section):
    """Workers of stage one."""

    workers: Annotated[int, Field(ge=0, le=1024), Unit("processes")] = 0
    """Local worker processes, distributed over the GPUs; 0 = one worker thread in this process."""
    address: (
        Annotated[
            str,
            Field(pattern=r"^(tcp|tls|ucx|wss?)://."),
            Words("an address such as tcp://host:8786"),
        ]
        | None
    ) = None
    """Address of a running Dask scheduler (tcp://host:8786); takes precedence over `workers`."""
    retries: int = Field(default=2, ge=0)
    """Number of retries of a shard whose worker died, before it counts as failed."""


class RunConfig(Section):
    """The keys of a config file that belong to no stage."""

    run: Name
    """Name of the run: its folder below manifests/ and artifacts/."""
    workspace: Location = Path()
    """Folder, or address s3://bucket/prefix, of manifests/ and artifacts/."""
    data: ConfigLocation | None = None
    """Folder, or address s3://bucket/prefix, that relative paths of the sources start from; default
    artifacts/<run>/data."""
    vocabulary: LocalPath
    """The class list; a relative path starts at the config file's folder."""
    cluster: ClusterConfig = ClusterConfig()
    """Workers of stage one."""


@dataclass(frozen=True)
class Config:
    """A whole config file, read and checked.

    Attributes:
        path: The config file.
        run: The keys that belong to no stage.
        sections: The checked section of each stage that the file names, by stage name.
        vocabulary: The class list that the file names.
        values: The plain values, with those of extended files and overrides, before any check.
        origins: The files and overrides that the values come from; None without a file.
        warnings: Lines about paths that do not start where they should.
    """

    path: Path
    run: RunConfig
    sections: Mapping[str, Section]
    vocabulary: Vocabulary
    values: Mapping[str, Any] = field(default_factory=dict, repr=False)
    origins: Origins | None = field(default=None, repr=False)
    warnings: tuple[str, ...] = ()

    def where(self, *place: str | int) -> str:
        """The file or override, and the key as written there, of a value; for an error.

        Args:
            place: Of the checked value: ``where("train", "variants", "default", "steps")`` is
                "run.yaml: train.steps" if `train` has no `variants`.
        """
        stage, *inner = place
        origins = self.origins or Origins([Layer(self.path, {})])
        if (section := self.sections.get(str(stage))) is None:
            return origins.where(place)
        found = section.written_at(self.values.get(str(stage)), tuple(inner))
        return origins.where((stage, *found.place), found.remark)

    @contextmanager
    def naming_overrides(self) -> Iterator[None]:
        """Lets errors about keys of the file name the overrides that set them."""
        try:
            yield
        except MaskmillError as error:
            if (origins := self.origins) is None:
                raise
            raise together(
                fault.moved(origins.renamed(fault.where)) for fault in (error, *error.others)
            ) from error

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
        overrides: ``key=value`` texts of `--set`: dotted keys, YAML values.
        implied: Stages whose section has default keys where a config has the section of another
            stage and none of theirs; by name, with the other stage's name.

    Raises:
        ConfigError: The file is missing, is not YAML, or holds a wrong or unknown key or value.
    """
    fix = "name an existing file; `maskmill configs copy` gives one to begin with"
    layers = _read_layers(path, fix)
    values: dict[str, Any] = layers[-1].values
    for layer in reversed(layers[:-1]):
        values = merged(values, layer.values)
    values = without_empty(values)
    origins = Origins(layers, [apply_override(override, values) for override in overrides])
    for name, other in (implied or {}).items():
        if other in values:
            values.setdefault(name, {})
    for name in stage_sections.keys() & values.keys():
        if values[name] is None:  # a bare `evaluate:` means all defaults
            values[name] = {}
    fields: dict[str, Any] = {name: (kind | None, None) for name, kind in stage_sections.items()}
    model = create_model("ConfigFile", __base__=RunConfig, **fields)
    paths = ConfigPaths(path)
    with paths.being_read():
        run, vocabulary = _run_and_vocabulary(model, values, origins)
    sections = {name: section for name in fields if (section := getattr(run, name)) is not None}
    return Config(path, run, sections, vocabulary, values, origins, tuple(paths.warnings))


def _run_and_vocabulary(
    model: type[R], values: dict[str, Any], origins: Origins
) -> tuple[R, Vocabulary]:
    """Checks the keys of a config and the class list that it names; all faults of both at once."""
    faults: list[MaskmillError] = []
    run = vocabulary = None
    try:
        run = _checked(model, values, origins)
    except ConfigError as error:
        faults += [error, *error.others]
    if isinstance(named := values.get("vocabulary"), str):
        try:
            file = run.vocabulary if run else TypeAdapter(LocalPath).validate_python(named)
            where = origins.where(("vocabulary",))
            own = f"set `vocabulary` in {origins.layers[0].path} to an existing file"
            fix = f"correct {where}" if where.startswith("--set ") else own
            vocabulary = parse_section(Vocabulary, read_yaml(file, fix=fix), path=file)
        except ConfigError as error:
            faults += [error, *error.others]
        except ValidationError:
            pass  # no path at all, which the keys' own faults tell
    if run is None or vocabulary is None:
        raise together(faults)
    return run, vocabulary


def _read_layers(path: Path, fix: str) -> list[Layer]:
    """Reads a config file, and those that it extends, directly or through another.

    Args:
        path: The file.
        fix: What to do if it cannot be read.
    """
    layers = [Layer(path, read_layer(path, fix=fix))]
    while "extends" in (values := layers[-1].values):
        file, name = layers[-1].path, without_empty(values.pop("extends"))
        where = f"{file}: extends"
        if not isinstance(name, str) or not name or Path(name).name != name:
            fix = "name one config file in the same folder, e.g. sandbox.yaml"
            raise ConfigError(f"{name!r} is wrong", where=where, fix=fix)
        extended = file.with_name(name)
        if any(extended == layer.path for layer in layers):
            raise ConfigError(f"{name} extends this file", where=where, fix="remove one `extends`")
        fix = f"set `extends` in {file} to an existing file"
        layers.append(Layer(extended, read_layer(extended, fix=fix)))
    return layers


def parse_section(model: type[S], values: dict[str, Any], *, path: Path) -> S:
    """Checks the plain values of one file against a section's model.

    Raises:
        ConfigError: A key is unknown or missing, or a value is wrong; names file and dotted key.
    """
    return _checked(model, values, Origins([Layer(path, values)]))


def _checked(model: type[S], values: dict[str, Any], origins: Origins) -> S:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults, missing = [], dict[str, list[str]]()
        details = in_plain_words(error).errors()
        # A misspelled key first: another key is missing because of it.
        for detail in sorted(details, key=lambda detail: detail["type"] != "unknown_key"):
            found = model.written_at(values, _place(detail, values))
            where = origins.where(found.place, found.remark)
            if detail["type"] == "missing" and not found.remark:
                file, _, key = where.rpartition(": ")
                missing.setdefault(file, []).append(key)
            else:
                faults.append(_error(detail, where))
        faults += [_missing(file, keys) for file, keys in missing.items()]
        raise together(faults) from error


def _missing(file: str, keys: Sequence[str]) -> ConfigError:
    """One error for all keys that a file lacks."""
    first, *others = dict.fromkeys(keys)
    if not others:
        return ConfigError("the key is missing", where=f"{file}: {first}", fix="add it")
    what = f"{len(others) + 1} keys are missing: {', '.join((first, *others))}"
    return ConfigError(what, where=file, fix="add them")


def _place(detail: ErrorDetails, values: dict[str, Any]) -> Place:
    """The place of an error in the checked values."""
    place = detail["loc"]
    if detail["type"] == "unknown_component" and isinstance(detail["input"], dict):
        return (*place, "name")
    if detail["type"] == "unknown_key" and (key := detail["ctx"]["key"]) not in place[-1:]:
        return (*place, key)
    return place[:-1] if place[-1:] == (KEY,) else place


def _error(detail: ErrorDetails, where: str) -> ConfigError:
    if detail["type"] == "unknown_key":
        return ConfigError("unknown key", where=where, fix=detail["msg"])
    if detail["type"] == "unknown_component":
        return ConfigError(f"no component {detail['ctx']['name']}", where=where, fix=detail["msg"])
    if detail["type"] == "missing":
        return ConfigError("the key is missing", where=where, fix="add it")
    fix = detail["msg"] if detail["type"] == "wrong_value" else f"write {MAPPING}"
    if isinstance(detail["input"], dict) and detail["input"]:
        return ConfigError("these keys are wrong", where=where, fix=fix)
    name = "the name " if detail["loc"][-1:] == (KEY,) else ""
    return ConfigError(f"{name}{_shown(detail['input'])} is wrong", where=where, fix=fix)


def _shown(value: object) -> str:
    """A value as in YAML, shortened."""
    names: dict[object, str] = {None: "null", True: "true", False: "false"}
    is_named = value is None or isinstance(value, bool)
    text = names[value] if is_named else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
