"""Time inside the networks of stage one, at the best batch sizes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.config.config import Config
from pipeline.console import Console
from stages.models.clip.clip_weights import ClipConfig
from stages.propose.config import GeneratorConfig, ProposeConfig
from stages.propose.generator.mask_generator import MaskGenerator
from stages.propose.generator.sam import load_sam
from stages.pseudolabel.config import PseudolabelConfig
from stages.pseudolabel.inputs import LabelerInput, batch_of
from stages.pseudolabel.labelers.dense_clip import DenseClip

Pixels = npt.NDArray[np.uint8]
_IMAGES_A_BATCH = 16
_TRIED = 4
"""Images that batch sizes are compared on."""


_SAM_BATCHES = {"cpu": [(1, 64)], "cuda": [*product((1, 4, 8), (64, 256, 1024))]}
"""Images and points a forward. On a CPU the generator takes as many points as its caches hold."""


_CLIP_BATCHES = (1, 4, 16, 64)
"""Windows a forward."""


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock, and of all CPUs together."""

    wall: float = float("inf")
    cpu: float = float("inf")

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.wall - other.wall, self.cpu - other.cpu)

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall + other.wall, self.cpu + other.cpu)

    def __mul__(self, factor: float) -> Cost:
        return Cost(factor * self.wall, factor * self.cpu)

    def least(self, other: Cost) -> Cost:
        """The smaller of each: what is over it is other people's work."""
        return Cost(min(self.wall, other.wall), min(self.cpu, other.cpu))


class Stopwatch:
    """Adds up the time inside functions.

    Args:
        device: Whose work is waited for before and after.
    """

    def __init__(self, device: torch.device) -> None:
        self.cost = Cost(0, 0)
        self._device = device

    def replace(self, owner: object, *names: str) -> None:
        """Has these methods of an object be timed."""
        for name in names:
            setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = self._now()
            result = function(*args, **kwargs)
            self.cost += self._now() - start
            return result

        return timed

    def _now(self) -> Cost:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return Cost(time.perf_counter(), time.process_time())


def sam_forwards(config: Config, pictures: Sequence[Pixels], device: torch.device) -> Cost:
    """Encoder and decoder, as the generator asks them, over all pictures."""
    section = config.sections["propose"]
    assert isinstance(section, ProposeConfig)
    options = section.model_dump(include=set(GeneratorConfig.model_fields))

    def forwards(some: Sequence[Pixels], batch: tuple[int, int]) -> Cost:
        sam = load_sam(section.model, section.checkpoint(Console())).to(device)
        own = {**options, "images_per_batch": batch[0], "points_per_batch": batch[1]}
        generator, watch = MaskGenerator(sam, **own), Stopwatch(device)
        generator(some[:1])  # libraries set themselves up
        watch.replace(sam.image_encoder, "forward")
        watch.replace(generator._decoder, "project_images", "decode", "mask_logits")
        for start in range(0, len(some), batch[0]):
            generator(some[start : start + batch[0]])
        return watch.cost

    return _at_best(forwards, pictures, _SAM_BATCHES[device.type])


def clip_forwards(config: Config, pictures: Sequence[Pixels], device: torch.device) -> Cost:
    """The image side over all windows of all pictures."""
    section = config.sections["pseudolabel"]
    assert isinstance(section, PseudolabelConfig)
    keys = section.labelers["sam_clip"].config.model_dump(include=set(ClipConfig.model_fields))

    def forwards(some: Sequence[Pixels], windows: int) -> Cost:
        own = ClipConfig.model_validate({**keys, "batch_size": windows})
        labeler, watch = DenseClip(own, config.vocabulary), Stopwatch(device)
        labeler.load(device)
        inputs = [LabelerInput(pixels) for pixels in some]
        starts = range(0, len(some), _IMAGES_A_BATCH)
        batches = [batch_of(inputs[i : i + _IMAGES_A_BATCH], section.size_px) for i in starts]
        with torch.inference_mode():
            labeler.label(batches[0])
            watch.replace(labeler, "_features")
            for batch in batches:
                labeler.label(batch)
        return watch.cost

    return _at_best(forwards, pictures, _CLIP_BATCHES)


def _at_best(
    forwards: Callable[[Sequence[Pixels], Any], Cost],
    pictures: Sequence[Pixels],
    batches: Sequence[Any],
) -> Cost:
    """The cost over all pictures by the batch size that is fastest on some."""
    if len(batches) == 1:
        return forwards(pictures, batches[0])
    tried = {batch: forwards(pictures[:_TRIED], batch) for batch in batches}
    return forwards(pictures, min(tried, key=lambda batch: tried[batch].wall))
