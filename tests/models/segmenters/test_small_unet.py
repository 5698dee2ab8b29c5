import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import ByobNet
from torch import Tensor, nn

from pipeline.config.config_section import Section
from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import WeightsError
from stages.models.embedded import trunk
from stages.models.embedded.models import CLIP
from stages.models.segmenters.builders import small_unet as small_unet_model
from stages.models.segmenters.builders.base import ModelBuilder
from stages.models.segmenters.networks.small_unet import SmallUNet, load_trunk

BuildModel = Callable[..., ModelBuilder]
Draw = Callable[..., Tensor]


def random_trunk() -> ByobNet:
    trunk.register()
    network = timm.create_model(trunk.NAME, num_classes=0)
    assert isinstance(network, ByobNet)
    return network


def test_it_reads_strides_2_4_and_8(images: Draw) -> None:
    network = SmallUNet(5, random_trunk())
    shapes = [tuple(f.shape[1:]) for f in network.encode(images(1, 32, 48))]
    assert shapes == [(32, 16, 24), (64, 8, 12), (192, 4, 6)]


def clip_file(path: Path, source: nn.Module) -> dict[str, Tensor]:
    tensors = {f"visual.trunk.{name}": t.clone() for name, t in source.state_dict().items()}
    tensors = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    tensors["token_embedding.weight"] = torch.zeros(2, 2)
    save_file(tensors, path)
    return tensors


def test_load_trunk_takes_the_trunk_out_of_a_clip(tmp_path: Path, images: Draw) -> None:
    source, target = random_trunk().eval(), random_trunk().eval()
    assert not torch.allclose(source(images()), target(images()))
    load_trunk(target, clip_file(tmp_path / "clip.safetensors", source))
    torch.testing.assert_close(source(images()), target(images()), atol=2e-2, rtol=2e-2)
    assert all(p.dtype == torch.float32 for p in target.parameters())


def test_load_trunk_refuses_other_tensors() -> None:
    with pytest.raises(RuntimeError, match=r"stem\.conv\.weight"):
        load_trunk(random_trunk(), {"visual.trunk.conv1.weight": torch.zeros(1)})


def test_it_starts_from_the_shipped_clip(model: BuildModel, classes: Vocabulary) -> None:
    built = model("small_unet")
    facts = built.weights_facts()
    assert facts["weights"] is not None
    assert str(facts["weights"]).startswith("open_clip_model.safetensors sha256:")
    first, second = (
        built.build(classes).encoder.state_dict()["stem.conv.weight"] for _ in range(2)
    )
    assert torch.equal(first, second)
    random = model("small_unet", encoder_weights=None)
    assert random.weights_facts() == {"weights": None}
    assert not torch.equal(first, random.build(classes).encoder.state_dict()["stem.conv.weight"])


def test_missing_weights_are_an_error_that_says_how_to_make_them(
    model: BuildModel, classes: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = replace(CLIP, folder=tmp_path)
    monkeypatch.setattr(small_unet_model, "CLIP", elsewhere)
    for ask in (model("small_unet").weights_facts, lambda: model("small_unet").build(classes)):
        with pytest.raises(WeightsError) as caught:
            ask()
        assert str(caught.value) == (
            f"{elsewhere.weights}: this file of the sandbox's CLIP is missing; reinstall Maskmill; "
            "in a clone, restore the file with git, or run `python -m tools.sandbox.train_clip`"
        )


@pytest.mark.parametrize("content", ["garbage", "another model"])
def test_weights_of_something_else_are_an_error(
    content: str,
    model: BuildModel,
    classes: Vocabulary,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = replace(CLIP, folder=tmp_path)
    shutil.copy(CLIP.config, elsewhere.config)
    if content == "garbage":
        elsewhere.weights.write_bytes(b"not safetensors at all")
    else:
        clip_file(elsewhere.weights, nn.Linear(2, 2))
    monkeypatch.setattr(small_unet_model, "CLIP", elsewhere)
    with pytest.raises(WeightsError, match="not the weights of the sandbox's CLIP"):
        model("small_unet").build(classes)


def test_unknown_keys_and_weights_are_refused() -> None:
    section: type[Section] = small_unet_model.SmallUNetConfig
    for keys in ({"encoder": "resnet18"}, {"encoder_weights": "imagenet"}):
        with pytest.raises(ValueError, match="1 validation error"):
            section.model_validate(keys)
