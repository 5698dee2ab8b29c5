"""The facts of each shard of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.config_section import Facts
from pipeline.config.vocabulary import Vocabulary
from pipeline.records import arrays
from pipeline.records.part_file import IMAGES_FACT
from pipeline.records.sharded_table import ShardedTable
from stages.ingest.color_facts import shards_in_colors, with_colors
from stages.ingest.config import IngestConfig

_Kinds = tuple[tuple[str, str | None, bool], ...]
SHARD_SIZE = "ingest.shard_size"
DUPLICATES_MARKED = "ingest.is_settled"
"""Fact: whether duplicates were marked after this shard and the others of its run were read."""
_INPUTS = ("image", "stamp", "mask", "mask_stamp", "caption", "url", "problem", "present")
"""Columns of the layout that a manifest row depends on; the digest of them is a fact."""


@dataclass(frozen=True)
class ShardFacts:
    """Facts of shards.

    Attributes:
        section: The section `ingest`.
        vocabulary: The classes.
        version: The stage's version, as a fact.
    """

    section: IngestConfig
    vocabulary: Vocabulary
    version: Facts

    def of(self, layout: ShardedTable, known: pa.Table) -> dict[int, Facts]:
        """The facts of each shard of a layout.

        Args:
            layout: The layout.
            known: The same rows of the images manifest so far: `shard` and `label_scheme`.
        """
        in_colors = shards_in_colors(known)
        digests, kinds = layout.digests(_INPUTS), self._kinds(layout)
        facts = {found: self._facts_of(found) for found in {(), *kinds.values()}}
        return {
            shard: with_colors(
                {**facts[kinds.get(shard, ())], IMAGES_FACT: digest},
                self.vocabulary,
                in_colors=shard in in_colors,
            )
            for shard, digest in digests.items()
        }

    def _kinds(self, layout: ShardedTable) -> dict[int, _Kinds]:
        """By shard, the combinations of source, label scheme and having masks of its images."""
        table = layout.table.select(["row", "source", "scheme", "mask"])
        # Rows of sources that the config no longer has depend on none of its keys.
        table = table.filter(pc.is_in(table["source"], arrays.texts(self.section.sources)))
        code = arrays.numbers(table["row"]) // self.section.shard_size
        for column in (table["source"], table["scheme"], pc.is_valid(table["mask"])):
            encoded = arrays.whole(column.dictionary_encode("encode"))
            code = code * len(encoded.dictionary) + np.from_dlpack(encoded.indices)
        _, first = np.unique(code, return_index=True)
        kinds: dict[int, _Kinds] = {}
        for row in table.take(arrays.integers(first)).to_pylist():
            kind = (row["source"], row["scheme"], row["mask"] is not None)
            shard = row["row"] // self.section.shard_size
            kinds[shard] = (*kinds.get(shard, ()), kind)
        return kinds

    def _facts_of(self, kinds: _Kinds) -> Facts:
        """Facts that a shard's rows depend on, other than its files."""
        facts: Facts = {**self.version, SHARD_SIZE: self.section.shard_size}
        facts[DUPLICATES_MARKED] = True
        facts |= self.section.limits.facts("ingest.limits")
        for source in sorted({source for source, _, _ in kinds}):
            facts |= self.section.sources[source].facts(f"ingest.sources.{source}")
        schemes = (scheme for _, scheme, is_masked in kinds if is_masked)
        return facts | self.vocabulary.schemes_facts(schemes)
