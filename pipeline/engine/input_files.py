"""The user's files that rows were made from, compared with what they are now."""

from dataclasses import dataclass


@dataclass(frozen=True)
class InputFiles:
    """Problems of the input files of a unit, a line for each file.

    Attributes:
        altered: Files that are not those of the rows: reading them again gives other rows.
        unreachable: Files that cannot be read now, which says nothing about them.
    """

    altered: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
