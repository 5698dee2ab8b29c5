import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import interpolate, linear, normalize

from stages.models.clip.clip_weights import Dense
from tests.pseudolabel.clips import load

ClipFolder = Callable[[str], Path]


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


def cubic(cells: Tensor, count: int, a: float) -> Tensor:
    """(N, D) values on a line at N cells, interpolated to `count` cells by Keys' cubic kernel."""

    def kernel(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    rows = []
    for place in range(count):
        center = (place + 0.5) * len(cells) / count - 0.5
        first = math.floor(center) - 1
        near = [
            (kernel(center - n), min(max(n, 0), len(cells) - 1)) for n in range(first, first + 4)
        ]
        rows.append(sum((weight * cells[n] for weight, n in near), torch.zeros(cells.shape[1:])))
    return torch.stack(rows)


def test_positions_grow_by_the_plain_bicubic_rule_of_the_published_code(
    clip_folder: ClipFolder,
) -> None:
    """a = -0.75, as torch without antialiasing; open_clip's own resize has a = -0.5."""
    small, large = (load(clip_folder("vit"), size).network.visual for size in (16, 40))
    grid = small.positional_embedding[1:].reshape(2, 2, 32)
    rows = cubic(grid, 5, -0.75)
    expected = cubic(rows.transpose(0, 1), 5, -0.75).transpose(0, 1)
    torch.testing.assert_close(
        large.positional_embedding[1:], expected.reshape(25, 32), rtol=0, atol=1e-6
    )


def test_gem_s_positions_are_antialiased(clip_folder: ClipFolder) -> None:
    gem = load(clip_folder("vit"), 40, dense=Dense("gem")).network.visual
    grid = load(clip_folder("vit"), 16).network.visual.positional_embedding[1:]
    expected = interpolate(grid.T.reshape(1, 32, 2, 2), (5, 5), mode="bicubic", antialias=True)
    torch.testing.assert_close(gem.positional_embedding[1:], expected[0].flatten(1).T)


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
