from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import linear, normalize

from pipeline.errors import ConfigError, WeightsError
from stages.models.clip.clip import Clip, load_clip
from stages.models.clip.clip_weights import Dense

CPU = torch.device("cpu")
ClipFolder = Callable[[str], Path]


def load(folder: Path, window_px: int, **options: Any) -> Clip:
    weights = folder / "open_clip_model.safetensors"
    return load_clip(folder, weights, window_px=window_px, device=CPU, **options)


def test_a_vision_transformers_last_attention_is_the_identity(clip_folder: ClipFolder) -> None:
    """Without attention, by hand: Z = X + O(A v) with A = 1, Z' = Z + FFN(LN2 Z), then P."""
    clip = load(clip_folder("vit"), 32)
    windows = torch.randn(2, 3, 32, 32)
    visual = clip.network.visual
    block = visual.transformer.resblocks[-1]
    tokens = visual.forward_intermediates(windows, indices=[0], output_fmt="NLC")
    x = tokens["image_intermediates"][0]
    attention = block.attn
    qkv = linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    v = qkv.chunk(3, dim=-1)[2].reshape(2, 16, 2, 16).transpose(1, 2)
    attended = (torch.eye(16) @ v).transpose(1, 2).reshape(2, 16, 32)
    z = x + attention.out_proj(attended)
    z = z + block.mlp(block.ln_2(z))
    expected = normalize(visual.ln_post(z) @ visual.proj, dim=-1).mT.reshape(2, 32, 4, 4)
    torch.testing.assert_close(clip.dense_features(windows), expected)


def test_in_the_last_block_a_token_sees_itself_alone(clip_folder: ClipFolder) -> None:
    """A block of another make too: whatever stands beside a token, its output stays the same."""
    clip = load(clip_folder("vit_custom"), 16)
    visual = clip.network.visual
    for parameter in visual.transformer.resblocks[0].parameters():
        parameter.zero_()  # so that no token hears of another before the last block
    windows = torch.randn(1, 3, 16, 16)
    changed = windows.clone()
    changed[..., 8:, 8:] = 1.0
    before, after = clip.dense_features(windows), clip.dense_features(changed)
    assert torch.equal(before[..., 0, :], after[..., 0, :])
    assert not torch.allclose(before[..., 1, 1], after[..., 1, 1])


def test_positions_are_resized_to_the_window(clip_folder: ClipFolder) -> None:
    small, large = (load(clip_folder("vit"), size).network.visual for size in (16, 40))
    assert small.positional_embedding.shape == (5, 32)
    assert large.positional_embedding.shape == (26, 32)
    torch.testing.assert_close(large.positional_embedding[0], small.positional_embedding[0])
    assert load(clip_folder("vit"), 40).dense_features(torch.randn(1, 3, 40, 40)).shape[2:] == (
        5,
        5,
    )


@pytest.mark.parametrize("tower", ["convnext", "byobnet"])
def test_a_location_of_a_convolutional_tower_is_read_as_an_image_of_its_own(
    clip_folder: ClipFolder, tower: str
) -> None:
    clip = load(clip_folder(tower), 64)
    windows = torch.randn(3, 3, 32, 32)
    features = clip.dense_features(windows)
    assert features.shape == (3, 32, 1, 1)
    # Where the map has one location only, the pooled path has nothing to pool.
    pooled = clip.network.encode_image(windows, normalize=True)
    torch.testing.assert_close(features[..., 0, 0], pooled)
    larger = clip.dense_features(torch.randn(2, 3, 64, 96))
    assert larger.shape == (2, 32, 2, 3)
    torch.testing.assert_close(larger.norm(dim=1), torch.ones(2, 2, 3))


def test_an_attention_pool_is_read_through_its_values(clip_folder: ClipFolder) -> None:
    clip = load(clip_folder("resnet"), 64)
    windows = torch.randn(2, 3, 32, 32)
    features = clip.dense_features(windows)
    # One location attends to its own mean, so without positions the pool is the value path.
    clip.network.visual.attnpool.positional_embedding.zero_()
    pooled = clip.network.encode_image(windows, normalize=True)
    torch.testing.assert_close(features[..., 0, 0], pooled)
    assert clip.dense_features(torch.randn(1, 3, 64, 96)).shape == (1, 32, 2, 3)


def test_pixels_are_normalised_as_the_folder_says(clip_folder: ClipFolder) -> None:
    clip = load(clip_folder("vit"), 16)
    assert clip.mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    white = clip.normalize(torch.full((3, 1, 1), 255, dtype=torch.uint8))
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    torch.testing.assert_close(white.flatten(), (1 - torch.tensor([0.5, 0.4, 0.3])) / std)


