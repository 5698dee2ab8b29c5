"""Predicts one image after the other, and writes its files."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipeline.config.vocabulary import Vocabulary
from pipeline.engine.output_folder import OutputFolder
from pipeline.errors import error_context
from pipeline.images import faults
from pipeline.records.rows import PredictionRow
from stages.models.segmenters.predictor import Predictor
from stages.predict.decoding import Decoded
from stages.predict.inputs import Input
from stages.predict.kinds import KINDS, Prediction

_NO_MEMORY = "allocate memory"
"""Part of the error of torch's allocator of the CPU, which has no type of its own."""


class PredictionWriter:
    """Writes the files of predictions.

    Args:
        predictor: The network.
        vocabulary: Its classes.
        folder: The folder of results.
        kinds: Kinds of files to write.
    """

    def __init__(
        self,
        predictor: Predictor,
        vocabulary: Vocabulary,
        folder: OutputFolder,
        kinds: Sequence[str],
    ) -> None:
        self._predictor, self._vocabulary = predictor, vocabulary
        self._folder, self._kinds = folder, kinds

    def write(self, picture: Decoded, image: Input) -> PredictionRow:
        """Predicts an image at its own size, and writes its files.

        Returns:
            The columns of its row that describe the prediction.

        Raises:
            UnreachableImageError: The image takes more memory than there is.
            NotFiniteError: A score of the network is NaN or infinite.
            OSError: There is no room, say.
        """
        with error_context(f"image {image.address}"):
            prediction = self._prediction(picture)
        for name in self._kinds:
            kind = KINDS[name]
            self._folder.write(kind.file(image.name), kind.encode(prediction, self._vocabulary))
        return prediction.columns()

    def _prediction(self, picture: Decoded) -> Prediction:
        pixels = torch.from_numpy(picture.pixels.copy()).permute(2, 0, 1)
        try:
            probabilities = self._predictor.probabilities(pixels)
            confidence, mask = probabilities.max(dim=0)
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise faults.out_of_memory() from error
        except RuntimeError as error:
            if _NO_MEMORY in str(error):
                raise faults.out_of_memory() from error
            raise
        return Prediction(
            picture.pixels,
            probabilities.float().cpu().numpy(),
            mask.to("cpu", torch.uint8).numpy(),
            confidence.float().cpu().numpy(),
        )
