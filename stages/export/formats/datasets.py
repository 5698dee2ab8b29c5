"""Hugging Face datasets: Parquet files with an image and a mask, for load_dataset(FOLDER)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stages.export.formats.base import Format, Record
from stages.export.sample import Sample, mask_png

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_SCHEMA = pa.schema([("image", _IMAGE), ("mask", _IMAGE), ("name", pa.string())])
_FEATURES = {
    "image": {"_type": "Image"},
    "mask": {"_type": "Image"},
    "name": {"dtype": "string", "_type": "Value"},
}


class Datasets(Format):
    """Writes this format."""

    def write(self, samples: Iterable[Sample], shard: int) -> Iterator[Record]:
        """See `Format.write`: a file for each split of a shard, written when the shard is done."""
        rows: dict[str, list[dict[str, Any]]] = {}
        for sample in samples:
            ending, content = sample.file
            mask = mask_png(sample.mask, self.vocabulary.palette)
            row = {
                "image": {"bytes": content, "path": f"{sample.name}{ending}"},
                "mask": {"bytes": mask, "path": f"{sample.name}.png"},
                "name": sample.name,
            }
            rows.setdefault(sample.split, []).append(row)
            yield self.add(sample)
        features = json.dumps({"info": {"features": _FEATURES}})
        schema = _SCHEMA.with_metadata({"huggingface": features})
        for split, own in rows.items():
            with self.folder.replacing(f"data/{split}-{shard:05d}.parquet") as path:
                pq.write_table(pa.Table.from_pylist(own, schema), path, compression="none")

    def add(self, sample: Sample) -> Record:
        """See `Format.add`; `write` writes its files."""
        return {"split": sample.split}

    def finish(self, records: Iterable[Record]) -> None:
        """See `Format.finish`: the card, which says which files are which split."""
        splits = sorted({record["split"] for record in records})
        names = self.vocabulary.class_names
        lines = ["---", "configs:", "- config_name: default", "  data_files:"]
        for split in splits:
            lines += [
                f"  - split: {split.replace('val', 'validation')}",
                f"    path: data/{split}-*",
            ]
        lines += ["---", "", "Images with masks of class ids, 255 = ignore. Made by Maskmill.", ""]
        lines += [f"- {number}: {name}" for number, name in enumerate(names)]
        self.write_lines("README.md", lines)
