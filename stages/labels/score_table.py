"""A table of scores, printed by the console and shown in the report."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ScoreTable:
    """A table of texts.

    Attributes:
        title: Heading of the table.
        header: Column names.
        rows: Texts, one for each column.
    """

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
