"""Finds images at another address: renamed sources, other mount points, moved files."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.files import file_stamps, tar
from pipeline.records import arrays

_Keys = Sequence[str | None]
_Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Unplaced:
    """Images that are listed but not known at their address, or known but not listed there.

    Each attribute has an item an image.

    Attributes:
        addresses: Where they are, or were.
        roles: Their roles.
        stamps: Stamps of the files that hold them; None for what has no file or must not be read.
        ids: The `image_id` of their bytes; None where it is not known.
    """

    addresses: list[str]
    roles: list[str]
    stamps: _Keys
    ids: _Keys

    @staticmethod
    def listed(images: pa.Table, contents: Mapping[str, str | None]) -> Unplaced:
        """Rows of a listing, with the `image_id` of those that were compared, by address."""
        addresses = images["image"].to_pylist()
        may_read = pc.is_null(images["problem"])
        stamps = pc.if_else(may_read, images["stamp"], arrays.text(None)).to_pylist()
        ids = [contents.get(address) for address in addresses]
        return Unplaced(addresses, images["role"].to_pylist(), stamps, ids)

    @staticmethod
    def known(images: pa.Table) -> Unplaced:
        """Rows of the images manifest."""
        columns = (images[name].to_pylist() for name in ("uri", "role", "stamp", "image_id"))
        addresses, roles, stamps, ids = columns
        # After @ is how their pixels are read, not what their bytes are.
        return Unplaced(addresses, roles, stamps, [each and each.partition("@")[0] for each in ids])

    def signatures(self) -> _Keys:
        """Texts that are equal only for equal bytes: the stamp, and the place in an archive."""
        return [
            stamp
            if stamp is None or (member := tar.parse(address)) is None
            else f"{stamp} {member.name}@{member.offset}+{member.size}"
            for address, stamp in zip(self.addresses, self.stamps, strict=True)
        ]

    def size(self, position: int) -> int | None:
        """Bytes of an image, as far as its address and stamp tell."""
        if (member := tar.parse(self.addresses[position])) is not None:
            return member.size
        stamp = self.stamps[position]
        return None if stamp is None else file_stamps.size_in(stamp)


def paired(new: Unplaced, lost: Unplaced) -> dict[int, int]:
    """Pairs new images with lost ones of equal bytes; of the same role first, then of any.

    Of images whose bytes are repeated the first new one gets the first lost one.

    Returns:
        The position of a lost image by the position of a new one.
    """
    pairs: dict[int, int] = {}
    keys = [(new.signatures(), lost.signatures()), (new.ids, lost.ids)]
    for is_same_role in (True, False):
        for ours, theirs in keys:
            if is_same_role:
                ours, theirs = _with_role(ours, new.roles), _with_role(theirs, lost.roles)
            _pair(ours, theirs, pairs)
    return pairs


def unsure(
    new: Unplaced,
    among: Collection[int],
    lost: Unplaced,
    rest: Collection[int],
    contents: Mapping[str, str | None],
) -> list[str]:
    """Addresses of new images that have the size of a lost one and were not compared yet.

    Args:
        new: The new images.
        among: Positions of those without a pair.
        lost: The lost images.
        rest: Positions of those without a pair.
        contents: By address the images that were compared.
    """
    sizes = {lost.size(position) for position in rest if lost.ids[position] is not None} - {None}
    return [
        new.addresses[position]
        for position in sorted(among)
        if new.size(position) in sizes and new.addresses[position] not in contents
    ]


def twins(
    known: pa.Table, lost: _Positions, listed: pa.Table, found: _Positions
) -> Iterator[tuple[int, int]]:
    """Yields lost images with a duplicate that is still there and takes their row.

    Without this the duplicate would be labeled, though its bytes are.

    Args:
        known: The images manifest so far.
        lost: Positions of the lost images in it, ascending.
        listed: The listing.
        found: The position of each listed image in the manifest; -1 for new images.

    Yields:
        Positions in the manifest: of a lost image, and of its duplicate.
    """
    good = lost[_has_status(known, lost, "ok")]
    if not len(good):
        return
    (there,) = np.nonzero(found >= 0)
    is_twin = _has_status(known, found[there], "duplicate")
    waiting: dict[tuple[str, str], deque[int]] = defaultdict(deque)
    for at in there[is_twin][np.argsort(found[there[is_twin]])].tolist():
        position = int(found[at])
        stamp = listed["stamp"][at].as_py()
        if stamp is not None and stamp == known["stamp"][position].as_py():
            waiting[_bytes_and_role(known, position)].append(position)
    for position in good.tolist():
        if twin := waiting.get(_bytes_and_role(known, position)):
            yield position, twin.popleft()


def _has_status(known: pa.Table, positions: _Positions, status: str) -> npt.NDArray[np.bool_]:
    statuses = known["status"].take(arrays.integers(positions))
    return arrays.truth(pc.equal(statuses, arrays.text(status)))


def _bytes_and_role(known: pa.Table, position: int) -> tuple[str, str]:
    return known["image_id"][position].as_py(), known["role"][position].as_py()


def _with_role(keys: _Keys, roles: Sequence[str]) -> _Keys:
    return [key and f"{role} {key}" for key, role in zip(keys, roles, strict=True)]


def _pair(ours: _Keys, theirs: _Keys, pairs: dict[int, int]) -> None:
    """Adds pairs of equal keys among those that have no pair yet."""
    taken = {*pairs.values()}
    waiting: dict[str, deque[int]] = defaultdict(deque)
    for position, key in enumerate(theirs):
        if key is not None and position not in taken:
            waiting[key].append(position)
    for position, key in enumerate(ours):
        if position not in pairs and key is not None and waiting.get(key):
            pairs[position] = waiting[key].popleft()