def test_a_prompt_that_would_be_cut_is_refused(clip_folder: ClipFolder) -> None:
    clip = load(clip_folder("vit"), 16)
    limit = clip.network.context_length
    longest = " ".join("a" * (limit - 2))  # beside the tokens that start and end it
    assert clip.encode_text([longest]).isfinite().all()
    with pytest.raises(
        ConfigError, match=f"the prompt 'a .* is longer than the model's {limit} tokens"
    ):
        clip.encode_text(["a", f"{longest} a"])


def test_half_precision_weights_run_in_float32(clip_folder: ClipFolder, tmp_path: Path) -> None:
    whole = load(clip_folder("convnext"), 32)
    for file in clip_folder("convnext").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    halves = {name: tensor.half() for name, tensor in whole.network.state_dict().items()}
    save_file(halves, tmp_path / "open_clip_model.safetensors")
    windows = torch.randn(1, 3, 32, 32)
    features = load(tmp_path, 32).dense_features(windows)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, whole.dense_features(windows), atol=0.01, rtol=0)


def test_a_checkpoint_that_does_not_fit_is_refused(clip_folder: ClipFolder, tmp_path: Path) -> None:
    for file in clip_folder("vit").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    other = clip_folder("convnext") / "open_clip_model.safetensors"
    (tmp_path / "open_clip_model.safetensors").write_bytes(other.read_bytes())
    with pytest.raises(WeightsError) as raised:
        load(tmp_path, 16)
    start = f"model: local-dir:{tmp_path}: the weights do not fit the folder's config: "
    assert str(raised.value).startswith(start)
    assert str(raised.value).endswith("; set `model` to the architecture they were trained with")
    assert "\n" not in str(raised.value)


class Runs:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return eval, ("open('unpickled', 'w')",)


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_a_checkpoint_never_runs_code(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Runs()}, name)
    with pytest.raises(WeightsError) as raised:
        load_clip("ViT-B-16", Path(name), window_px=224, device=CPU)
    assert str(raised.value).startswith(f"weights: {name}: cannot be read as plain tensors: ")
    assert str(raised.value).endswith(
        "; use a checkpoint saved by open_clip, preferably open_clip_model.safetensors"
    )
    assert not Path("unpickled").exists()


@pytest.mark.parametrize(
    ("model", "weights", "message"),
    [
        (
            "ViT-B16",
            "openai",
            "model: ViT-B16: open_clip has no such architecture; "
            "use an architecture such as ViT-B-16, or local-dir:FOLDER",
        ),
        (
            "RN50",
            "laion",
            "weights: laion: open_clip has no such weights of RN50; "
            "use one of openai, yfcc15m, cc12m, or a checkpoint file",
        ),
    ],
)
def test_unknown_names_are_answered_with_known_ones(model: str, weights: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_clip(model, weights, window_px=224, device=CPU)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("tower", "window_px", "message"),
    [
        (
            "vit",
            20,
            "it must be a multiple of 8, the stride of local-dir:{}; use 16 or 24",
        ),
        (
            "resnet",
            16,
            "it must be a multiple of 32, the stride of local-dir:{}; use 32",
        ),
        (
            "convnext",
            40,
            "it must be a multiple of 32, the stride of local-dir:{}; use 32 or 64",
        ),
    ],
)
def test_a_window_that_does_not_suit_is_refused(
    clip_folder: ClipFolder, tower: str, window_px: int, message: str
) -> None:
    folder = clip_folder(tower)
    with pytest.raises(ConfigError) as raised:
        load(folder, window_px)
    assert str(raised.value) == f"window_px: {window_px}: {message.format(folder)}"


def test_a_tower_without_features_of_locations_is_refused(clip_folder: ClipFolder) -> None:
    match = "no per-location features to compare with text; use a ViT such as ViT-B-16, or a ResNet"
    with pytest.raises(ConfigError, match=match):
        load(clip_folder("vit_pooled"), 160)


@pytest.mark.parametrize(
    ("tower", "dense", "message"),
    [
        (
            "resnet",
            Dense("gem"),
            "variant: gem: local-dir:{} is a ResNet, which does not support this variant; "
            "use maskclip",
        ),
        (
            "resnet",
            Dense("vanilla"),
            "variant: vanilla: local-dir:{} is a ResNet, which does not support this variant; "
            "use maskclip",
        ),
        (
            "convnext",
            Dense("sclip"),
            "variant: sclip: local-dir:{} is a network without attention, which does not support "
            "this variant; use vanilla or maskclip",
        ),
        (
            "timm_vit",
            Dense("gem"),
            "variant: gem: local-dir:{} is a ViT of timm, which does not support this variant; "
            "use vanilla or maskclip",
        ),
        (
            "convnext",
            Dense(ffn=False),
            "residual, ffn: local-dir:{} is a network without attention, which does not support "
            "these keys; leave out both keys, or use a ViT of open_clip such as ViT-B-16",
        ),
    ],
)
def test_a_variant_that_a_tower_has_not_is_refused(
    clip_folder: ClipFolder, tower: str, dense: Dense, message: str
) -> None:
    folder = clip_folder(tower)
    with pytest.raises(ConfigError) as raised:
        load(folder, 160, dense=dense)
    assert str(raised.value) == message.format(folder)


