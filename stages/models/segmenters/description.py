"""The description in the header of a model file; reading it needs no torch."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal

from pydantic import JsonValue, ValidationError
from pydantic_core import ErrorDetails, from_json

from pipeline.config.components import Choice
from pipeline.config.config_section import Facts, Section
from pipeline.config.plain_words import in_plain_words
from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import WeightsError
from pipeline.files import storage
from pipeline.records.part_file import digest
from stages.models.segmenters.builders.base import ModelBuilder, ModelChoice
from stages.models.segmenters.normalization import IMAGENET, Normalization
from stages.models.segmenters.protocol import Protocol

HEADER_KEY = "maskmill"
"""The entry of the safetensors metadata that holds the description, as JSON."""

_FORMAT: Final = 1
_EARLIER_KEY = "about"
_MAX_HEADER_BYTES = 2**24
"""A header is a hundred bytes per tensor and some kilobytes of description."""
_NAME_ANOTHER = (
    "if a training of yours wrote it, delete it and run `maskmill run train`; "
    "otherwise name the model.safetensors of a finished training"
)


class TrainingFacts(Section):
    """The training that a model file comes from."""

    fingerprint: str
    """Digest of `depends_on`; also in the metadata of the training's manifest part."""
    depends_on: dict[str, JsonValue]
    """Keys, versions, checksums and inputs that the weights depend on, by dotted name."""


class ModelDescription(Section):
    """Everything that using a trained network needs, except the tensors."""

    format: Literal[1] = _FORMAT
    """Version of this description."""
    model: ModelChoice
    """The network: `name` and its keys, as `train.model` in a config."""
    architecture: dict[str, JsonValue]
    """Values that the network's builder read from other files; see `ModelBuilder.architecture`."""
    vocabulary: Vocabulary
    """The classes with colours and concepts; without `label_schemes`, which only label files
    need."""
    normalization: Normalization
    """Mean and standard deviation of the images that the network takes."""
    protocol: Protocol
    """How an image is predicted: the keys of the section `evaluate`."""
    training: TrainingFacts
    """The training that the weights come from."""
    versions: dict[str, str]
    """Versions of maskmill and torch that wrote the file."""

    @classmethod
    def of_training(
        cls,
        model: Choice[ModelBuilder],
        vocabulary: Vocabulary,
        protocol: Protocol,
        facts: Facts,
    ) -> ModelDescription:
        """Describes the result of a training.

        Args:
            model: The network that is trained.
            vocabulary: The classes.
            protocol: How its images are predicted in evaluation.
            facts: The facts of the training.

        Raises:
            ConfigError: A key of the model names something that the field library does not have.
            WeightsError: A file that defines the architecture is missing.
        """
        return cls(
            model=model,
            architecture=model.create().architecture(),
            vocabulary=vocabulary.model_copy(update={"label_schemes": {}}),
            normalization=IMAGENET,
            protocol=protocol,
            training=TrainingFacts(fingerprint=digest(facts), depends_on=facts),
            versions={name: version(name) for name in ("maskmill", "torch")},
        )

    def to_json(self) -> str:
        """The description as JSON; equal descriptions give equal text."""
        plain = self.model_dump(mode="json", exclude={"vocabulary": {"label_schemes"}})
        return json.dumps(plain, sort_keys=True, allow_nan=False)

    def check_classes(self, vocabulary: Vocabulary, path: Path) -> None:
        """Refuses a vocabulary with other classes than the network's.

        Args:
            vocabulary: The vocabulary of the run.
            path: The model file, for the message.

        Raises:
            WeightsError: Names differ, or their order.
        """
        own, wanted = self.vocabulary.class_names, vocabulary.class_names
        if own != wanted:
            raise WeightsError(
                f"trained for the classes {', '.join(own)}, not {', '.join(wanted)}",
                where=str(path),
                fix="set `vocabulary` to the one it was trained with, or name a model file "
                "that was trained for the classes of this run",
            )


def read_description(path: Path) -> ModelDescription:
    """Reads the description of a model file, or of an ONNX file that was exported from one.

    Raises:
        WeightsError: The file is missing, or is not a model file of this version.
    """
    if path.suffix.lower() == ".onnx":
        return _of_onnx(path)
    try:
        length = int.from_bytes(storage.read_range(str(path), 0, 8), "little")
        head = storage.read_range(str(path), 0, 8 + min(length, _MAX_HEADER_BYTES))
    except (OSError, storage.NoPlainFileError) as error:
        raise unreadable(error, path) from error
    return parse_description(head, path)


