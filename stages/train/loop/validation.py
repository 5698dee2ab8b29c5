"""Validation during a training: scores on val, and the weights that scored best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline import stopping
from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import DataError
from pipeline.records.rows import ImageRow
from stages.labels.confusion import Confusion
from stages.labels.images import read_mask, read_pixels
from stages.models.segmenters.description import ModelDescription
from stages.models.segmenters.model_file import save_model_file
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.models.segmenters.predictor import Predictor
from stages.models.segmenters.protocol import Protocol
from stages.train import distributed

Bytes = npt.NDArray[np.uint8]

_AT_ONCE = 16
"""Images in memory."""


@dataclass
class Validation:
    """Scores networks on val as evaluate does; the processes share the images.

    Attributes:
        images: Rows of the images manifest.
        vocabulary: The vocabulary of the label files.
        every: Steps between validations; there is one more after the last step.
        path: The file for the weights with the best mean IoU.
        description: The description of the network in that file.
        device: The device of the networks.
        protocol: How images are predicted.
        best: The best mean IoU so far.
        last: Steps that were done at the last validation; None in states of earlier versions.
    """

    images: Sequence[ImageRow]
    vocabulary: Vocabulary
    every: int
    path: Path
    description: ModelDescription
    device: torch.device
    protocol: Protocol
    best: float = field(default=-1.0, init=False)
    last: int | None = field(default=0, init=False)
    _weights: dict[str, Tensor] = field(default_factory=dict, init=False)
    """The weights of `best`, on the CPU; part of the state, so that a lost file comes back."""

    def is_due(self, done: int, steps: int) -> bool:
        """Tells whether to validate after `done` of `steps` steps."""
        return done % self.every == 0 or done == steps

    def is_pending(self, done: int) -> bool:
        """Whether a training stopped before the validation that was due after `done` steps."""
        return done > 0 and self.last not in (None, done)

    def run(self, network: SegmentationNetwork, done: int) -> tuple[dict[str, float], bool]:
        """Scores a network in eval mode, and saves its weights if they are the best so far.

        Args:
            network: The network.
            done: Number of steps that are done.

        Returns:
            The scores by name, and whether the mean IoU is the best so far.

        Raises:
            DataError: An image or label file can no longer be read, or no pixel has a class.
            Stopped: Something asked to stop; nothing has changed.
        """
        confusion = Confusion.empty(self.vocabulary.num_classes)
        predictor = Predictor(network, self.device, self.protocol)
        for pixels, truth in self._read(self.images[distributed.rank() :: distributed.world()]):
            confusion.add(truth, predictor.predict(pixels))
            if distributed.world() == 1:  # others would wait for this process
                stopping.check()
        counts = distributed.global_sum(torch.from_numpy(confusion.counts).to(self.device))
        if not counts.any():
            what = "no pixel of the val images has a class, so they cannot be scored"
            fix = "correct their label files, or set `validate_every: null`"
            raise DataError(what, where="train.validate_every", fix=fix)
        scores = Confusion(counts.cpu().numpy()).scores(self.vocabulary.class_names)
        self.last = done
        known = {name: score for name, score in scores.items() if score is not None}
        improved = known["miou"] > self.best
        if improved:
            self.best = known["miou"]
            self._keep(network.state_dict())
        return known, improved

    def state_dict(self) -> dict[str, Any]:
        """The best score and its weights, and the step of the last validation."""
        return {"best": self.best, "weights": self._weights, "last": self.last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from `state_dict`; writes the file of the best weights again."""
        self.best, self.last = state["best"], state.get("last")
        if state["weights"]:
            self._keep(state["weights"])

    def _keep(self, weights: Mapping[str, Tensor]) -> None:
        if distributed.rank() == 0:
            self._weights = {name: own.to("cpu", copy=True) for name, own in weights.items()}
            save_model_file(self.path, self._weights, self.description)

    def _read(self, rows: Sequence[ImageRow]) -> Iterator[tuple[Bytes, Bytes]]:
        """Yields pixels and masks, read ahead in threads."""

        def read(row: ImageRow) -> tuple[Bytes, Bytes]:
            return read_pixels(row), read_mask(row, self.vocabulary)

        with ThreadPoolExecutor() as threads:
            for first in range(0, len(rows), _AT_ONCE):
                yield from threads.map(read, rows[first : first + _AT_ONCE])
