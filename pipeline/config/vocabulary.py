"""The class list of a run: names, concepts, templates, colours, and the codes of label files."""

import html
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field, JsonValue, model_validator

from pipeline.config import label_values
from pipeline.config.class_entry import ClassEntry, Concept, Text
from pipeline.config.config_section import Facts, Section
from pipeline.config.label_values import IGNORE as IGNORE
from pipeline.errors import ConfigError, DataError

CLASS_COLORS = "class colors"
"""Scheme of label files in the colours of the classes; every vocabulary has it."""

PromptSet = Literal["single", "single-dot", "mean-80", "mean-85", "stack-80"]
"""Published prompts: "a photo of a {}" (SemiVL), the same with a full stop (GEM), the mean of
OpenAI's 80 ImageNet templates (CLIP, SCLIP), of these and five of scenes (MaskCLIP), or all 80 on a
separate axis (SED)."""

Aggregation = Literal["concept-max", "concept-avg"]
"""The score of a class with several concepts: the best score, or the score of their mean."""

_DEFAULT_TEMPLATES = ("a photo of a {}",)
_IGNORE_NAME = "ignore"
_STRAIGHT_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")


def _as_text(key: object) -> object:
    return str(key) if isinstance(key, int) else key


class Vocabulary(Section):
    """A class list, as read from a file in configs/vocabularies/."""

    name: Text
    """The name for messages."""
    classes: Annotated[tuple[ClassEntry, ...], Field(min_length=1, max_length=IGNORE)]
    """The classes in the order of their ids; at most 255, since 255 means ignore."""
    background: str | None = None
    """The class of pixels of `background_concepts`; by default such pixels are ignored."""
    background_concepts: tuple[Concept, ...] = ()
    """Concepts in the images that are not classes; the best of their scores counts."""
    aggregation: Aggregation = "concept-max"
    """How the scores of a class's concepts are combined."""
    templates: Annotated[tuple[str, ...], Field(min_length=1)] = _DEFAULT_TEMPLATES
    """Prompt templates, whose embeddings are averaged; {} is replaced by the concept."""
    prompts: PromptSet | None = None
    """A published set of templates, instead of `templates`."""
    label_schemes: dict[str, dict[Annotated[str, BeforeValidator(_as_text)], str]] = Field(
        default_factory=dict
    )
    """By scheme: pixel value or colour (#rrggbb) to class name or "ignore"; "*" = all others."""

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        names = [entry.name for entry in self.classes]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"give each class its own name; two are called {name!r}")
        if _IGNORE_NAME in names:
            raise ValueError(
                f"rename the class {_IGNORE_NAME!r}: in label schemes this name means 255"
            )
        if self.background is not None and self.background not in names:
            raise ValueError(
                f"background {self.background!r} is not a class; use one of: {', '.join(names)}"
            )
        if self.prompts is not None and self.templates != _DEFAULT_TEMPLATES:
            raise ValueError(
                f"leave out `templates` or `prompts`: {self.prompts} has its own templates"
            )
        for template in self.templates:
            if template.count("{}") != 1:
                raise ValueError(f"template {template!r} must have {{}} once, for the concept")
        for scheme, entries in self.label_schemes.items():
            if scheme == CLASS_COLORS:
                raise ValueError(f"rename the label scheme {CLASS_COLORS!r}: that name is taken")
            written: dict[str, str] = {}
            for value, name in entries.items():
                if name not in (*names, _IGNORE_NAME):
                    raise ValueError(
                        f"label_schemes.{scheme}.{value} names {name!r}, which is not a class; "
                        f"use one of: {', '.join(names)}, {_IGNORE_NAME}"
                    )
                if (key := label_values.canonical(value)) is None:
                    raise ValueError(
                        f"label_schemes.{scheme} has the key {value!r}; "
                        "write a pixel value from 0 to 65535, a colour #rrggbb, or '*'"
                    )
                if (other := written.setdefault(key, value)) is not value:
                    raise ValueError(
                        f"label_schemes.{scheme} has {other!r} and {value!r}, which are the same; "
                        "keep one of them"
                    )
        return self

    @property
    def num_classes(self) -> int:
        """Number of classes C; ids are 0 to C - 1."""
        return len(self.classes)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of their ids."""
        return tuple(entry.name for entry in self.classes)

    @property
    def background_id(self) -> int:
        """Mask value for pixels of background concepts: a class id, or 255 = ignore."""
        return IGNORE if self.background is None else self.class_names.index(self.background)

    @property
    def palette(self) -> npt.NDArray[np.uint8]:
        """(256, 3) uint8: display colour of every mask value; black for values without a class."""
        colors = np.zeros((256, 3), np.uint8)
        for class_id, entry in enumerate(self.classes):
            colors[class_id] = list(bytes.fromhex(entry.color[1:]))
        return colors

    def class_facts(self) -> Facts:
        """Facts of models that learn these classes: the class names, in order."""
        return {"vocabulary.classes": list(self.class_names)}

    def prompt_facts(self) -> Facts:
        """Facts of labels made from text: classes, concepts and templates.

        Raises:
            ConfigError: No class has a concept.
        """
        self.check_concepts()
        concepts: Facts = {
            f"vocabulary.concepts.{entry.name}": _plain(entry.asked) for entry in self.classes
        }
        facts: Facts = {
            **self.class_facts(),
            **concepts,
            "vocabulary.background": self.background,
            "vocabulary.background_concepts": _plain(self.background_concepts),
            "vocabulary.aggregation": self.aggregation,
        }
        if self.prompts is None:
            return {**facts, "vocabulary.templates": list(self.templates)}
        return {**facts, "vocabulary.prompts": self.prompts}

    def check_concepts(self) -> None:
        """Refuses a vocabulary that text models cannot use.

        Raises:
            ConfigError: No class has a concept, background concepts included, or two classes have
                the same concept.
        """
        where = f"vocabulary {self.name}"
        owners: dict[frozenset[str], int] = {}
        for value, names in self.queries():
            words = frozenset(map(normal, names))
            if (other := owners.setdefault(words, value)) != value:
                both = f"{self.owner(other)} and {self.owner(value)}"
                what = f"the concept {', '.join(names)!r} belongs to {both}"
                raise ConfigError(what, where=where, fix="give it to only one of them")
        if not {*owners.values()} - {IGNORE}:
            fix = "give at least one class a concept"
            raise ConfigError("no class has a concept to look for", where=where, fix=fix)

    def queries(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Queries for text models: class by class, then the background concepts.

        Background concepts are separate queries under concept-avg too: the mean of a road and a
        lion resembles neither.

        Yields:
            The mask value that a query scores, 255 = ignore, and the names to average.
        """
        for class_id, entry in enumerate(self.classes):
            if self.aggregation == "concept-avg" and entry.asked:
                yield class_id, tuple(name for names in entry.asked for name in names)
            else:
                yield from ((class_id, names) for names in entry.asked)
        yield from ((self.background_id, names) for names in self.background_concepts)

    def owner(self, value: int) -> str:
        """The name of the class of a mask value, or `background_concepts`."""
        return "background_concepts" if value == IGNORE else self.class_names[value]

    def schemes_facts(self, schemes: Iterable[str | None]) -> Facts:
        """Facts of reading label files of all these schemes; see `scheme_facts`."""
        facts: Facts = {}
        for scheme in sorted(set(schemes), key=str):
            facts |= self.scheme_facts(scheme)
        return facts

    def scheme_facts(self, scheme: str | None) -> Facts:
        """Facts of reading a label file: its scheme, resolved to class ids.

        Raises:
            DataError: The vocabulary has no such scheme.
        """
        table: Facts = dict(sorted(self._targets(scheme).items()))
        keys = {None: "class_ids", CLASS_COLORS: "class_colors"}
        key = keys.get(scheme, f"label_schemes.{scheme}")
        return {f"vocabulary.{key}": table}

    def to_mask(
        self, labels: npt.NDArray[np.integer], scheme: str | None
    ) -> tuple[npt.NDArray[np.uint8], list[str]]:
        """Converts the pixels of a label file to class ids.

        Args:
            labels: (H, W) pixel values, or (H, W, 3) uint8 colours.
            scheme: A key of `label_schemes`, or `CLASS_COLORS`; None reads pixel values as class
                ids, 255 as ignore.

        Returns:
            (H, W) uint8 mask, 255 = ignore, and as text the values or colours that are not in the
            scheme (their pixels are 255 too).

        Raises:
            DataError: The vocabulary has no such scheme.
        """
        return label_values.to_class_ids(labels, self._targets(scheme))

    def scheme_of(self, labels: npt.NDArray[np.integer], scheme: str | None) -> str | None:
        """The scheme that reads a label file: the given one, or `CLASS_COLORS`.

        Args:
            labels: See `to_mask`.
            scheme: A key of `label_schemes`, or None.

        Raises:
            ValueError: Its greys can be class ids and colours of classes, with different results.
        """
        if scheme is not None or labels.ndim == 2:
            return scheme
        in_colors = label_values.is_in_colors(
            labels, ids=self._targets(None), colors=self._targets(CLASS_COLORS)
        )
        return CLASS_COLORS if in_colors else None

    def _targets(self, scheme: str | None) -> dict[str, int]:
        ids = {name: class_id for class_id, name in enumerate(self.class_names)}
        if scheme is None:
            return {**{str(class_id): class_id for class_id in ids.values()}, str(IGNORE): IGNORE}
        if scheme == CLASS_COLORS:
            return label_values.class_color_targets([entry.color for entry in self.classes])
        if scheme not in self.label_schemes:
            fix = "add it, or run ingest with a config that names another"
            where = f"vocabulary {self.name!r}"
            raise DataError(f"no label scheme {scheme!r}", where=where, fix=fix)
        targets = {**ids, _IGNORE_NAME: IGNORE}
        entries = self.label_schemes[scheme].items()
        return {str(label_values.canonical(key)): targets[name] for key, name in entries}


def normal(text: str) -> str:
    """A text about as open_clip's tokenizer cleans it: no capitals, single spaces, one form."""
    cleaned = unicodedata.normalize("NFC", html.unescape(html.unescape(text)))
    return " ".join(cleaned.translate(_STRAIGHT_QUOTES).lower().split())


def _plain(concepts: tuple[Concept, ...]) -> JsonValue:
    """Concepts in the form of a vocabulary file."""
    return [names[0] if len(names) == 1 else list(names) for names in concepts]
