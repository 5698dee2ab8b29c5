import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor
from torch.nn.functional import interpolate, linear, normalize

from pipeline.config.class_entry import ClassEntry
from pipeline.config.components import Choice
from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import ConfigError, WeightsError
from stages.models.clip.clip import load_clip, tower_config, untrained_tower
from stages.models.segmenters.builders.base import ModelBuilder
from stages.models.segmenters.builders.semivl import SemiVLConfig, SemiVLModel
from stages.models.segmenters.description import ModelDescription
from stages.models.segmenters.model_file import load_model_file, save_model_file
from stages.models.segmenters.networks.semivl import SemiVL
from stages.models.segmenters.normalization import OPENAI
from stages.models.segmenters.protocol import WHOLE_IMAGE

BuildModel = Callable[..., ModelBuilder]
Draw = Callable[..., Tensor]
CPU = torch.device("cpu")
STREETS = Vocabulary(
    name="streets",
    classes=(
        ClassEntry(name="ground", color="#000000", concepts=()),
        ClassEntry(name="car", color="#ff0000", concepts=(("car",), ("van", "lorry"))),
        ClassEntry(name="person", color="#0000ff"),
    ),
    background="ground",
    background_concepts=(("road",), ("grass",)),
)


def size_of(parameters: Any) -> int:
    return sum(parameter.numel() for parameter in parameters)


def published(conv_stem: torch.nn.Module | None = None) -> SemiVL:
    """On the meta device, for 21 classes and crops of 512 px."""
    with torch.device("meta"):
        visual = VisionTransformer(
            image_size=512, patch_size=16, width=768, layers=12, heads=12, mlp_ratio=4.0,
            output_dim=512,
        )  # fmt: skip
        return SemiVL(21, visual, torch.zeros(21, 512), conv_stem=conv_stem)


@pytest.fixture
def network(tiny_semivl: ModelBuilder, classes: Vocabulary) -> SemiVL:
    torch.manual_seed(0)
    built = tiny_semivl.build(classes)
    assert isinstance(built, SemiVL)
    return built


@pytest.fixture
def tiny_semivl(clip_folder: Path) -> ModelBuilder:
    return SemiVLModel(SemiVLConfig(model=f"local-dir:{clip_folder}", image_px=32))


def test_as_many_parameters_are_trained_as_published() -> None:
    """The counts of the published code (SemiVL, arXiv 2311.16241)."""
    network = published()
    trained = [p for p in network.encoder.parameters() if p.requires_grad]
    assert size_of(trained) == 29_135_616
    assert size_of(network.decoder_parameters()) == 2_217_185
    groups = network.parameter_groups(encoder_multiplier=0.01, decoder_multiplier=10)
    sizes = {group["multiplier"]: size_of(group["params"]) for group in groups}
    assert sizes == {0.01: 29_135_616, 10: 2_217_185}


def test_features_are_the_published_ones() -> None:
    fine, deep, embedding = published().encode(torch.empty(2, 3, 512, 512, device="meta"))
    assert fine.shape == deep.shape == (2, 768, 32, 32)
    assert embedding.shape == (2, 512, 32, 32)


def test_only_attention_and_positions_of_the_encoder_have_gradients(
    network: SemiVL, images: Draw
) -> None:
    """None on normalization, feed-forward, patches and projection."""
    network.train()(images(2, 32, 32)).square().mean().backward()
    visual = network.encoder["clip"]
    learned = {name for name, p in visual.named_parameters() if p.grad is not None}
    attention = {"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"}
    expected = {f"transformer.resblocks.{k}.attn.{part}" for k in range(3) for part in attention}
    assert learned == {*expected, "positional_embedding"}
    every = {name for name, _ in visual.named_parameters()}
    for part in ("conv1", "class_embedding", "ln_pre", "ln_1", "ln_2", "mlp", "ln_post", "proj"):
        assert any(part in name for name in every)


def value_path(block: Any, tokens: Tensor) -> Tensor:
    """X' = X + O(v), X'' = X' + FFN(LN2 X')."""
    own = block.attn
    values = linear(block.ln_1(tokens), own.in_proj_weight, own.in_proj_bias).chunk(3, -1)[2]
    tokens = tokens + own.out_proj(values)
    output: Tensor = tokens + block.mlp(block.ln_2(tokens))
    return output


