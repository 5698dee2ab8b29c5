"""Clean and perturbed logits of one pass through the encoder."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.config.vocabulary import Vocabulary
from stages.models.segmenters.builders.deeplabv3plus import DeepLabV3PlusConfig, DeepLabV3PlusModel
from stages.models.segmenters.networks.base import SegmentationNetwork
from stages.train.data.random_numbers import StepRandom
from stages.train.step.clean_forward import LABELED, CleanOutputs, clean_forward


class Echo(SegmentationNetwork):
    """Shows the decoder's input as its output."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Identity()

    def encode(self, images: Tensor) -> list[Tensor]:
        return [images]

    def fuse(self, features: list[Tensor]) -> Tensor:
        return features[0]

    def classify(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        return maps


def passed(
    network: SegmentationNetwork, images: Tensor, *, step: int = 0, separate_domains: bool = False
) -> CleanOutputs:
    draws = StepRandom(0, step, range(len(images)), len(images))
    return clean_forward(
        network, [{LABELED: images}], draws, perturb=True, separate_domains=separate_domains
    )


def test_half_of_the_channels_are_dropped_whole_and_the_others_doubled() -> None:
    found = passed(Echo(), torch.ones(64, 32, 3, 3))
    assert (found.logits[LABELED] == 1).all()
    channels = found.perturbed[LABELED][..., 0, 0]
    assert (found.perturbed[LABELED] == channels[..., None, None]).all()
    assert set(channels.flatten().tolist()) == {0.0, 2.0}
    assert channels.mean().item() == pytest.approx(1, abs=0.1)
    assert len({tuple(row.tolist()) for row in channels}) == 64


def test_every_step_drops_other_channels() -> None:
    images = torch.ones(2, 32, 3, 3)
    first, again, later = (
        passed(Echo(), images, step=step).perturbed[LABELED] for step in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


@pytest.mark.parametrize("separate_domains", [False, True])
def test_the_encoder_sees_the_images_once_for_both_logits(
    separate_domains: bool, vocabulary: Vocabulary
) -> None:
    config = DeepLabV3PlusConfig(encoder="resnet18", encoder_weights=None)
    network = DeepLabV3PlusModel(config).build(vocabulary)
    images = torch.randn(2, 3, 33, 50)
    found = passed(network, images, separate_domains=separate_domains)
    assert found.logits[LABELED].shape == found.perturbed[LABELED].shape == (2, 3, 33, 50)
    assert len(found.maps[LABELED]) == 2
    counters = [value for name, value in network.encoder.named_buffers() if "num_batches" in name]
    assert counters
    assert all(counter == 1 for counter in counters)


def test_the_decoder_normalizes_clean_and_perturbed_features_together_or_separately() -> None:
    class Normed(Echo):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3, momentum=1.0)

        def fuse(self, features: list[Tensor]) -> Tensor:
            maps: Tensor = self.norm(features[0])
            return maps

    images = torch.ones(8, 3, 4, 4) * torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)
    means = {}
    for separate_domains in (False, True):
        network = Normed()
        found = passed(network, images, separate_domains=separate_domains)
        means[separate_domains] = network.norm.running_mean
        clean = found.logits[LABELED].mean(dim=(0, 2, 3))
        assert (clean.abs().max().item() < 1e-3) is separate_domains
    assert means[True] is not None
    torch.testing.assert_close(means[True], torch.tensor([1.0, 2.0, 3.0]))
    assert not torch.equal(means[False], means[True])  # type: ignore[arg-type]


def test_groups_of_views_come_back_by_key() -> None:
    views = {LABELED: torch.zeros(2, 3, 4, 4), "unlabeled": torch.ones(2, 3, 4, 4)}
    web = {"ood": torch.full((2, 3, 4, 4), 2.0)}
    draws = StepRandom(0, 0, range(2), 2)
    found = clean_forward(Echo(), [views, web], draws, perturb=False, separate_domains=False)
    for key, images in (views | web).items():
        assert torch.equal(found.logits[key], images)
        assert torch.equal(found.maps[key], images)
    assert not found.perturbed
