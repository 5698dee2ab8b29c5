"""Judges label files before anything learns from them or is scored by them.

Where every pixel is ignored, or all have one class, a training ends with a constant at a loss of 0,
and a score says nothing; neither shows in any number. So it is said before the work begins.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config.vocabulary import IGNORE, Vocabulary


@dataclass(frozen=True)
class LabelFile:
    """The contents of a label file.

    Attributes:
        uri: The file.
        source: The name of its source in the config.
        scheme: The label scheme that reads it.
        class_ids: The classes that occur.
        ignored: Share of its pixels that are ignored; None if it was not counted.
    """

    uri: str
    source: str
    scheme: str | None
    class_ids: frozenset[int]
    ignored: float | None


@dataclass(frozen=True)
class Doubt:
    """Something wrong with label files.

    Attributes:
        what: What is wrong.
        fix: What to do.
    """

    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}; {self.fix}"


@dataclass(frozen=True)
class Supervision:
    """The label files of the good images of a role.

    Attributes:
        role: The role.
        files: The files.
        vocabulary: The classes.
    """

    role: str
    files: tuple[LabelFile, ...]
    vocabulary: Vocabulary

    @property
    def shown(self) -> frozenset[int]:
        """The classes that occur in any of the files."""
        return frozenset().union(*(file.class_ids for file in self.files))

    @property
    def sources(self) -> str:
        """The config key of the sources: that of the only one, if there is one."""
        names = {file.source for file in self.files}
        return f"ingest.sources.{names.pop()}" if len(names) == 1 else "ingest.sources"

    def silence(self) -> Doubt | None:
        """The doubt if no pixel of any file has a class."""
        if not self.files or self.shown:
            return None
        count = len(self.files)
        schemes = {file.scheme for file in self.files} - {None}
        held = f"{count} of {count} label files"
        if schemes:
            what = f"{held} hold only values that `label_scheme: {min(map(str, schemes))}` ignores"
            return Doubt(what, "give the values that are classes a class in this scheme")
        fix = "write class ids, or, if 255 is a class, a scheme in label_schemes that names it"
        return Doubt(f"{held} hold only 255; 255 is ignore", fix)

    def monotony(self) -> Doubt | None:
        """The doubt if all pixels that have a class have the same one of several."""
        if len(self.shown) != 1 or self.vocabulary.num_classes < 2:
            return None
        (only,), names = self.shown, self.vocabulary.class_names
        count = len(self.files)
        held = f"{count} of {count} label files"
        is_plain = all(file.scheme is None for file in self.files)
        if is_plain and any(file.ignored for file in self.files):
            other = next(name for name in names if name != names[only])
            scheme = f"{{{only}: {names[only]}, {IGNORE}: {other}}}"
            what = f"{held} hold only {only} and 255; 255 is ignore"
            fix = f"if it is a class, write label_schemes {scheme} into the vocabulary"
            return Doubt(what, f"{fix}, under a name, and set `label_scheme` of the source to it")
        fix = "add files that show other classes, or correct `label_scheme` of the source"
        return Doubt(f"{held} show no class but {names[only]}", fix)

    def partly_silent(self) -> str | None:
        """A warning if some files, not all, hold nothing but ignored pixels."""
        blank = [file for file in self.files if not file.class_ids]
        if not blank or len(blank) == len(self.files):
            return None
        return (
            f"{len(blank)} of {len(self.files)} label files of role {self.role} hold nothing but "
            f"ignored pixels, first: {blank[0].uri}"
        )

    def lacking(self) -> list[str]:
        """Names of the classes that none of the files shows."""
        shown, names = self.shown, enumerate(self.vocabulary.class_names)
        return [name for class_id, name in names if class_id not in shown]
