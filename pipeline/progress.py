"""Progress of loops, shards and trainings: share done, speed, time left, current work."""

import time
from collections.abc import Mapping
from datetime import timedelta

from rich.console import Console as RichConsole
from rich.console import Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress_bar import ProgressBar
from rich.text import Text

_WORKERS_SHOWN = 16
_SILENCE_S = 60.0
"""Longest time between two lines in a pipe while work is done."""


class ProgressLine:
    """Counts up to a total; use as a context manager."""

    def __init__(self, console: RichConsole, title: str, total: int, unit: str) -> None:
        self._console, self._title, self._total, self._unit = console, title, total, unit
        self._done = 0
        self._last_line = time.monotonic()
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
        """Starts the live bar on a terminal."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops the live bar; its last state stays visible."""
        self._bar.stop()

    def advance(self, count: int = 1, detail: str = "") -> None:
        """Reports `count` more as done, with a detail to show."""
        tenth = max(1, self._total // 10)
        crossed = (self._done + count) // tenth > self._done // tenth
        self._done += count
        self._bar.update(self._task, completed=self._done, detail=detail)
        if self._bar.disable and (crossed or time.monotonic() - self._last_line > _SILENCE_S):
            self._last_line = time.monotonic()
            text = f"{self._title}: {self._done}/{self._total} {self._unit} {detail}"
            self._console.print(text.rstrip())


class ShardProgress:
    """A live display on a terminal, plain lines elsewhere; use as a context manager.

    Args:
        console: Prints the progress.
        title: Name of the stage.
        shards: Number of shards to do.
        images: Number of images in them.
    """

    def __init__(self, console: RichConsole, title: str, shards: int, images: int) -> None:
        self._console, self._title, self._shards, self._images = console, title, shards, images
        self._done = self._images_done = self._images_begun = 0
        self._failed: list[str] = []
        self._workers: dict[str, tuple[str, float]] = {}
        self._is_waiting = False
        self._start = self._last_line = time.monotonic()
        self._live = Live(console=console, get_renderable=self._picture, auto_refresh=False)

    def __enter__(self) -> "ShardProgress":
        """Starts the live display on a terminal."""
        self._start = self._last_line = time.monotonic()
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops the live display; its last state stays visible, without the workers."""
        self._workers = {}
        if self._console.is_terminal:
            self._live.refresh()
            self._live.stop()

    def advance(self, images: int) -> None:
        """Reports another shard as done, with its number of images."""
        self._done += 1
        self._images_done += images
        self._images_begun = max(0, self._images_begun - images)
        tenth = max(1, self._shards // 10)
        self._refresh(self._done % tenth == 0)

    def fail(self, name: str) -> None:
        """Reports a failed shard."""
        self._failed.append(name)
        self._refresh(is_news=True)

    def watch(self, workers: Mapping[str, str], images: int = 0) -> None:
        """Reports what happens inside shards.

        Args:
            workers: The current job of each worker, empty if idle, by the address of the worker.
            images: Images of unfinished shards that are done.
        """
        self._images_begun = images
        now, before = time.monotonic(), self._workers
        self._workers = {}
        for worker, job in workers.items():
            known, since = before.get(worker, (job, now))
            self._workers[worker] = (job, since if known == job else now)
        waited, self._is_waiting = self._is_waiting, not workers
        if self._is_waiting and not waited and not self._console.is_terminal:
            self._console.print(f"{self._title}: waits for a worker")
        self._refresh(is_news=False)

    @property
    def line(self) -> str:
        """The current state, in one line."""
        elapsed = time.monotonic() - self._start
        images = min(self._images, self._images_done + self._images_begun)
        rate = images / elapsed if elapsed > 0 else 0.0
        parts = [
            f"{self._done}/{self._shards} shards",
            f"{images}/{self._images} images",
            f"{rate:.1f} images/s",
        ]
        if rate and self._done < self._shards:
            left = timedelta(seconds=round((self._images - images) / rate))
            parts.append(f"ETA {left}")
        if self._failed:
            parts.append(f"{len(self._failed)} failed")
        return ", ".join(parts)

    def _refresh(self, is_news: bool) -> None:
        now = time.monotonic()
        if self._console.is_terminal:
            self._live.refresh()
        elif is_news or now - self._last_line > _SILENCE_S:
            self._last_line = now
            self._console.print(f"{self._title}: {self.line}")

    def _picture(self) -> Group:
        """A bar, the state, and a line for each worker."""
        now = time.monotonic()
        lines = [
            f"  {worker}  {job}, {now - since:.0f} s" if job else f"  {worker}  idle"
            for worker, (job, since) in sorted(self._workers.items())[:_WORKERS_SHOWN]
        ]
        if more := len(self._workers) - _WORKERS_SHOWN:
            lines += [f"  and {more} more workers"] if more > 0 else []
        if self._is_waiting:
            lines.append("  waits for a worker")
        lines += [f"  failed: {name}" for name in self._failed[-_WORKERS_SHOWN:]]
        images = self._images_done + self._images_begun
        bar = ProgressBar(total=max(1, self._images), completed=images, width=40)
        texts = [Text(text) for text in (f"{self._title}: {self.line}", *lines)]
        return Group(bar, *texts)


class StepProgress:
    """A bar on a terminal, plain lines elsewhere; use as a context manager.

    Args:
        console: Prints the progress.
        title: Name of the training.
        steps: Number of steps of the training.
        images_a_step: Crops in a step, of all roles together.
    """

    def __init__(self, console: RichConsole, title: str, steps: int, images_a_step: int) -> None:
        self._console, self._title = console, title
        self._steps, self._images_a_step = steps, images_a_step
        self._first = self._done = 0
        self._detail: tuple[str, str] = ("", "")
        self._start = self._last_line = time.monotonic()
        self._live = Live(console=console, get_renderable=self._picture, auto_refresh=False)

    def __enter__(self) -> "StepProgress":
        """Starts the live bar on a terminal."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops the live bar; its last state stays visible."""
        if self._console.is_terminal:
            self._live.stop()

    def begin(self, done: int) -> None:
        """Starts the clock, after `done` steps of an earlier run."""
        self._first = self._done = done
        self._start = self._last_line = time.monotonic()

    def advance(self, done: int, loss: float, memory_bytes: int) -> None:
        """Reports the number of steps done.

        Args:
            done: Steps done in total, with those of earlier runs.
            loss: Loss of the last step.
            memory_bytes: Peak memory so far.
        """
        tenth = max(1, self._steps // 10)
        crossed = done // tenth > self._done // tenth
        self._done = done
        self._detail = (f"loss {loss:.3f}", f"{memory_bytes / 1e9:.1f} GB")
        now = time.monotonic()
        if self._console.is_terminal:
            self._live.refresh()
        elif crossed or now - self._last_line > _SILENCE_S:
            self._last_line = now
            self._console.print(f"{self._title}: {self.line}")

    @property
    def line(self) -> str:
        """The current state, in one line."""
        elapsed, taken = time.monotonic() - self._start, self._done - self._first
        loss, memory = self._detail
        parts = [f"{self._done}/{self._steps} steps", loss]
        if elapsed > 0 and taken:
            parts.append(f"{taken * self._images_a_step / elapsed:.1f} images/s")
            if self._done < self._steps:
                left = timedelta(seconds=round((self._steps - self._done) * elapsed / taken))
                parts.append(f"ETA {left}")
        return ", ".join(part for part in (*parts, memory) if part)

    def _picture(self) -> Group:
        bar = ProgressBar(total=max(1, self._steps), completed=self._done, width=40)
        return Group(Text(f"{self._title}: {self.line}"), bar)