def test_of_a_tower_without_attention_the_variants_are_one(clip_folder: ClipFolder) -> None:
    clip = load(clip_folder("convnext"), 64)
    windows = torch.randn(1, 3, 64, 64)
    assert torch.equal(clip.dense_features(windows, Dense("vanilla")), clip.dense_features(windows))


@pytest.mark.parametrize(
    ("tower", "window_px"),
    [("timm_vit", 64), ("timm_vit_average", 64), ("timm_eva", 56), ("timm_siglip", 64)],
)
def test_a_patch_of_a_timm_transformer_is_read_as_an_image_of_its_own(
    clip_folder: ClipFolder, tower: str, window_px: int
) -> None:
    clip = load(clip_folder(tower), window_px)
    trunk, head = clip.network.visual.trunk, clip.network.visual.head
    windows = torch.randn(2, 3, window_px, window_px)
    vanilla, rows = clip.dense_features(windows, Dense("vanilla")), 4
    assert vanilla.shape == (2, 32 if head else trunk.num_features, rows, rows)
    # An image of like patches, so far as the heads can see, has the features of any of them.
    patch = trunk.forward_features(windows)[1, trunk.num_prefix_tokens + rows + 1]
    image = patch.expand(1, trunk.num_prefix_tokens + 9, -1)
    pooled = normalize(head(trunk.forward_head(image)), dim=-1)
    torch.testing.assert_close(vanilla[1, :, 1, 1], pooled[0])
    maskclip = clip.dense_features(windows)
    assert not torch.equal(maskclip, vanilla)  # close: fresh layer scales of timm are tiny
    again = clip.dense_features(windows, Dense("vanilla"))
    assert torch.equal(again, vanilla)  # nothing of maskclip stays in the trunk


def test_in_a_timm_transformers_last_block_a_token_sees_itself_alone(
    clip_folder: ClipFolder,
) -> None:
    clip = load(clip_folder("timm_vit"), 32)
    for parameter in clip.network.visual.trunk.blocks[:-1].parameters():
        parameter.zero_()  # so that no token hears of another before the last block
    windows = torch.randn(1, 3, 32, 32)
    changed = windows.clone()
    changed[..., 16:, 16:] = 1.0
    before, after = clip.dense_features(windows), clip.dense_features(changed)
    torch.testing.assert_close(before[..., 0, :], after[..., 0, :])
    assert not torch.allclose(before[..., 1, 1], after[..., 1, 1])
    vanilla = [clip.dense_features(x, Dense("vanilla")) for x in (windows, changed)]
    assert not torch.allclose(vanilla[0][..., 0, :], vanilla[1][..., 0, :], atol=1e-6)


@pytest.mark.parametrize("tower", ["vit", "resnet", "convnext", "timm_vit"])
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_halves_come_close(clip_folder: ClipFolder, tower: str, precision: torch.dtype) -> None:
    window_px = 64
    windows = torch.randn(2, 3, window_px, window_px)
    whole = load(clip_folder(tower), window_px)
    halves = load(clip_folder(tower), window_px, precision=precision)
    assert {p.dtype for p in halves.network.visual.parameters()} == {precision}
    features = halves.dense_features(windows)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, whole.dense_features(windows), atol=0.05, rtol=0)
    assert not torch.equal(features, whole.dense_features(windows))
    assert torch.equal(halves.encode_text(["cat"]), whole.encode_text(["cat"]))


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("ViT-B-16", "set `model: ViT-B-16-quickgelu` and "),
        ("ViT-B-16-quickgelu", "set `model: ViT-B-16-quickgelu` and "),
    ],
)
def test_without_a_connection_the_error_says_how_to_fetch(
    model: str, settings: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError) as raised:
        load_clip(model, "openai", window_px=224, device=CPU)
    assert str(raised.value).startswith("weights: openai: cannot be downloaded (OfflineModeIs")
    assert str(raised.value).endswith(
        "; where there is a connection, run `hf download timm/vit_base_patch16_clip_224.openai "
        f"open_clip_model.safetensors --local-dir weights`, then {settings}"
        "`weights: weights/open_clip_model.safetensors`"
    )
