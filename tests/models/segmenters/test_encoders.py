"""Which encoders there are, and where their weights come from."""

from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn

from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import ConfigError, WeightsError
from stages.models.segmenters.builders.base import ModelBuilder
from stages.models.segmenters.encoders import convolutional_encoder, timm_encoder

BuildModel = Callable[..., ModelBuilder]
WHERE = "model.encoder_weights"
NAMES = {
    "resnet18": ("layer1.0.conv1.weight", "layer1.0.conv1.weight"),
    "tu-resnet18": ("model.layer1.0.conv1.weight", "layer1.0.conv1.weight"),
    "tu-test_convnext": ("model.stem_0.weight", "stem.0.weight"),
}
"""A tensor of an encoder, and of the file that it comes from."""


def saved(path: Path, network: nn.Module, **more: Tensor) -> Path:
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()} | more
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors}, path)
    return path


def weight(encoder: nn.Module, name: str) -> Tensor:
    found: Tensor = encoder.state_dict()[name]
    return found


@pytest.mark.parametrize(
    ("encoder", "expected"),
    [
        ("resnet118", "has no encoder 'resnet118'; use one it has, such as resnet18"),
        ("densenet121", "the encoder 'densenet121' cannot be dilated"),
        ("tu-resnet50s.gluon", "timm has no 'resnet50s.gluon'; use one it has, such as resnet50s"),
        ("tu-swin_tiny_patch4_window7_224", "cannot be dilated"),
    ],
)
def test_encoders_that_do_not_fit_are_errors(
    model: BuildModel, classes: Vocabulary, encoder: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        model("deeplabv3plus", encoder=encoder, encoder_weights=None).build(classes)
    assert caught.value.where == "model.encoder"
    assert expected in f"{caught.value.what}; {caught.value.fix}"


@pytest.mark.parametrize("encoder", ["swin_tiny_patch4_window7_224", "resnet18", "vit_bse"])
def test_dpt_wants_a_plain_vit(model: BuildModel, classes: Vocabulary, encoder: str) -> None:
    with pytest.raises(ConfigError, match=r"is no plain ViT|timm has no 'vit_bse'") as caught:
        model("dpt", encoder=encoder, encoder_weights=None).build(classes)
    assert caught.value.where == "model.encoder"


def test_encoders_without_published_weights_are_an_error() -> None:
    with pytest.raises(ConfigError, match="the encoder 'dpn92' has no weights 'imagenet'"):
        convolutional_encoder("dpn92", "imagenet", WHERE)


@pytest.mark.parametrize(
    ("name", "keys", "repository"),
    [
        ("deeplabv3plus", {"encoder": "resnet18"}, "smp-hub/resnet18.imagenet"),
        ("deeplabv3plus", {"encoder": "tu-resnet18.a1_in1k"}, "timm/resnet18.a1_in1k"),
        ("unet", {"encoder": "tu-test_resnet.r160_in1k"}, "timm/test_resnet.r160_in1k"),
        ("dpt", {"encoder": "test_vit.r160_in1k"}, "timm/test_vit.r160_in1k"),
    ],
)
def test_weights_that_cannot_be_downloaded_are_an_error_that_names_the_command(
    name: str,
    keys: dict[str, str],
    repository: str,
    model: BuildModel,
    classes: Vocabulary,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        model(name, **keys).build(classes)
    text, folder = str(caught.value), repository.rpartition("/")[2]
    assert text.startswith(f"{WHERE}: the weights of {repository} cannot be downloaded (")
    assert f"run `hf download {repository} model.safetensors" in text
    assert text.endswith(
        f"--local-dir weights/{folder}`, then set the key to weights/{folder}/model.safetensors"
    )


def cached(cache: Path, repository: str, network: nn.Module) -> None:
    """A repository in the hub's cache, as a download leaves it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0123")
    saved(snapshot / "model.safetensors", network)


def test_what_is_in_the_hubs_cache_is_loaded_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    source = timm.create_model("test_vit")
    cached(tmp_path, "timm/test_vit.r160_in1k", source)
    encoder = timm_encoder("test_vit.r160_in1k", "pretrained", WHERE)
    name = "blocks.3.attn.qkv.weight"
    assert torch.equal(weight(encoder, name), weight(source, name))


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
@pytest.mark.parametrize("encoder", NAMES)
def test_weights_come_from_a_file_with_or_without_a_classifier(
    encoder: str, ending: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    source = (
        get_encoder(encoder, weights=None)
        if encoder == "resnet18"
        else timm.create_model(encoder[3:])
    )
    own, theirs = NAMES[encoder]
    path = saved(tmp_path / f"encoder.{ending}", source)
    loaded = convolutional_encoder(encoder, str(path), WHERE)
    assert torch.equal(weight(loaded, own), weight(source, theirs))
    assert not torch.equal(
        weight(convolutional_encoder(encoder, None, WHERE), own), weight(source, theirs)
    )


def test_dinov2s_own_checkpoint_is_read(tmp_path: Path) -> None:
    """It has a token for masked patches, which nobody needs here, and no classifier."""
    source = timm.create_model("test_vit", num_classes=0)
    path = saved(tmp_path / "dinov2.pth", source, mask_token=torch.zeros(1, 64))
    encoder = timm_encoder("test_vit.r160_in1k", str(path), WHERE, dynamic_img_size=True)
    name = "patch_embed.proj.weight"
    assert torch.equal(weight(encoder, name), weight(source, name))


@pytest.mark.parametrize("kind", ["missing", "garbage", "pickle", "another model", "incomplete"])
@pytest.mark.parametrize(
    ("name", "encoder"),
    [("deeplabv3plus", "resnet18"), ("unet", "tu-test_resnet"), ("dpt", "test_vit")],
)
def test_files_that_do_not_fit_are_one_line(
    kind: str,
    name: str,
    encoder: str,
    model: BuildModel,
    classes: Vocabulary,
    tmp_path: Path,
) -> None:
    path = tmp_path / "weights.pth"
    if kind == "garbage":
        path.write_bytes(b"not a checkpoint")
    elif kind == "pickle":
        torch.save({"state_dict": tmp_path}, path)
    elif kind == "another model":
        saved(path, nn.Linear(2, 2))
    elif kind == "incomplete":
        whole = timm.create_model(encoder.removeprefix("tu-")).state_dict()
        del whole[next(name for name in whole if name.endswith("1.weight"))]
        torch.save(whole, path)
    built = model(name, encoder=encoder, encoder_weights=str(path))
    with pytest.raises(WeightsError) as caught:
        built.build(classes)
    expected = {
        "missing": "there is no such file",
        "garbage": "cannot be read as plain tensors",
        "pickle": "cannot be read as plain tensors",
    }.get(kind, f"these are not the weights of {encoder}")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    if kind == "missing":
        with pytest.raises(WeightsError, match="there is no such file"):
            built.weights_facts()
    else:
        assert str(built.weights_facts()["weights"]).startswith("weights.pth sha256:")
