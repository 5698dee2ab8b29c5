"""All output: results on stdout, progress and notes on stderr, plain lines in a pipe.

The code that draws progress is imported only when work begins, so that `status` starts fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.table import Table

from pipeline.redaction import without_secrets

if TYPE_CHECKING:
    from pipeline.progress import ProgressLine, ShardProgress, StepProgress

_BORDER = 3
"""Letters between two columns of a table."""
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
        """A table of the result, on stdout; all columns but the first are right-aligned.

        Where it is wider than the terminal it continues in further tables, which begin with the
        first column too. Nothing is cut off.
        """
        self.line(title)
        cells = [tuple(map(_printable, row)) for row in (header, *rows)]
        if not self._out.is_terminal:
            self._out.width = _PIPE_COLUMNS
        for columns in _that_fit(cells, self._out.width):
            table = Table()
            for column in columns:
                table.add_column(
                    cells[0][column],
                    justify="left" if column == 0 else "right",
                    overflow="fold",
                )
            for row in cells[1:]:
                table.add_row(*(row[column] for column in columns))
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


def _that_fit(cells: Sequence[Sequence[str]], width: int) -> Iterator[list[int]]:
    """Yields the columns of one table after the other, each with the first column.

    Args:
        cells: The texts of the header and of each row.
        width: Letters in a line.
    """
    first, *others = (
        max(cell_len(cell) for cell in column) + _BORDER for column in zip(*cells, strict=True)
    )
    least = min(first, width // 2)  # a longer first column is wrapped
    columns, used = [0], least
    for column, own in enumerate(others, start=1):
        if used + own >= width and len(columns) > 1:
            yield columns
            columns, used = [0], least
        columns.append(column)
        used += own
    yield columns


def _printable(text: str) -> str:
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in without_secrets(text)
    )
