"""webdataset: tar archives of NAME.jpg, NAME.mask.png and NAME.json, one for each shard."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

from stages.export.formats.base import Format, Record
from stages.export.sample import Sample, mask_png


class WebDataset(Format):
    """Writes this format."""

    def write(self, samples: Iterable[Sample], shard: int) -> Iterator[Record]:
        """See `Format.write`: an archive for each split of a shard."""
        with ExitStack() as stack:
            archives: dict[str, tarfile.TarFile] = {}
            for sample in samples:
                if sample.split not in archives:
                    name = f"{sample.split}-{shard:06d}.tar"
                    path = stack.enter_context(self.folder.replacing(name))
                    archives[sample.split] = stack.enter_context(tarfile.open(path, "w"))
                ending, content = sample.file
                facts = {"name": sample.name, "split": sample.split}
                for last, own in (
                    (ending, content),
                    (".mask.png", mask_png(sample.mask, self.vocabulary.palette)),
                    (".json", json.dumps(facts, ensure_ascii=False).encode()),
                ):
                    member = tarfile.TarInfo(f"{sample.name}{last}")
                    member.size, member.mode = len(own), 0o644
                    archives[sample.split].addfile(member, io.BytesIO(own))
                yield self.add(sample)

    def add(self, sample: Sample) -> Record:
        """See `Format.add`; `write` writes its files."""
        return {}

    def finish(self, records: Iterable[Record]) -> None:
        """See `Format.finish`."""
        del records
        names = self.vocabulary.class_names
        self.write_json("classes.json", {str(number): name for number, name in enumerate(names)})
