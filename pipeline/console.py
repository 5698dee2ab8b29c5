"""All that is printed: results on stdout, progress and notes on stderr, plain lines in a pipe."""

from collections.abc import Iterable, Sequence
from functools import partial

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from pipeline.progress import ShardProgress, StepProgress

_PIPE_COLUMNS = 10_000
"""Room for any table: in a pipe there is no edge to cut it at."""


class Console:
    """Where stages tell what they do. Text is printed as it is: no markup is read from it.

    What cannot be printed is escaped: a file name of the web must not break a line, nor move the
    terminal's cursor.
    """

    def __init__(self) -> None:
        plain = partial(RichConsole, markup=False, emoji=False, highlight=False, soft_wrap=True)
        self._out, self._err = plain(), plain(stderr=True)

    def note(self, text: str) -> None:
        """A line about the work, on stderr."""
        self._err.print(_printable(text))

    def warn(self, text: str) -> None:
        """A line that a user should not miss, on stderr."""
        self._err.print(f"warning: {_printable(text)}", style="yellow")

    def error(self, text: str) -> None:
        """The one line a failed command ends with, on stderr."""
        self._err.print(f"error: {_printable(text)}", style="red")

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

    def progress(self, title: str, total: int, unit: str) -> "ProgressLine":
        """Progress of a loop: a live bar on a terminal, a line every tenth elsewhere."""
        return ProgressLine(self._err, title, total, unit)

    def shards(self, title: str, shards: int, images: int) -> ShardProgress:
        """Progress of shards on workers."""
        return ShardProgress(self._err, title, shards, images)

    def steps(self, title: str, steps: int, images_a_step: int) -> StepProgress:
        """Progress of a training."""
        return StepProgress(self._err, title, steps, images_a_step)


class ProgressLine:
    """Counts up to a total; use as a context manager."""

    def __init__(self, console: RichConsole, title: str, total: int, unit: str) -> None:
        self._console, self._title, self._total, self._unit = console, title, total, unit
        self._done = 0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=total, detail="")

    def __enter__(self) -> "ProgressLine":
        """Starts the live bar, where there is one."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves the bar as it stands."""
        self._bar.stop()

    def advance(self, count: int = 1, detail: str = "") -> None:
        """Tells that `count` more are done, with a word on how it goes."""
        tenth = max(1, self._total // 10)
        crossed = (self._done + count) // tenth > self._done // tenth
        self._done += count
        self._bar.update(self._task, completed=self._done, detail=detail)
        if self._bar.disable and crossed:
            text = f"{self._title}: {self._done}/{self._total} {self._unit} {detail}"
            self._console.print(text.rstrip())


def _printable(text: str) -> str:
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
