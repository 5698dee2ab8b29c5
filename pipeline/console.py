"""All output: results on stdout, progress and notes on stderr, plain lines in a pipe.

The code that draws progress is imported only when work begins, so that `status` starts fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console as RichConsole
from rich.table import Table

from pipeline.redaction import without_secrets

if TYPE_CHECKING:
    from pipeline.progress import ProgressLine, ShardProgress, StepProgress

_PIPE_COLUMNS = 10_000
"""Wide enough for any table: a pipe has no width."""


class Console:
    """Prints the messages of stages. Text is printed verbatim, without markup.

    Unprintable characters are escaped: a file name from the web must not break a line or move the
    cursor of the terminal.

    Args:
        quiet: Whether to print only errors.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        plain = partial(RichConsole, markup=False, emoji=False, highlight=False, soft_wrap=True)
        self._out, self._err = plain(quiet=quiet), plain(stderr=True, quiet=quiet)
        self._errors = plain(stderr=True)

    def note(self, text: str) -> None:
        """A line about the work, on stderr."""
        self._err.print(_printable(text))

    def warn(self, text: str) -> None:
        """A warning, on stderr."""
        self._err.print(f"warning: {_printable(text)}", style="yellow")

    def error(self, text: str) -> None:
        """The last line of a failed command, on stderr."""
        self._errors.print(f"error: {_printable(text)}", style="red")

    def line(self, text: str) -> None:
        """A line of the result, on stdout."""
        self._out.print(_printable(text))

    def table(self, title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A table of the result, on stdout; all columns but the first are right-aligned."""
        self.line(title)
        table = Table()
        for column, name in enumerate(header):
            table.add_column(name, justify="left" if column == 0 else "right", no_wrap=column > 0)
        for row in rows:
            table.add_row(*(_printable(cell) for cell in row))
        if not self._out.is_terminal:
            self._out.width = _PIPE_COLUMNS
        self._out.print(table)

    def lines(self, described: Mapping[str, str]) -> None:
        """Names, each with a line about it, on stdout; the lines begin in the same column."""
        width = max(map(len, described), default=0)
        for name, text in described.items():
            self.line(f"{name:<{width}}  {text}")

    def progress(self, title: str, total: int, unit: str) -> ProgressLine:
        """Progress of a loop: a live bar on a terminal, elsewhere a line for each tenth."""
        from pipeline.progress import ProgressLine

        return ProgressLine(self._err, title, total, unit)

    def shards(self, title: str, shards: int, images: int) -> ShardProgress:
        """Progress of shards on workers."""
        from pipeline.progress import ShardProgress

        return ShardProgress(self._err, title, shards, images)

    def steps(self, title: str, steps: int, images_a_step: int) -> StepProgress:
        """Progress of a training."""
        from pipeline.progress import StepProgress

        return StepProgress(self._err, title, steps, images_a_step)


def _printable(text: str) -> str:
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in without_secrets(text)
    )
