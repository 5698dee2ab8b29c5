"""ClassMix: half of the classes in an image, pasted onto another image (arXiv 2007.07936)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.train.step.perturbations.base import Labels, Perturbation, PerturbationConfig

if TYPE_CHECKING:
    from stages.train.data.batch import TrainBatch
    from stages.train.step.strong_views import View


class ClassMixConfig(PerturbationConfig):
    """Keys of the perturbation `classmix`."""

    recolor: bool = False
    """Whether mixed images also get other colours: published for Cityscapes, not for VOC."""


class ClassMix(Perturbation):
    """Pastes half of an image's classes onto the next image of the batch.

    The classes come from the labels of the role's first label source.
    """

    Config = ClassMixConfig
    version = 1
    config: ClassMixConfig
    averages = False
    least_crops = 2

    def views(self, batch: TrainBatch, role: str, labels: Labels, pasted: Labels) -> list[View]:
        """See `Perturbation.views`."""
        import torch

        from stages.train.step.pasting import half_of_the_classes
        from stages.train.step.strong_views import View

        crops = batch.crops[role]
        mask = next(iter(labels.values())).mask
        chosen = half_of_the_classes(mask, batch.random, f"classes of {role}")
        own = View(crops.pixels, crops.valid, labels)
        rows = torch.tensor(batch.random.rows, device=mask.device)
        following = own.of_rows((rows + 1) % batch.random.batch_size)
        return [following.pasted(own, chosen).normalized(batch, role, self.config.recolor)]
