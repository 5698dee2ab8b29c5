"""A table of scores, as the console prints it and the report shows it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ScoreTable:
    """A table to print.

    Attributes:
        title: What it shows.
        header: Column names.
        rows: Texts, as many a row as there are columns.
    """

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
