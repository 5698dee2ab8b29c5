"""UniMatch V2: two strong views with complementary dropout of features (arXiv 2410.10777)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.train.step.perturbations.base import Labels, Perturbation, PerturbationConfig

if TYPE_CHECKING:
    from torch import Tensor

    from stages.models.segmenters.networks.base import SegmentationNetwork
    from stages.train.data.batch import TrainBatch
    from stages.train.data.random_numbers import StepRandom
    from stages.train.step.strong_views import View

KEPT_WHOLE = 0.5
"""Share of the images, rounded down, whose features are not dropped."""


class UniMatchV2(Perturbation):
    """CutMix within a batch, and channel dropout that is complementary in the two views.

    Image i gets its box from image B - 1 - i, so the middle image of an odd batch does not change,
    as in the published code.
    """

    Config = PerturbationConfig
    version = 1
    strong_weights = (0.5, 0.5)
    least_crops = 2

    def views(self, batch: TrainBatch, role: str, labels: Labels, pasted: Labels) -> list[View]:
        """See `Perturbation.views`."""
        import torch

        from stages.train.step.strong_views import boxes, strong_view

        mixed = []
        for number, _ in enumerate(self.strong_weights):
            own = strong_view(batch, role, number, labels)
            rows = torch.tensor(batch.random.rows, device=own.images.device)
            opposite = own.of_rows(batch.random.batch_size - 1 - rows)
            mixed.append(own.pasted(opposite, boxes(batch, role, number)))
        return mixed

    def strong_logits(
        self, student: SegmentationNetwork, images: Tensor, batch: TrainBatch
    ) -> Tensor:
        """See `Perturbation.strong_logits`."""
        levels = student.encode(images)
        widths = {level.shape[1] for level in levels}
        masks = {width: complementary_masks(width, batch.random).to(levels[0]) for width in widths}
        kept = [level * masks[level.shape[1]][:, :, None, None] for level in levels]
        return student.decode(kept, (images.shape[-2], images.shape[-1]))


def complementary_masks(channels: int, random: StepRandom) -> Tensor:
    """Complementary channel dropout (arXiv 2410.10777, section 3.3): factors for two views.

    Each channel is doubled in one view and zero in the other, at random. Feature levels with the
    same number of channels share a mask.

    Args:
        channels: Number of channels F.
        random: The random numbers of the step.

    Returns:
        (2 B, F) float32 of 0, 1 and 2, the first view's rows first; the mean of both views is 1.
    """
    import torch

    purpose = f"complementary dropout of {channels} channels"
    first = 2.0 * random.of_images(purpose, lambda g: torch.rand(channels, generator=g) < 0.5)
    order = torch.randperm(random.batch_size, generator=random.of_step("features kept whole"))
    is_whole = order[list(random.rows)] < int(KEPT_WHOLE * random.batch_size)
    first[is_whole] = 1.0
    return torch.cat([first, 2 - first])
