"""Facts of shards whose label files are read by the colours of the classes.

Only the files tell which scheme reads them, so these facts come from rows: the plan has them where
the rows so far have that scheme, and a part gets them by the rows that are written.
"""

import pyarrow as pa

from pipeline.config.config_section import Facts
from pipeline.config.vocabulary import CLASS_COLORS, Vocabulary
from pipeline.records import arrays


def shards_in_colors(known: pa.Table) -> set[int]:
    """The shards that have such label files.

    Args:
        known: Columns shard and label_scheme of the images manifest.
    """
    return {*arrays.having(known, "label_scheme", CLASS_COLORS)["shard"].to_pylist()}


def with_colors(facts: Facts, vocabulary: Vocabulary, *, in_colors: bool) -> Facts:
    """The facts of a shard, with the colours of the classes only if label files are in these."""
    colors = vocabulary.scheme_facts(CLASS_COLORS)
    others = {key: value for key, value in facts.items() if key not in colors}
    return {**others, **colors} if in_colors else others
