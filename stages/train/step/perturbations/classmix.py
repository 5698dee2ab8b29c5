"""ClassMix: half of the classes seen in an image, pasted onto another (arXiv 2007.07936)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages.train.step.perturbations.base import Labels, Perturbation, PerturbationConfig

if TYPE_CHECKING:
    from stages.train.data.batch import TrainBatch
    from stages.train.step.strong_views import Mixture


class ClassMixConfig(PerturbationConfig):
    """Keys of the perturbation `classmix`."""

    recolor: bool = False
    """Whether mixed images also get other colours, as published for Cityscapes; not for VOC."""


class ClassMix(Perturbation):
    """A mixed image shows half of an image's classes before the next image of the batch.

    The classes are those that the role's first label source sees.
    """

    Config = ClassMixConfig
    version = 1
    config: ClassMixConfig
    averages = False
    least_crops = 2

    def mixtures(
        self, batch: TrainBatch, role: str, labels: Labels, pasted: Labels
    ) -> list[Mixture]:
        """See `Perturbation.mixtures`."""
        import torch

        from stages.train.step.pasting import half_of_the_classes
        from stages.train.step.strong_views import Mixture

        crops = batch.crops[role]
        mask = next(iter(labels.values())).mask
        chosen = half_of_the_classes(mask, batch.draws, f"classes of {role}")
        own = Mixture(crops.pixels, crops.valid, labels)
        places = torch.tensor(batch.draws.images, device=mask.device)
        following = own.of_batch((places + 1) % batch.draws.total)
        return [following.pasted(own, chosen).seen(batch, role, self.config.recolor)]
