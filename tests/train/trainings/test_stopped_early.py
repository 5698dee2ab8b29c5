"""A training that a signal ends before its first step says so in whole words."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import stopping
from pipeline.console import Console
from pipeline.engine.runner import Request, Runner
from stages.graph import GRAPH
from tests.finished_run import load, run_folder, values, write

__all__ = ["run_folder", "values", "write"]


def test_a_stop_before_the_first_step_is_told_in_words(
    values: dict[str, Any], write: Callable[..., Path]
) -> None:
    source = {"name": "stored", "labeler": "clip", "confidence": "isotonic"}
    values["pseudolabel"]["roles"].append("labeled")
    values["train"]["variants"] = {"web": {"label_sources": [source]}}
    write(values)
    runner = Runner(load(), GRAPH, Console())
    runner.run(Request(("pseudolabel",)))
    (stage,) = runner.stages(["train"])
    units = stage.plan()
    with stopping.on_signals(lambda _: None):
        os.kill(os.getpid(), signal.SIGTERM)
        while not stopping.asked():
            pass
        with pytest.raises(stopping.Stopped) as stopped:
            stage.run(units)
    assert stopped.value.done == "train: web seed 0: what is done stays done"
