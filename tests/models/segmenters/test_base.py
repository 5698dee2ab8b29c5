from collections.abc import Sequence

import pytest
from torch import Tensor, nn

from stages.models.segmenters.networks.base import ParameterGroup, SegmentationNetwork


class Blocks(SegmentationNetwork):
    """An encoder of a stem, two blocks of a weight and a norm each, and a last norm."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.stem = nn.Linear(1, 1, bias=False)
        blocks = [nn.Sequential(nn.Linear(1, 1, bias=False), nn.LayerNorm(1)) for _ in range(2)]
        self.encoder.blocks = nn.ModuleList(blocks)
        self.encoder.norm = nn.LayerNorm(1)
        self.classifier = nn.Linear(1, 1)

    def encoder_blocks(self) -> Sequence[nn.Module]:
        blocks = self.encoder.blocks
        assert isinstance(blocks, nn.ModuleList)
        return list(blocks)

    def encode(self, images: Tensor) -> list[Tensor]:
        return [images]

    def fuse(self, features: list[Tensor]) -> Tensor:
        return features[0]

    def classify(self, maps: Tensor, size: tuple[int, int]) -> Tensor:
        return maps


def settings_by_name(
    network: nn.Module, groups: list[ParameterGroup]
) -> dict[str, tuple[float, float]]:
    """Multiplier and weight decay of each parameter that is in a group."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = [
        (names[id(parameter)], (group["multiplier"], group["weight_decay"]))
        for group in groups
        for parameter in group["params"]
    ]
    assert len(dict(found)) == len(found), "a parameter is in two groups"
    return dict(found)


def test_rates_decay_from_the_last_block_to_the_stem() -> None:
    """And norms may go without weight decay."""
    network = Blocks()
    groups = network.parameter_groups(
        encoder_multiplier=0.1,
        decoder_multiplier=40,
        layer_decay=0.5,
        weight_decay=0.01,
        decay_encoder_norms=False,
    )
    norm, full = (pytest.approx(0.1), 0), (40, 0.01)
    assert settings_by_name(network, groups) == {
        "encoder.stem.weight": (pytest.approx(0.0125), 0.01),
        "encoder.blocks.0.0.weight": (pytest.approx(0.025), 0.01),
        "encoder.blocks.0.1.weight": (pytest.approx(0.025), 0),
        "encoder.blocks.0.1.bias": (pytest.approx(0.025), 0),
        "encoder.blocks.1.0.weight": (pytest.approx(0.05), 0.01),
        "encoder.blocks.1.1.weight": (pytest.approx(0.05), 0),
        "encoder.blocks.1.1.bias": (pytest.approx(0.05), 0),
        "encoder.norm.weight": norm,
        "encoder.norm.bias": norm,
        "classifier.weight": full,
        "classifier.bias": full,
    }


def test_frozen_parameters_are_in_no_group() -> None:
    network = Blocks()
    network.encoder.stem.requires_grad_(False)
    assert "encoder.stem.weight" not in settings_by_name(network, network.parameter_groups())
    network.freeze_encoder()
    (decoder,) = network.parameter_groups(decoder_multiplier=3)
    assert (len(decoder["params"]), decoder["multiplier"]) == (2, 3)
