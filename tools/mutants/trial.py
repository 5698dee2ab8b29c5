"""Runs the tests of a module that has a wrong change."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path

_LIBRARIES = (
    *("numpy", "torch", "torchvision", "timm", "segment_anything", "pandas", "pyarrow.parquet"),
    *("scipy.ndimage", "scipy.optimize", "zarr", "tensorstore", "hypothesis", "pytest"),
    *("open_clip", "segmentation_models_pytorch", "torch.utils.tensorboard", "safetensors.torch"),
)
"""Imported once, before the processes split: they take longer than most tests."""
_PATIENCE, _LEAST_S = 5, 30
"""A trial may take so many times as long as the tests do without a change, and at least 30 s."""


class Outcome(Enum):
    """What became of a change."""

    KILLED = "killed"
    SURVIVED = "survived"
    TIMEOUT = "timeouts"


@dataclass
class Trial:
    """The tests of one module in a copy of the tree.

    Attributes:
        folder: The copy; its module is changed, and put back after each trial.
        path: The module, relative to the folder.
        tests: Test files, relative to the folder.
    """

    folder: Path
    path: str
    tests: Sequence[str]

    def of(self, source: str) -> Outcome:
        """Runs the tests with another source of the module.

        Raises:
            RuntimeError: The tests fail without any change.
        """
        limit_s = max(_LEAST_S, _PATIENCE * self._usual_s)
        file = self.folder / self.path
        before = file.read_bytes()
        file.write_text(source, encoding="utf-8")
        try:
            code = self._run(limit_s)
        finally:
            file.write_bytes(before)
        if code is None:
            return Outcome.TIMEOUT
        return Outcome.SURVIVED if code == 0 else Outcome.KILLED

    @cached_property
    def _usual_s(self) -> float:
        start = time.monotonic()
        if (code := self._run(3600)) != 0:
            raise RuntimeError(f"{' '.join(self.tests)} end with {code} without any change")
        return time.monotonic() - start

    def _run(self, limit_s: float) -> int | None:
        """The exit code of pytest; None if it took too long."""
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            os._exit(_test(self.folder, self.tests))
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.05)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None


def preload() -> None:
    """Imports the libraries that tests need, where they are installed."""
    for name in _LIBRARIES:
        importlib.import_module(name)


def _test(folder: Path, tests: Sequence[str]) -> int:
    """Runs pytest in this process, which is a child that ends with it; prints nothing."""
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = str(folder)
    for name in [name for name in sys.modules if name.split(".")[0] in ("tools", "tests")]:
        del sys.modules[name]
    sys.dont_write_bytecode = True
    import pytest

    plain = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist"]
    preloaded = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return int(pytest.main([*plain, *preloaded, *tests]))
