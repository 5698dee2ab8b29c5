"""Parts of finished work that another config has superseded.

They are moved to the folder `.kept` of the run's manifests, where readers of the tables do not see
them, and are found by the fingerprint of their facts: going back to former keys costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.errors import StorageError
from pipeline.files import storage
from pipeline.records import part_file, snapshot


class KeptParts:
    """The kept parts of a run.

    Args:
        manifests: Folder of the run's manifests.
    """

    def __init__(self, manifests: Path) -> None:
        self._manifests = manifests
        self.folder = manifests / ".kept"

    def path(self, part: Path, fingerprint: str) -> Path:
        """The place of a kept part."""
        return self._folder_of(part) / f"{part.stem}.{fingerprint}{part.suffix}"

    def find(self, part: Path, companions: Sequence[Path], fingerprint: str) -> dict[Path, Path]:
        """Kept parts by the place that they would return to, `part` last; {} if any is missing.

        A damaged part is missing. A companion that is in its place is not: `keep` or `restore` was
        killed.
        """
        found = {}
        for place in (part, *companions):
            kept = self.path(place, fingerprint)
            exists = kept.name in snapshot.names_in(kept.parent)
            if exists and _fingerprint_of(kept) == fingerprint:
                found[place] = kept
            elif place == part or _fingerprint_of(place) != fingerprint:
                return {}
        return dict(reversed(found.items()))

    def keep(self, part: Path, companions: Sequence[Path], fingerprint: str) -> None:
        """Moves a part with its companions away, those that are of other facts than `fingerprint`.

        The part goes first and returns last, so that a kill never leaves it without companions.
        """
        for each in (part, *companions):
            own = _fingerprint_of(each)
            if own is not None and own != fingerprint:
                storage.move(each, self.path(each, own))

    def restore(self, found: Mapping[Path, Path], companions: Sequence[Path]) -> None:
        """Moves parts that `find` found back to their places.

        The parts there now are kept in turn.
        """
        *_, part = found
        fingerprint = found[part].name.split(".")[-2]
        self.keep(part, companions, fingerprint)
        for place, kept in found.items():
            storage.move(kept, place)

    def clear(self, part: Path, outputs: Iterable[Path]) -> None:
        """Deletes a part and its kept versions that describe one of these files."""
        names = {storage.relative(output, part.parent) for output in outputs}
        if not names:
            return
        pattern = f"{part.stem}.*{part.suffix}"
        for each in (part, *storage.glob(self._folder_of(part), pattern)):
            try:
                record = part_file.read_record(each)
            except StorageError:
                record = None
            if record is None or names & record.files.keys():
                storage.remove(each)

    def all(self) -> list[Path]:
        """Every kept part."""
        with suppress(FileNotFoundError):
            return storage.glob(self.folder, "**/*.parquet")
        return []

    def _folder_of(self, part: Path) -> Path:
        return self.folder / storage.relative(part.parent, self._manifests)


def _fingerprint_of(part: Path) -> str | None:
    """The digest of a part's facts; None if it is missing, damaged or has images to try again."""
    with suppress(StorageError):
        if (record := part_file.read_record(part)) is not None and not record.failed:
            return part_file.digest(record.facts)
    return None
