"""Faults and warnings that the checks of stages find before any work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipeline.errors import MaskmillError


@dataclass
class Findings:
    """Faults and warnings; each is kept once.

    Attributes:
        by_text: The faults by their texts, in the order in which they were found.
        warnings: Lines without a final full stop.
    """

    by_text: dict[str, MaskmillError] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def faults(self) -> tuple[MaskmillError, ...]:
        """The faults: each of them would stop a stage."""
        return tuple(self.by_text.values())

    def add(self, fault: MaskmillError) -> None:
        """Adds a fault."""
        for each in (fault, *fault.others):
            self.by_text.setdefault(str(each), each)

    def warn(self, text: str) -> None:
        """Adds a warning: the results may not be those that the user expects."""
        if text not in self.warnings:
            self.warnings.append(text)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Adds the error that ends the block, if one does; what follows the block goes on."""
        try:
            yield
        except MaskmillError as error:
            self.add(error)
