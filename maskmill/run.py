"""A run to look at: `maskmill.open`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from maskmill import image_view
from maskmill.cli.opened_run import leader_console, opened_run
from pipeline.config.config import Config
from pipeline.engine.runner import Runner
from pipeline.errors import DataError
from pipeline.images.overlay import resized, sheet
from pipeline.records import manifest, tables
from stages.graph import GRAPH

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Labels:
    """A label of an image, at the image's own size.

    Attributes:
        mask: (H, W) uint8 class ids, 255 = ignore.
        confidence: (H, W) uint8, 255 = certain.
    """

    mask: Bytes
    confidence: Bytes


class Run:
    """A run's tables, stored labels and pictures.

    Args:
        config: Its YAML file; None: see `maskmill.open`.
        overrides: Keys to override.

    Attributes:
        config: The checked config.
    """

    def __init__(self, config: Path | None, overrides: Sequence[str]) -> None:
        with opened_run(config, overrides) as found:
            self.config: Config = found

    def __repr__(self) -> str:
        return f"<run {self.config.run.run} of {self.config.path}>"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their ids."""
        return self.config.vocabulary.class_names

    def table(self, name: str = "images") -> pd.DataFrame:
        """A table of the run, as `pandas.read_parquet` reads it; empty where its stage has not run.

        Args:
            name: images, pseudo_labels, metrics, ...: all are described in manifests/README.md.

        Raises:
            DataError: There is no table of this name.
        """
        known = {table.name: table for table in tables.TABLES}
        if name not in known:
            fix = f"use one of: {', '.join(known)}"
            raise DataError(f"no table {name!r}", where=f"run {self.config.run.run}", fix=fix)
        folder = self.config.manifests / name
        if not folder.exists():
            frame: pd.DataFrame = manifest.read(folder, known[name]).to_pandas()
            return frame
        return pd.read_parquet(str(folder))

    def status(self) -> pd.DataFrame:
        """Each stage's state and its numbers of fresh, stale and missing units."""
        states = Runner(self.config, GRAPH, leader_console()).status()
        rows = [{"stage": s.name, "state": s.state.value, **s.counts} for s in states]
        return pd.DataFrame(rows).set_index("stage")

    def labels(self, image: str, labeler: str | None = None) -> Labels:
        """A stored label.

        Args:
            image: An image_id, or a path.
            labeler: Its labeler; may be left out if there is one.

        Raises:
            DataError: The run has no such image or no label of it.
        """
        row = image_view.image_row(self.config, image)
        found = image_view.label_rows(self.config, row)
        good = {name: label for name, label in found.items() if label["status"] == "ok"}
        chosen = [labeler] if labeler is not None else [*good]
        if len(chosen) != 1 or chosen[0] not in good:
            what = "no such label" if good else "the image has no label"
            what = what if labeler is not None or not good else "it has labels of several labelers"
            fix = f"name one of: {', '.join(good)}" if good else "run `maskmill run pseudolabel`"
            raise DataError(what, where=f"image {image}", fix=fix)
        mask, confidence = image_view.stored_label(self.config, good[chosen[0]])
        size = row["height"], row["width"]
        return Labels(resized(mask, *size), resized(confidence, *size))

    def figure(self, image: str) -> Image.Image:
        """The image, its label file if it has one, and each stored label with its confidence.

        Args:
            image: An image_id, or a path.

        Raises:
            DataError: The run has no such image, or its file can no longer be read.
        """
        row = image_view.image_row(self.config, image)
        return sheet([list(image_view.pictures(self.config, row))])
