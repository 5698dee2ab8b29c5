from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch

from stages.models.embedded.trunk import NAME, register


def test_registering_twice_is_registering_once() -> None:
    register()
    register()
    assert timm.list_models(NAME) == [NAME]


def test_feature_maps_for_a_segmenter() -> None:
    register()
    trunk: Any = timm.create_model(NAME, features_only=True)
    assert trunk.feature_info.channels() == [32, 64, 192]
    assert trunk.feature_info.reduction() == [2, 4, 8]
    maps = trunk(torch.zeros(2, 3, 64, 96))
    assert [tuple(one.shape) for one in maps] == [(2, 32, 32, 48), (2, 64, 16, 24), (2, 192, 8, 12)]


def test_smp_builds_a_unet_on_it() -> None:
    register()
    unet = smp.Unet(
        f"tu-{NAME}",
        encoder_weights=None,
        encoder_depth=3,
        decoder_channels=(64, 32, 16),
        classes=9,
    )
    assert unet.eval()(torch.zeros(1, 3, 64, 96)).shape == (1, 9, 64, 96)
