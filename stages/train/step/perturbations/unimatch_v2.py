"""UniMatch V2: two strong views with complementary dropout of features (arXiv 2410.10777)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.train.step.perturbations.base import Labels, Perturbation, PerturbationConfig

if TYPE_CHECKING:
    from torch import Tensor

    from stages.models.segmenters.networks.base import SegmentationNetwork
    from stages.train.data.batch import TrainBatch
    from stages.train.step.strong_views import Mixture


class UniMatchV2(Perturbation):
    """CutMix between the images of a batch; what one view's features lack the other's have.

    Image i gets its box from image B - 1 - i, so that the middle one of an odd batch stays as it
    is, as in the published code.
    """

    Config = PerturbationConfig
    version = 1
    strong_weights = (0.5, 0.5)
    least_crops = 2

    def mixtures(
        self, batch: TrainBatch, role: str, labels: Labels, pasted: Labels
    ) -> list[Mixture]:
        """See `Perturbation.mixtures`."""
        import torch

        from stages.train.step.strong_views import boxes, strong_mixture

        mixed = []
        for number, _ in enumerate(self.strong_weights):
            own = strong_mixture(batch, role, number, labels)
            places = torch.tensor(batch.draws.images, device=own.images.device)
            opposite = own.of_batch(batch.draws.total - 1 - places)
            mixed.append(own.pasted(opposite, boxes(batch, role, number)))
        return mixed

    def strong_logits(
        self, student: SegmentationNetwork, images: Tensor, batch: TrainBatch
    ) -> Tensor:
        """See `Perturbation.strong_logits`."""
        from stages.train.step.complementary_dropout import complementary_masks

        levels = student.encode(images)
        widths = {level.shape[1] for level in levels}
        masks = {width: complementary_masks(width, batch.draws).to(levels[0]) for width in widths}
        kept = [level * masks[level.shape[1]][:, :, None, None] for level in levels]
        return student.decode(kept, (images.shape[-2], images.shape[-1]))
