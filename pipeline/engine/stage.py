"""The base class of stages: each plans units of work with their facts, and does the stale ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import pyarrow as pa

from pipeline.config.config import Config
from pipeline.config.config_section import Facts, Section
from pipeline.console import Console
from pipeline.engine.findings import Findings
from pipeline.engine.held_images import Drop
from pipeline.engine.input_files import InputFiles
from pipeline.files import storage
from pipeline.records import part_file
from pipeline.records.kept_parts import KeptParts
from pipeline.records.part_file import Record
from pipeline.records.tables import Table

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class ShardKey:
    """Key of a unit that is a shard of images."""

    shard: int

    def __str__(self) -> str:
        return f"shard {self.shard}"


@dataclass(frozen=True)
class Unit(Generic[K]):
    """The smallest piece of work that is done, resumed or stale as a whole: a shard, a training.

    Attributes:
        key: What it is, typed; `str(key)` names it in messages.
        part: Its manifest part; the part's existence means the unit is done.
        facts: What its output depends on, now; the part holds what it was made from.
        outputs: Other files that the rows of the part describe.
        companions: Parts of other manifests that belong to `part`; committed before it.
        shard: The number of the shard, if it is one.
        resumable: Files that an interrupted unit continues from; a forced run deletes them.
        versions: Present versions of the libraries and models that make it, by name; its part
            records them. Other ones make it stale only with `--strict-versions`.
    """

    key: K
    part: Path
    facts: Facts
    outputs: tuple[Path, ...] = ()
    companions: tuple[Path, ...] = ()
    shard: int | None = None
    resumable: tuple[Path, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name in messages."""
        return str(self.key)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of its facts, 16 hex digits."""
        return part_file.digest(self.facts)


@dataclass(frozen=True)
class Context:
    """The run that a stage is part of.

    Attributes:
        config: The run.
        console: The console to report to.
        accept_gone: Whether the user knows that many images are gone.
    """

    config: Config
    console: Console
    accept_gone: bool = False


class Stage(ABC, Generic[K]):
    """One step of the flow. Subclasses live in stages/<name>/stage.py.

    Importing a stage, checking, planning and summarizing must not import torch; `rehearse` and
    `run` may.

    Attributes:
        name: Its name in configs, commands and messages.
        version: Raised when the same input gives other output than before.
        table: The manifest that its units' parts belong to.
        Config: The model of its config section.
        needs: Stages whose output it reads.
        feeds: Stages that read its output without naming it in their `needs`, because a run can do
            without it.
        implied_by: Another stage whose section in a config brings this stage with default keys.
        picks_shards: Whether `--shards` may choose among its units: they are shards, and can be
            done in any order.
        keeps_superseded: Whether finished units are kept when the config changes, so that going
            back to former keys finds them fresh.

    Args:
        section: Its config section.
        context: The run that it is part of.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    table: ClassVar[Table]
    Config: ClassVar[type[Section]]
    needs: ClassVar[tuple[str, ...]] = ()
    feeds: ClassVar[tuple[str, ...]] = ()
    implied_by: ClassVar[str | None] = None
    picks_shards: ClassVar[bool] = False
    keeps_superseded: ClassVar[bool] = False

    def __init__(self, section: Section, context: Context) -> None:
        self.context = context
        self.kept = KeptParts(context.config.manifests)
        self._plain = section.model_dump(mode="json")

    @property
    def version_facts(self) -> Facts:
        """The stage's version, the first of every unit's facts."""
        return {f"{self.name}.version": self.version}

    def check(self, findings: Findings, pending: Collection[str]) -> None:
        """Adds all that can be known now to be wrong with what the stage needs; not just the first.

        Called for every stage of a command before the first one runs, again when a stage has
        written something, and by `status`. Nothing is known to be wrong by default.

        Args:
            findings: Gets the faults and warnings.
            pending: The stages before this one, near and far, whose output is not final yet: what
                they write must not be judged.
        """

    def rehearse(
        self, findings: Findings, units: Sequence[Unit[K]] | None, *, downloads: bool
    ) -> None:
        """Adds what only torch can tell, such as a network that cannot be built or run.

        Called once before the first stage of a command runs, if this one has something to do.
        Nothing by default.

        Args:
            findings: Gets the faults and warnings.
            units: What it will do; None if that depends on stages before it.
            downloads: Whether to fetch the files that the stage needs, as it will run at once.
        """

    @abstractmethod
    def plan(self) -> Sequence[Unit[K]]:
        """Every unit that the config asks for, done or not, in order.

        Raises:
            MaskmillError: The inputs do not allow a plan.
        """

    def prepare(self) -> None:
        """Reads what only a run takes the time for, before it plans; nothing by default."""

    @abstractmethod
    def run(self, units: Sequence[Unit[K]]) -> None:
        """Does these units, and commits the part of each one last.

        Raises:
            MaskmillError: The user can fix the cause; units committed before stay.
        """

    def join_leader(self) -> None:
        """Takes part in work that torchrun's processes do together.

        Called instead of `run` in the processes that follow, and in the leader when it has nothing
        to do. Does nothing by default.
        """

    def image_changes(self, unit: Unit[K]) -> Mapping[str, int]:
        """Counts how a unit's images differ from those of its part: {"changed": 3, "new": 1}.

        Asked when the fact `IMAGES_FACT` differs, or when the unit has no part although others do.
        Empty by default.
        """
        return {}

    def covers(self, unit: Unit[K], record: Record) -> bool:
        """Whether a part of other facts holds all that its unit would, and images that are gone.

        Such a unit is fresh. False by default.

        Args:
            unit: The unit.
            record: The record of its part.
        """
        return False

    def gone(self) -> Sequence[Drop]:
        """The rows of images that are gone; none by default. Asked while `ingest` is fresh."""
        return ()

    def check_input_files(self, unit: Unit[K]) -> InputFiles:
        """Reads the user's files that the unit's rows were made from; by default there are none."""
        return InputFiles()

    def orphans(self) -> Sequence[Path]:
        """Parts of units that the plan no longer has, and that hold nothing worth keeping."""
        return ()

    def discard(self, path: Path) -> None:
        """Deletes a damaged or misplaced part, or other damaged file of this stage.

        A part in the place of another is put into its own. What must outlive it, such as the
        numbers of rows, is to be saved here.
        """
        if not part_file.put_in_place(path):
            storage.remove(path)

    def misleads(self, unit: Unit[K]) -> bool:
        """Whether a damaged unit's output can be read as if it were whole; by default it cannot.

        Whatever has read it may be wrong, and is made again.
        """
        return False

    def garbage(self) -> Sequence[Path]:
        """Files and folders of this stage that neither its config nor a manifest points to."""
        return ()

    def damage(self) -> Sequence[str]:
        """Describes damage of files that several units share, of which no part has a checksum.

        Called by `verify`; what it finds, `repair` repairs. Nothing by default.
        """
        return ()

    def repair(self) -> None:
        """Repairs what `damage` describes, and does no unit again."""

    def remarks(self) -> Sequence[str]:
        """Lines that `status` and `run` print besides the states of units; none by default."""
        return ()

    def summarize(self) -> None:
        """Prints the results, from manifests only; also called when there was nothing to do."""

    def clear(self, unit: Unit[K]) -> None:
        """Deletes the records of outputs that are about to be overwritten in place.

        Call it before the first output of a unit is written. Otherwise a run that is killed in the
        middle would leave a part that describes other bytes than there are.
        """
        self.kept.clear(unit.part, unit.outputs)

    def commit(
        self,
        unit: Unit[K],
        rows: pa.Table,
        *,
        companions: Iterable[pa.Table] = (),
        files: Iterable[Path] | None = None,
        facts: Facts | None = None,
        failed: int = 0,
        plain: Mapping[str, Any] | None = None,
        versions: Mapping[str, str] | None = None,
    ) -> None:
        """Commits a unit's part, the last thing that happens to it.

        A part of other facts is kept first: if the disk is full then, it is still among the kept.

        Args:
            unit: The unit; its outputs are written.
            rows: The rows of its part.
            companions: The rows of its companion parts.
            files: Files whose checksums are recorded; default: its outputs.
            facts: What it was made from, if that is more than its planned facts.
            failed: Number of images that another run should try again.
            plain: The config section to record; default: the stage's.
            versions: Versions of what made it; default: those of its plan.
        """
        if self.keeps_superseded:
            self.kept.keep(unit.part, unit.companions, unit.fingerprint)
        facts, plain = facts or unit.facts, plain or self._plain
        versions = unit.versions if versions is None else versions
        for path, own in zip(unit.companions, companions, strict=True):
            part_file.write_part(path, own, facts, plain, versions=versions)
        described = (*(unit.outputs if files is None else files), *unit.companions)
        part_file.write_part(
            unit.part, rows, facts, plain, files=described, failed=failed, versions=versions
        )
