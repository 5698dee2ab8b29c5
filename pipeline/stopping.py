"""Ends the work when Ctrl-C or a scheduler's SIGTERM asks for it, after the current batch.

Loops ask between batches (`check`). A second signal ends the process at once. Signals are read by a
thread of their own, since the main thread may be inside a long computation.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

NOTICE = "stopping after this batch (Ctrl-C again: now)"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SHOW_CURSOR = b"\x1b[?25h"


class Stopped(BaseException):
    """The work has ended between two batches, because a signal asked for it.

    Args:
        done: What is done, for the user: "pseudolabel: 3 of 8 shards are done".
        how: How to go on.

    Attributes:
        exit_code: Exit code of the command: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, done: str = "", how: str = "run the same command again") -> None:
        super().__init__(done)
        self.done = done
        self.how = how
        self.exit_code = 128 + signal.SIGINT


@dataclass
class _State:
    """The signals and ended works of this process.

    Attributes:
        number: The first signal; None: nothing asks to stop.
        is_abandoned: Whether the work must not go on, not even to the end of the batch.
        ended: Works that have been ended, by id; see `working`.
    """

    number: int | None = None
    is_abandoned: bool = False
    ended: set[str] = field(default_factory=set)


_state = _State()
_thread = threading.local()


def asked() -> bool:
    """Whether to stop: a signal has come, or the work of this thread has been ended."""
    return _state.number is not None or getattr(_thread, "work", None) in _state.ended


def check() -> None:
    """Stops the work here, if something asks for it.

    Raises:
        Stopped: Something does.
    """
    if asked():
        raise Stopped


@contextmanager
def on_signals(tell: Callable[[str], None]) -> Iterator[None]:
    """Lets signals ask to stop while the block runs; only the main thread may call it.

    Args:
        tell: Called with a notice when the first signal comes, from another thread.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    # An ignored signal stays ignored: `nohup`, or a shell that runs this in the background.
    numbers = [each for each in _SIGNALS if signal.getsignal(each) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, _interrupt) for number in numbers}
    watching = threading.Thread(target=_watch, args=(reader, tell), name="signals", daemon=True)
    watching.start()
    try:
        yield
    except Stopped as stopped:
        stopped.exit_code = 128 + (_state.number or signal.SIGINT)
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(writer)
        watching.join()
        os.close(reader)
        forget()


def abandon() -> None:
    """Interrupts the main thread at once, e.g. since another process may work on the run now."""
    _state.number, _state.is_abandoned = _state.number or signal.SIGINT, True
    os.kill(os.getpid(), signal.SIGINT)


def forget() -> None:
    """Lets the work of this process go on, after the end of what was to stop."""
    _state.number, _state.is_abandoned = None, False


@contextmanager
def without_signals() -> Iterator[None]:
    """Keeps signals from threads and processes that are started in the block, for good."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def working(work: str) -> Iterator[None]:
    """Makes this thread part of a work, which `end` may end from another thread."""
    _thread.work = work
    try:
        yield
    finally:
        del _thread.work


def end(work: str) -> None:
    """Ends a work: its threads in this process stop after their batch."""
    _state.ended.add(work)


def _interrupt(number: int, frame: Any) -> None:
    """Runs in the main thread, which goes on unless the work is abandoned."""
    del number, frame
    if _state.is_abandoned:
        raise KeyboardInterrupt


def _watch(reader: int, tell: Callable[[str], None]) -> None:
    """Reads the numbers of signals, which Python's own handler writes as they come."""
    while number := int.from_bytes(os.read(reader, 1)):
        if number not in _SIGNALS or _state.is_abandoned:
            continue
        if _state.number is not None:
            if os.isatty(2):  # a live display hides it
                os.write(2, _SHOW_CURSOR)
            os._exit(128 + number)
        _state.number = number
        with suppress(OSError, ValueError):  # nobody reads stderr
            tell(NOTICE)
