"""The classes that names of annotations stand for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from pipeline.config.label_values import IGNORE
from pipeline.config.vocabulary import Vocabulary, normal
from pipeline.errors import ConfigError, DataError, together
from stages.ingest.annotations.shapes import Shape

_IGNORE_NAME = "ignore"
_BACKGROUND = "background"
_SHOWN = 20
"""Unknown names that an error lists."""


class ClassNames:
    """Maps names of annotations to class ids.

    A name is that of a class; else, without regard to capitals and spaces, the name or a concept of
    one class, or a background concept.

    Args:
        vocabulary: The classes.
        names: Classes of names that are no classes; None or "ignore" for ignored pixels.
        rest: Class of the pixels without an annotation, or "ignore"; None for the class
            `background` if that is the first one, else "ignore".
        where: Config file and key of the source, for errors.

    Attributes:
        rest: Its mask value.
        unknown: How many shapes have each name that stands for no class.

    Raises:
        ConfigError: `names` or `rest` names no class.
    """

    def __init__(
        self, vocabulary: Vocabulary, names: Mapping[str, str | None], rest: str | None, where: str
    ) -> None:
        self._where = where
        self._classes = vocabulary.class_names
        self._ids = {name: class_id for class_id, name in enumerate(self._classes)}
        targets = {**self._ids, _IGNORE_NAME: IGNORE}
        faults = [
            self._no_class(other, f"names.{name}")
            for name, other in names.items()
            if other is not None and other not in targets
        ]
        if rest is not None and rest not in targets:
            faults.append(self._no_class(rest, "rest"))
        if faults:
            raise together(faults)
        self._own = {
            name: IGNORE if other is None else targets[other] for name, other in names.items()
        }
        has_background = self._classes[0] == _BACKGROUND
        self.rest = targets[rest] if rest is not None else (0 if has_background else IGNORE)
        self._alike = _alike(vocabulary)
        self.unknown: Counter[str] = Counter()

    def ids_of(self, shapes: Sequence[Shape]) -> list[int]:
        """The mask value of each shape; names without a class are counted, and give 255."""
        return [self._id_of(shape.name) for shape in shapes]

    def facts(self) -> list[object]:
        """All that the results depend on, as plain values."""
        alike = sorted((name, sorted(ids)) for name, ids in self._alike.items())
        return [[*self._classes], sorted(self._own.items()), self.rest, alike]

    def fault(self, file: str) -> DataError | None:
        """The error of all unknown names so far; None if there are none.

        Args:
            file: The annotations.
        """
        if not self.unknown:
            return None
        ordered = sorted(self.unknown.items(), key=lambda item: (-item[1], item[0]))
        shown = [f"{name} ({count:,})" for name, count in ordered[:_SHOWN]]
        shown += [f"and {len(ordered) - _SHOWN} more"] if ordered[_SHOWN:] else []
        count = f"{len(ordered)} name{'s'[: len(ordered) != 1]}"
        verb = "stand" if ordered[1:] else "stands"
        what = f"{count} of {file} {verb} for no class: {', '.join(shown)}"
        several = [name for name, _ in ordered if len(self._alike.get(normal(name), ())) > 1]
        if several:
            what += f" (of these, several classes have: {', '.join(several[:_SHOWN])})"
        example = ", ".join(f"{name!r}: CLASS" for name, _ in ordered[:2])
        fix = (
            f"map each one, `names: {{{example}}}`, to one of: {', '.join(self._classes)}; "
            "or to null, for ignored pixels"
        )
        return DataError(what, where=f"{self._where}.names", fix=fix)

    def _id_of(self, name: str | None) -> int:
        if name is None:
            return IGNORE
        for known in (self._own, self._ids):
            if name in known:
                return known[name]
        found = self._alike.get(normal(name), set())
        if len(found) == 1:
            return next(iter(found))
        self.unknown[name] += 1
        return IGNORE

    def _no_class(self, name: str, key: str) -> ConfigError:
        known = ", ".join((*self._classes, _IGNORE_NAME))
        what = f"{name!r} is not a class"
        return ConfigError(what, where=f"{self._where}.{key}", fix=f"use one of: {known}")


def _alike(vocabulary: Vocabulary) -> dict[str, set[int]]:
    """Mask values by name or concept, without capitals: of the names first, then of concepts."""
    by_name: dict[str, set[int]] = {}
    by_concept: dict[str, set[int]] = {}
    for class_id, entry in enumerate(vocabulary.classes):
        by_name.setdefault(normal(entry.name), set()).add(class_id)
        for concept in entry.asked:
            for word in concept:
                by_concept.setdefault(normal(word), set()).add(class_id)
    for concept in vocabulary.background_concepts:
        for word in concept:
            by_concept.setdefault(normal(word), set()).add(vocabulary.background_id)
    return by_concept | by_name
