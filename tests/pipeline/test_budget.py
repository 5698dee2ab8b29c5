import os
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import pytest

from pipeline.images.memory_budget import Budget


def test_threads_never_hold_more_than_there_is() -> None:
    budget, lock = Budget(10), Lock()
    holding, seen = [0], []

    def work(amount: int) -> None:
        with budget.held(amount):
            with lock:
                holding[0] += min(amount, 10)
                seen.append(holding[0])
            for _ in range(20):
                os.sched_yield()
            with lock:
                holding[0] -= min(amount, 10)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, [3, 4, 5, 6, 11, 1, 2, 10] * 25))
    assert len(seen) == 200
    assert max(seen) == 10


def test_an_error_gives_back_what_was_held() -> None:
    budget = Budget(1)
    for _ in range(3):
        with pytest.raises(ValueError, match="inside"), budget.held(1):
            raise ValueError("inside")