def test_skips_and_embedding_are_value_paths(
    network: SemiVL, clip_folder: Path, images: Draw
) -> None:
    network.eval()
    pixels = images(2, 32, 32)
    visual: Any = network.encoder["clip"]
    fine, deep, embedding = network.encode(pixels)
    tokens = visual._embeds(pixels)
    for position, found in ((0, fine), (1, deep)):
        block = visual.transformer.resblocks[position]
        expected = value_path(block, tokens)[:, 1:].transpose(1, 2).reshape(2, 32, 4, 4)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        tokens = block(tokens)
    file = clip_folder / "open_clip_model.safetensors"
    clip = load_clip(clip_folder, file, window_px=32, device=CPU)
    torch.testing.assert_close(embedding, clip.dense_features(pixels), atol=1e-5, rtol=1e-4)


def test_the_size_of_the_features_says_nothing(network: SemiVL, images: Draw) -> None:
    """Perturbed embeddings are brought to length 1 again; texts came so."""
    network.eval()
    fine, deep, embedding = network.encode(images(1, 32, 32))
    one, other = (network.fuse([fine, deep, embedding * k]) for k in (1, 3))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_classes_are_distinguished_by_their_texts_alone(network: SemiVL, images: Draw) -> None:
    """Another order of the texts is the same order of the logits."""
    network.eval()
    before = network(images())
    order = torch.tensor([3, 0, 4, 1, 2])
    network.text.copy_(network.text[order].clone())
    torch.testing.assert_close(network(images()), before[:, order], atol=1e-4, rtol=1e-4)


def test_positions_are_resized_bicubically(network: SemiVL, images: Draw) -> None:
    network.eval()
    visual: Any = network.encoder["clip"]
    pixels = images(1, 48, 24)
    learned = visual.positional_embedding
    own = learned[1:].T.reshape(1, 32, 4, 4)
    own = interpolate(own, (6, 3), mode="bicubic", align_corners=False)
    patches = visual.conv1(pixels).flatten(2).transpose(1, 2) + own.flatten(2).transpose(1, 2)
    first = (visual.class_embedding + learned[0]).expand(1, 1, -1)
    expected = visual.ln_pre(torch.cat([first, patches], dim=1))
    torch.testing.assert_close(network._tokens(pixels), expected)


def test_images_may_be_normalized_as_clips_were(
    clip_folder: Path, classes: Vocabulary, images: Draw, tiny_semivl: ModelBuilder
) -> None:
    keys = {"model": f"local-dir:{clip_folder}", "image_px": 32, "clip_normalization": True}
    torch.manual_seed(0)
    network = SemiVLModel(SemiVLConfig.model_validate(keys)).build(classes).eval()
    torch.manual_seed(0)
    plain = tiny_semivl.build(classes).eval()
    grey = torch.full((1, 3, 32, 32), 0.5)
    imagenet = (grey - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
        [0.229, 0.224, 0.225]
    )[:, None, None]
    own = json.loads((clip_folder / "open_clip_config.json").read_text())["preprocess_cfg"]
    own = {"std": OPENAI.std, **own}
    mean, std = (torch.tensor(own[key])[:, None, None] for key in ("mean", "std"))
    seen = plain((grey - mean) / std)
    torch.testing.assert_close(network(imagenet), seen, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("single", [("ground",), ("car",), ("person",)]),
        ("concept-avg", [("road", "grass"), ("car", "van", "lorry"), ("person",)]),
    ],
)
def test_texts_are_names_or_means_of_concepts(
    text: str, names: list[tuple[str, ...]], clip_folder: Path
) -> None:
    keys = {"model": f"local-dir:{clip_folder}", "image_px": 32, "text": text}
    model = SemiVLModel(SemiVLConfig.model_validate(keys))
    network = model.build(STREETS)
    assert isinstance(network, SemiVL)
    file = clip_folder / "open_clip_model.safetensors"
    clip = load_clip(clip_folder, file, window_px=32, device=CPU)
    prompts = [[f"a photo of a {name}" for name in own] for own in names]
    means = [clip.encode_text(own, normalize=False).mean(0) for own in prompts]
    torch.testing.assert_close(network.text, normalize(torch.stack(means), dim=-1))
    facts = model.vocabulary_facts(STREETS)
    assert ("vocabulary.concepts.car" in facts) == (text == "concept-avg")
    assert facts["vocabulary.templates"] == ["a photo of a {}"]


