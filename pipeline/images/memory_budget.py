"""A shared amount that threads take from and give back: memory, say, counted in pixels."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Budget:
    """An amount that is never exceeded; who asks for more than is left waits.

    Args:
        total: The amount; who asks for more than this gets all of it, alone.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._freed = Condition()

    @contextmanager
    def held(self, amount: int) -> Iterator[None]:
        """Takes an amount for as long as the block runs."""
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
