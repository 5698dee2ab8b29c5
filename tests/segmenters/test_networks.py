import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import ByobNet
from torch import Tensor, nn

from pipeline import components
from pipeline.errors import ConfigError, WeightsError
from pipeline.section import Section
from stages.sandbox import trunk
from stages.segmenters.models import small_unet as small_unet_model
from stages.segmenters.models.base import Model
from stages.segmenters.networks.base import SegmentationNetwork
from stages.segmenters.networks.deeplabv3plus import DeepLabV3Plus
from stages.segmenters.networks.small_unet import SmallUNet, load_trunk

MODELS = "stages.segmenters.models"
NUM_CLASSES = 5


def random_trunk() -> ByobNet:
    trunk.register()
    network = timm.create_model(trunk.NAME, num_classes=0)
    assert isinstance(network, ByobNet)
    return network


def small_unet() -> SegmentationNetwork:
    return SmallUNet(NUM_CLASSES, random_trunk())


def deeplabv3plus() -> SegmentationNetwork:
    return DeepLabV3Plus(NUM_CLASSES, "resnet18", None)


def model(name: str, **keys: object) -> Model:
    found = components.find(MODELS, name, Model)  # type: ignore[type-abstract]
    return found(found.Config.model_validate(keys))


@pytest.fixture(params=[small_unet, deeplabv3plus])
def network(request: pytest.FixtureRequest) -> SegmentationNetwork:
    torch.manual_seed(0)
    build: Callable[[], SegmentationNetwork] = request.param
    return build()


def images(count: int = 2, height: int = 33, width: int = 50) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(33, 50), (64, 64), (81, 17)])
def test_logits_have_the_size_of_the_images(
    network: SegmentationNetwork, size: tuple[int, int]
) -> None:
    assert network(images(2, *size)).shape == (2, NUM_CLASSES, *size)


def test_the_encoder_sees_the_images_once_for_both_logits(network: SegmentationNetwork) -> None:
    clean, perturbed = network.train().forward_perturbed(images())
    assert clean.shape == perturbed.shape == (2, NUM_CLASSES, 33, 50)
    counters = [value for name, value in network.encoder.named_buffers() if "num_batches" in name]
    assert counters
    assert all(counter == 1 for counter in counters)


def test_features_are_perturbed_in_eval_mode_too_and_clean_logits_never(
    network: SegmentationNetwork,
) -> None:
    network.eval()
    clean, perturbed = network.forward_perturbed(images())
    torch.testing.assert_close(clean, network(images()))
    assert (clean - perturbed).abs().max() > 1e-3
    assert not torch.equal(network.forward_perturbed(images())[1], perturbed)


def test_every_parameter_learns_and_belongs_to_encoder_or_decoder(
    network: SegmentationNetwork,
) -> None:
    encoder, decoder = list(network.encoder_parameters()), list(network.decoder_parameters())
    assert {id(p) for p in encoder} | {id(p) for p in decoder} == {
        id(p) for p in network.parameters()
    }
    assert len(encoder) + len(decoder) == len(list(network.parameters()))
    network.train()(images()).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_a_few_steps_teach_where_the_bright_half_is(network: SegmentationNetwork) -> None:
    pixels = 0.1 * images(4, 32, 32)
    pixels[:2, :, :, :16] += 1
    pixels[2:, :, 16:] += 1
    mask = (pixels.mean(dim=1) > 0.5).long()
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    for _ in range(6):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network.train()(pixels), mask)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert (network(pixels).argmax(dim=1) == mask).float().mean() > 0.8


