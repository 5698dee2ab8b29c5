"""The run of a command: its config, checked against the stages, and the console it prints to."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from maskmill import shipped_configs
from pipeline.config import config as config_file
from pipeline.config.config import Config
from pipeline.console import Console
from pipeline.engine import torchrun
from stages.graph import GRAPH

DEFAULT_CONFIGS = (Path("maskmill.yaml"), Path("configs/sandbox.yaml"))
"""The config of a command that names none: the first that is in the current folder."""


def leader_console() -> Console:
    """The console of this process; of torchrun's processes only the first one prints."""
    return Console(quiet=not torchrun.is_leader())


@contextmanager
def opened_run(path: Path | None, overrides: Sequence[str] | None) -> Iterator[Config]:
    """Reads a config; errors in the block name the overrides that set what they are about.

    Args:
        path: The file. By default the one that `init` wrote in the current folder, or the sandbox's
            there, or else the sandbox's that comes with Maskmill.
        overrides: Texts of `--set`.

    Raises:
        ConfigError: See `pipeline.config.config.load`.
    """
    # Arrow's own allocator asks for large pages, which the kernel fills with zeros again and again.
    pa.set_memory_pool(pa.system_memory_pool())
    if path is None:
        here = (each for each in DEFAULT_CONFIGS if each.exists())
        path = next(here, None) or shipped_configs.path("sandbox")
    sections = {stage.name: stage.Config for stage in GRAPH}
    implied = {stage.name: stage.implied_by for stage in GRAPH if stage.implied_by is not None}
    config = config_file.load(path, sections, overrides or (), implied)
    for warning in config.warnings:
        leader_console().warn(warning)
    with config.naming_overrides():
        yield config