def test_the_conv_stem_gives_the_finest_skip(
    clip_folder: Path, classes: Vocabulary, images: Draw
) -> None:
    keys = {"model": f"local-dir:{clip_folder}", "image_px": 32, "conv_stem": True}
    model = SemiVLModel(SemiVLConfig.model_validate({**keys, "conv_stem_weights": None}))
    assert model.weights_facts()["conv_stem_weights"] is None
    network = model.build(classes)
    fine, deep, embedding = network.encode(images(2, 32, 64))
    assert (fine.shape[1:], deep.shape[1:]) == ((256, 8, 16), (32, 4, 8))
    assert embedding.shape[1:] == (16, 4, 8)
    network.train()(images(2, 32, 64)).square().mean().backward()
    stem = list(network.encoder.get_submodule("conv").parameters())
    assert all(p.grad is not None for p in stem)
    network.load_state_dict(model.build(classes, architecture=model.architecture()).state_dict())
    # ResNet-101's stem of three convolutions, BatchNorm, and first stage of three blocks.
    deep_stem = 3 * 9 * 32 + 32 * 9 * 32 + 32 * 9 * 64 + 2 * (32 + 32 + 64)
    first = 64 * 64 + 9 * 64 * 64 + 64 * 256 + 64 * 256 + 2 * (64 + 64 + 256 + 256)
    others = 2 * (256 * 64 + 9 * 64 * 64 + 64 * 256 + 2 * (64 + 64 + 256))
    assert size_of(stem) == deep_stem + first + others


def test_cityscapes_decoder_differs_in_its_finest_skip_alone() -> None:
    with torch.device("meta"):
        network = published(conv_stem=torch.nn.Identity())
    skip = 32 * (9 * 256 + 1) - 16 * (9 * 768 + 1)
    narrower_up = 64 * 4 * (32 - 48) + (32 - 48)
    assert size_of(network.decoder_parameters()) == 2_217_185 + skip + narrower_up


def test_what_was_trained_predicts_without_the_clips_weights(
    clip_folder: Path, classes: Vocabulary, images: Draw, tmp_path: Path
) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(clip_folder, folder)
    model = SemiVLModel(SemiVLConfig(model=f"local-dir:{folder}", image_px=32))
    network = model.build(classes).eval()
    path = tmp_path / "model.safetensors"
    choice: Choice[ModelBuilder] = Choice("semivl", SemiVLModel, model.config)
    description = ModelDescription.of_training(choice, classes, WHOLE_IMAGE, {})
    save_model_file(path, network.state_dict(), description)
    (folder / "open_clip_model.safetensors").unlink()
    predictor = load_model_file(path, CPU, vocabulary=classes)
    with torch.inference_mode():
        torch.testing.assert_close(predictor.network(images()), network(images()))
    with pytest.raises(WeightsError, match="put open_clip_config"):
        model.build(classes)


def test_the_clip_sees_images_normalized_by_its_own_numbers(
    clip_folder: Path, classes: Vocabulary, images: Draw, tmp_path: Path
) -> None:
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    file = folder / "open_clip_config.json"
    config = json.loads(file.read_text())
    networks = []
    for mean in ([0.5, 0.5, 0.5], [0.4, 0.5, 0.6]):
        config["preprocess_cfg"] = {"mean": mean, "std": [0.5, 0.5, 0.5]}
        file.write_text(json.dumps(config))
        keys = {"model": f"local-dir:{folder}", "image_px": 32, "clip_normalization": True}
        model = SemiVLModel(SemiVLConfig.model_validate(keys))
        networks.append(model.build(classes).eval())
        rebuilt = model.build(classes, architecture=model.architecture()).eval()
        rebuilt.load_state_dict(networks[-1].state_dict())
        drawn = images()
        torch.testing.assert_close(rebuilt(drawn), networks[-1](drawn))
    networks[1].load_state_dict(networks[0].state_dict())
    assert not torch.equal(networks[0](drawn), networks[1](drawn))


def test_openais_vit_is_the_default() -> None:
    assert SemiVLModel(SemiVLConfig()).weights_facts() == {"weights": "openai"}
    with pytest.raises(WeightsError) as caught:
        SemiVLModel(SemiVLConfig(weights="weights/clip.safetensors")).weights_facts()
    assert "hf download timm/vit_base_patch16_clip_224.openai" in str(caught.value)
    with pytest.raises(ValueError, match="name the `weights` of ViT-L-14"):
        SemiVLConfig(model="ViT-L-14")


@pytest.mark.parametrize("tag", ["openai", "laion2b_s34b_b88k"])
def test_a_tower_without_weights_has_the_activation_of_its_tag(tag: str) -> None:
    tower = untrained_tower(tower_config("ViT-B-16", tag, 512)[0])
    activation = tower.transformer.resblocks[0].mlp.gelu
    assert isinstance(activation, QuickGELU) == (tag == "openai")
    assert tower.grid_size == (32, 32)


def test_other_towers_are_refused(classes: Vocabulary) -> None:
    with pytest.raises(ConfigError, match="sandbox is no ViT of open_clip's own"):
        SemiVLModel(SemiVLConfig(model="sandbox", image_px=128)).build(classes)
    with pytest.raises(ConfigError, match="open_clip has no such architecture"):
        SemiVLModel(SemiVLConfig(model="ViT-B-17", weights="openai")).build(classes)
