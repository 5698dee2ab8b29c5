"""A shared budget that threads take from and give back to, e.g. memory counted in pixels."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Budget:
    """A total that is never exceeded: threads that ask for more than is free wait.

    Args:
        total: The total; a thread that asks for more waits until all of it is free.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._freed = Condition()

    @contextmanager
    def held(self, amount: int) -> Iterator[None]:
        """Takes an amount while the block runs."""
        amount = min(amount, self._total)
        with self._freed:
            self._freed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._freed:
                self._free += amount
                self._freed.notify_all()