def parse_description(content: bytes, path: Path) -> ModelDescription:
    """The description in the first bytes of a model file.

    Args:
        content: The whole file, or its first bytes up to the end of the header: its length in
            8 bytes, then JSON.
        path: The file, for messages.

    Raises:
        WeightsError: The bytes are not those of a model file of this version.
    """
    return _parsed(_metadata(content, path).get(HEADER_KEY), path)


def _of_onnx(path: Path) -> ModelDescription:
    from stages.models.segmenters.onnx_file import metadata_of  # an optional library

    try:
        metadata = metadata_of(path)
    except (OSError, storage.NoPlainFileError) as error:
        raise unreadable(error, path) from error
    if HEADER_KEY not in metadata:
        what = "not an ONNX file of Maskmill: it has no description of a network"
        fix = "name a file that `maskmill export model --to onnx` wrote"
        raise WeightsError(what, where=str(path), fix=fix)
    return _parsed(metadata[HEADER_KEY], path)


def _parsed(text: JsonValue, path: Path) -> ModelDescription:
    """The description in its text."""
    if not isinstance(text, str):
        raise _damaged("not a text", path)
    try:
        values = from_json(text)
    except ValueError as error:
        raise _damaged("not valid JSON", path) from error
    number = values.get("format") if isinstance(values, dict) else None
    if isinstance(number, int) and number > _FORMAT:
        what = (
            f"a newer version of Maskmill wrote it (format {number}, this version reads {_FORMAT})"
        )
        raise WeightsError(what, where=str(path), fix="update Maskmill")
    try:
        return ModelDescription.model_validate_json(text)
    except ValidationError as error:
        raise _invalid(in_plain_words(error).errors()[0], values, path) from error


def unreadable(error: Exception, path: Path) -> WeightsError:
    """The error for a model file that is missing or that the system cannot read."""
    if isinstance(error, FileNotFoundError):
        fix = "train it, or name the model.safetensors of a training that is done"
        return WeightsError("there is no such file", where=str(path), fix=fix)
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return WeightsError(f"cannot be read: {reason}", where=str(path), fix=_NAME_ANOTHER)


def not_safetensors(path: Path) -> WeightsError:
    """The error for a file of another kind, or one that is cut off."""
    what = "not a safetensors file, or a damaged one"
    return WeightsError(what, where=str(path), fix=_NAME_ANOTHER)


def _metadata(content: bytes, path: Path) -> dict[str, JsonValue]:
    """The metadata of a safetensors file that has a description."""
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length] if length <= _MAX_HEADER_BYTES else b""
    try:
        values = from_json(header)
    except ValueError as error:
        raise not_safetensors(path) from error
    if not isinstance(values, dict):
        raise not_safetensors(path)
    metadata = values.get("__metadata__")
    if isinstance(metadata, dict) and HEADER_KEY in metadata:
        return metadata
    if isinstance(metadata, dict) and _EARLIER_KEY in metadata:
        what = "an earlier version of Maskmill wrote it, without a description of the network"
        fix = "delete it and run `maskmill run train` with the config of its training"
        raise WeightsError(what, where=str(path), fix=fix)
    what = "not a model file of Maskmill: its header has no description of a network"
    fix = "name the model.safetensors of a finished training"
    raise WeightsError(what, where=str(path), fix=fix)


def _invalid(problem: ErrorDetails, values: object, path: Path) -> WeightsError:
    """The error for a description that does not have the expected form."""
    if problem["type"] == "unknown_component":
        versions = values.get("versions") if isinstance(values, dict) else None
        writer = versions.get("maskmill") if isinstance(versions, dict) else None
        what = f"this version of Maskmill has no network {problem['ctx']['name']}"
        fix = f"use Maskmill {writer}, which wrote the file" if writer else problem["msg"]
        return WeightsError(what, where=str(path), fix=fix)
    place = ".".join(str(step) for step in problem["loc"])
    if problem["type"] == "unknown_key":
        return _damaged(f"unknown key {place}", path)
    reason = "the key is missing" if problem["type"] == "missing" else problem["msg"]
    return _damaged(f"{place}: {reason}".removeprefix(": "), path)


def _damaged(reason: str, path: Path) -> WeightsError:
    what = f"the description in its header is damaged: {' '.join(reason.split())[:200]}"
    return WeightsError(what, where=str(path), fix=_NAME_ANOTHER)
