"""What a stage is: it plans units of work, says what each is made from, and does the stale ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pipeline.config.config import Config
from pipeline.config.config_section import Facts, Section
from pipeline.console import Console
from pipeline.records.tables import Table


@dataclass(frozen=True)
class Unit:
    """The smallest piece of work that is done, resumed or stale as a whole: a shard, a variant.

    Attributes:
        name: What to call it in messages: "shard 3".
        part: Its manifest part; the part's existence means the unit is done.
        facts: What its output depends on, now; the part holds what it was made from.
        outputs: Files beside the part that the rows of the part describe.
        shard: Its number, where it is a shard.
        unfinished: Files to go on from after a kill; a forced run starts without them.
    """

    name: str
    part: Path
    facts: Facts
    outputs: tuple[Path, ...] = ()
    shard: int | None = None
    unfinished: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Context:
    """What a stage is given to work with."""

    config: Config
    console: Console


class Stage(ABC):
    """One step of the flow. Subclasses live in stages/<name>/stage.py.

    Importing a stage, planning and summing up must not import torch; `run` may.

    Attributes:
        name: Its name in configs, commands and messages.
        version: Raised when the same input gives other output than before.
        table: What the parts of its units are parts of.
        Config: The model of its config section.
        needs: Stages whose output it reads.
        picks_shards: Whether `--shards` may choose among its units: they are shards, and can be
            done in any order.

    Args:
        section: Its config section.
        context: The run it is part of.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    table: ClassVar[Table]
    Config: ClassVar[type[Section]]
    needs: ClassVar[tuple[str, ...]] = ()
    picks_shards: ClassVar[bool] = False

    def __init__(self, section: Section, context: Context) -> None:
        self.context = context

    @property
    def version_facts(self) -> Facts:
        """The stage's version, as every unit's facts begin."""
        return {f"{self.name}.version": self.version}

    @abstractmethod
    def plan(self) -> Sequence[Unit]:
        """Every unit there should be, done or not, in order.

        Raises:
            MaskmillError: The inputs do not allow a plan.
        """

    @abstractmethod
    def run(self, units: Sequence[Unit]) -> None:
        """Does these units, committing each one's part last.

        Raises:
            MaskmillError: Something the user can mend; units committed before stay.
        """

    def dismiss(self) -> None:  # noqa: B027 - most stages are done by the leader alone
        """Tells the processes that `follow` that there is nothing to do; called instead of `run`.

        Does nothing by default, nor where there are no such processes.
        """

    def follow(self) -> None:  # noqa: B027 - likewise
        """Takes part in what the leader of torchrun's processes does together with the others.

        Called in those others instead of `run`; does nothing by default.
        """

    def image_changes(self, unit: Unit) -> Mapping[str, int]:
        """How a unit's images differ from what its part was made from, as numbers by what happened.

        Asked where the digest of the images differs, or where there is no part beside others that
        are there: {"changed": 3, "new": 1}. Nothing is said by default.
        """
        return {}

    def orphans(self) -> Sequence[Path]:
        """Parts of units that the plan has no longer, as all their images are gone."""
        return ()

    def garbage(self) -> Sequence[Path]:
        """Files and folders of this stage that neither its config nor a manifest points to."""
        return ()

    def summarize(self) -> None:  # noqa: B027 - most stages have nothing to add
        """Prints what came out, from manifests alone; called also where nothing was to do."""
