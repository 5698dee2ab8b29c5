"""Example pictures of a training, and metrics of its labels, for TensorBoard and the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pipeline.config.vocabulary import IGNORE
from pipeline.images import images
from pipeline.images.overlay import overlaid, sheet
from stages.labels.pseudo_labels import PseudoLabels
from stages.models.segmenters.normalization import normalize
from stages.train.data.batch import TrainBatch

if TYPE_CHECKING:
    from stages.models.segmenters.networks.base import SegmentationNetwork
    from stages.train.records.tensorboard import EventFiles

Bytes = npt.NDArray[np.uint8]

_SHOWN = 4
"""Crops of each role in a picture."""
_SIDE_PX = 192
_CAPTION_PX = 18


@dataclass(frozen=True)
class ExamplePictures:
    """Draws example crops of one training into its event files; only the leader has it.

    Attributes:
        events: TensorBoard's event files.
        roles: The role that each label source labels, by its name, in the order of the config.
        palette: (256, 3) uint8, as `Vocabulary.palette`.
        pictures_every: Steps between pictures.
    """

    events: EventFiles
    roles: Mapping[str, str]
    palette: Bytes
    pictures_every: int

    def label_metrics(
        self, batch: TrainBatch, labels: Mapping[str, PseudoLabels]
    ) -> dict[str, float]:
        """Metrics of the labels of a step, for the log and the manifest.

        Args:
            batch: One micro-batch of the step.
            labels: Labels (B, S, S) of its weak views by source.

        Returns:
            See `label_metrics`.
        """
        found: dict[str, float] = {}
        for role in dict.fromkeys(self.roles.values()):
            found |= label_metrics(self._of_role(role, labels), batch.crops[role].valid)
        return found

    def is_due(self, step: int) -> bool:
        """Whether pictures are due after `step` steps; they are after the first step."""
        return step == 1 or step % self.pictures_every == 0

    def draw(
        self,
        step: int,
        batch: TrainBatch,
        labels: Mapping[str, PseudoLabels],
        network: SegmentationNetwork,
    ) -> None:
        """Draws some crops of each role with their labels and the student's prediction.

        It draws no random numbers and changes no running statistics.

        Args:
            step: Number of steps that are done.
            batch: One micro-batch of the last step.
            labels: Labels (B, S, S) of its weak views by source.
            network: The student; keeps its mode.
        """
        labeled = batch.labeled
        masks = {"truth": labeled.mask}
        self._draw_role(step, "labeled", labeled.pixels, masks, network)
        for role in dict.fromkeys(self.roles.values()):
            masks = {
                name: own.mask.masked_fill(~_labeled(own, batch.crops[role].valid), IGNORE)
                for name, own in self._of_role(role, labels).items()
            }
            self._draw_role(step, role, batch.crops[role].pixels, masks, network)

    def _of_role(self, role: str, labels: Mapping[str, PseudoLabels]) -> dict[str, PseudoLabels]:
        own = (name for name, each in self.roles.items() if each == role)
        return {name: labels[name] for name in own if name in labels}

    def _draw_role(
        self,
        step: int,
        role: str,
        crops: Tensor,
        masks: Mapping[str, Tensor],
        network: SegmentationNetwork,
    ) -> None:
        """One picture for a role; each row shows a crop, each mask and the prediction."""
        crops = crops[:_SHOWN]
        columns = {**masks, "student": predicted(network, normalize(crops))}
        pixels = [images.fit(each, _SIDE_PX) for each in _bytes(255 * crops.movedim(1, -1))]
        rows = [[captioned(each, "image") for each in pixels]]
        for name, mask in columns.items():
            painted = [
                overlaid(image, own, self.palette)
                for image, own in zip(pixels, _bytes(mask[:_SHOWN]), strict=True)
            ]
            rows.append([captioned(each, name) for each in painted])
        picture = sheet([list(cells) for cells in zip(*rows, strict=True)])
        self.events.picture(step, f"examples/{role}", np.asarray(picture))


def label_metrics(labels: Mapping[str, PseudoLabels], valid: Tensor) -> dict[str, float]:
    """Measures how much several sources label of the same crops, and how often they agree.

    A source labels a pixel if it gives the pixel a class and a weight above 0.

    Args:
        labels: Labels (B, S, S) by source.
        valid: (B, S, S) bool, False on padding, which is not counted.

    Returns:
        ``labeled/<source>``: share of the pixels that it labels, 0 to 1. ``agreement/<a>/<b>``:
        share of the pixels with an equal class among those that both label; left out where there
        are none.
    """
    counts: dict[str, tuple[Tensor, Tensor]] = {}
    known = {name: _labeled(own, valid) for name, own in labels.items()}
    for name in labels:
        counts[f"labeled/{name}"] = (known[name].sum(), valid.sum())
    for first, second in combinations(labels, 2):
        both = known[first] & known[second]
        same = both & (labels[first].mask == labels[second].mask)
        counts[f"agreement/{first}/{second}"] = (same.sum(), both.sum())
    if not counts:
        return {}
    numbers = torch.stack([torch.stack(pair) for pair in counts.values()]).tolist()
    pairs = zip(counts, numbers, strict=True)
    return {name: part / whole for name, (part, whole) in pairs if whole}


def predicted(network: SegmentationNetwork, crops: Tensor) -> Tensor:
    """Predicts classes (N, S, S) int64 of crops (N, 3, S, S) in eval mode."""
    is_training = network.training
    with torch.no_grad():
        classes = network.eval()(crops).argmax(dim=1)
    network.train(is_training)
    return torch.as_tensor(classes)


def captioned(picture: Bytes, text: str) -> Bytes:
    """Adds a line of text above a picture (H, W, 3)."""
    height, width = picture.shape[:2]
    canvas = Image.new("RGB", (width, height + _CAPTION_PX), "white")
    canvas.paste(Image.fromarray(picture), (0, _CAPTION_PX))
    font = ImageFont.load_default(size=12)
    ImageDraw.Draw(canvas).text((2, 2), text, fill="black", font=font)
    return np.asarray(canvas)


def _labeled(labels: PseudoLabels, valid: Tensor) -> Tensor:
    """(B, S, S) bool: pixels that have a class and a weight."""
    return (labels.mask != IGNORE) & (labels.confidence > 0) & valid


def _bytes(numbers: Tensor) -> Sequence[Bytes]:
    return list(numbers.round().to("cpu", torch.uint8).numpy())