class Echo(SegmentationNetwork):
    """Shows the decoder's input as its output."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Identity()

    def encode(self, images: Tensor) -> list[Tensor]:
        return [images]

    def decode(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        return features[0]


@torch.no_grad()
def test_a_compiled_network_is_the_same_by_the_same_names_and_its_copies_are_plain(
    network: SegmentationNetwork,
) -> None:
    """Without the compiler proper, which takes minutes: what torch captures is run as it is."""
    names, expected = list(network.state_dict()), network.eval()(images())
    network.compile(backend="eager")
    assert list(network.state_dict()) == names
    torch.testing.assert_close(network(images()), expected)
    copy = deepcopy(network)
    copy.get_parameter("classifier.bias").add_(1)
    torch.testing.assert_close(copy(images()), expected + 1)
    torch.testing.assert_close(network(images()), expected)


def test_half_of_the_channels_are_dropped_whole_and_the_others_doubled() -> None:
    torch.manual_seed(0)
    clean, perturbed = Echo().eval().forward_perturbed(torch.ones(64, 32, 3, 3))
    assert (clean == 1).all()
    channels = perturbed[..., 0, 0]
    assert (perturbed == channels[..., None, None]).all()
    assert set(channels.flatten().tolist()) == {0.0, 2.0}
    assert channels.mean().item() == pytest.approx(1, abs=0.1)


def test_deeplabv3plus_reads_strides_4_and_16_and_has_no_dropout_of_its_own() -> None:
    network = deeplabv3plus().eval()
    fine, deep = network.encode(images(1, 321, 321))
    assert (fine.shape[-1], deep.shape[-1]) == (81, 21)
    dropouts = [m for m in network.modules() if isinstance(m, nn.Dropout)]
    assert all(dropout.p == 0 for dropout in dropouts)


def test_small_unet_reads_strides_2_4_and_8() -> None:
    shapes = [tuple(f.shape[1:]) for f in small_unet().encode(images(1, 32, 48))]
    assert shapes == [(32, 16, 24), (64, 8, 12), (192, 4, 6)]


def clip_file(path: Path, source: nn.Module) -> dict[str, Tensor]:
    tensors = {f"visual.trunk.{name}": t.clone() for name, t in source.state_dict().items()}
    tensors = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    tensors["token_embedding.weight"] = torch.zeros(2, 2)
    save_file(tensors, path)
    return tensors


def test_load_trunk_takes_the_trunk_out_of_a_clip(tmp_path: Path) -> None:
    source, target = random_trunk().eval(), random_trunk().eval()
    assert not torch.allclose(source(images()), target(images()))
    load_trunk(target, clip_file(tmp_path / "clip.safetensors", source))
    torch.testing.assert_close(source(images()), target(images()), atol=2e-2, rtol=2e-2)
    assert all(p.dtype == torch.float32 for p in target.parameters())


def test_load_trunk_refuses_other_tensors() -> None:
    with pytest.raises(RuntimeError, match=r"stem\.conv\.weight"):
        load_trunk(random_trunk(), {"visual.trunk.conv1.weight": torch.zeros(1)})


def test_small_unet_starts_from_the_shipped_clip() -> None:
    built = model("small_unet")
    facts = built.weights_facts()
    assert facts["weights"] is not None
    assert str(facts["weights"]).startswith("open_clip_model.safetensors sha256:")
    first, second = (
        built.build(NUM_CLASSES).encoder.state_dict()["stem.conv.weight"] for _ in range(2)
    )
    assert torch.equal(first, second)
    random = model("small_unet", encoder_weights=None)
    assert random.weights_facts() == {"weights": None}
    assert not torch.equal(first, random.build(2).encoder.state_dict()["stem.conv.weight"])


def test_missing_weights_are_an_error_that_says_how_to_make_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.safetensors"
    monkeypatch.setattr(small_unet_model, "SANDBOX_WEIGHTS", path)
    for ask in (model("small_unet").weights_facts, lambda: model("small_unet").build(2)):
        with pytest.raises(WeightsError) as caught:
            ask()
        assert str(caught.value) == (
            f"{path}: the weights of the sandbox's CLIP are missing; "
            "restore the file, or make it with `python -m stages.sandbox.train_clip`"
        )


@pytest.mark.parametrize("content", ["garbage", "another model"])
def test_weights_of_something_else_are_an_error(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.safetensors"
    if content == "garbage":
        path.write_bytes(b"not safetensors at all")
    else:
        clip_file(path, nn.Linear(2, 2))
    monkeypatch.setattr(small_unet_model, "SANDBOX_WEIGHTS", path)
    with pytest.raises(WeightsError, match="not the weights of the sandbox's CLIP"):
        model("small_unet").build(2)


@pytest.mark.parametrize(
    ("encoder", "expected"),
    [
        ("resnet118", "has no encoder 'resnet118'; use one it has, such as resnet18"),
        ("densenet121", "the encoder 'densenet121' cannot be dilated"),
    ],
)
def test_encoders_that_do_not_fit_are_errors(encoder: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        model("deeplabv3plus", encoder=encoder, encoder_weights=None).build(2)
    assert caught.value.where == "model.encoder"
    assert expected in f"{caught.value.what}; {caught.value.fix}"


def test_encoders_without_published_weights_are_an_error() -> None:
    with pytest.raises(ConfigError, match="the encoder 'dpn92' has no weights 'imagenet'"):
        model("deeplabv3plus", encoder="dpn92").build(2)


def test_weights_that_cannot_be_downloaded_are_an_error_that_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"hf download smp-hub/resnet18\.imagenet --revision"):
        model("deeplabv3plus", encoder="resnet18").build(2)


@pytest.mark.parametrize("name", components.names(MODELS))
def test_every_model_builds_the_network_it_names(name: str) -> None:
    keys = {"deeplabv3plus": {"encoder": "resnet18"}}.get(name, {})
    built = model(name, **keys, encoder_weights=None).build(NUM_CLASSES)
    assert built(images(2, 32, 32)).shape == (2, NUM_CLASSES, 32, 32)


def test_checking_configs_and_weights_needs_no_torch() -> None:
    program = f"""
import sys
from pipeline import components
from stages.segmenters.models.base import Model
for name in components.names({MODELS!r}):
    model = components.find({MODELS!r}, name, Model)
    model(model.Config()).weights_facts()
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_unknown_keys_and_weights_are_refused() -> None:
    section: type[Section] = small_unet_model.SmallUNetConfig
    for keys in ({"encoder": "resnet18"}, {"encoder_weights": "imagenet"}):
        with pytest.raises(ValueError, match="1 validation error"):
            section.model_validate(keys)
