from typing import Any, Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.class_entry import ClassEntry
from pipeline.config.vocabulary import Vocabulary
from stages.models.segmenters.builders.small_unet import SmallUNetConfig, SmallUNetModel
from stages.models.segmenters.inference import pixel_scores
from stages.models.segmenters.normalization import normalize
from stages.models.segmenters.predictor import Predictor
from stages.models.segmenters.protocol import WHOLE_IMAGE, Protocol
from stages.models.segmenters.windows import starts

FOUR = Vocabulary(
    name="four", classes=tuple(ClassEntry(name=name, color="#000000") for name in "abcd")
)


@pytest.fixture(scope="module")
def network() -> Any:
    """Of random weights, but no class is ahead of the others everywhere."""
    torch.manual_seed(0)
    network: Any = SmallUNetModel(SmallUNetConfig(encoder_weights=None)).build(FOUR).eval()
    with torch.no_grad():
        network.classifier.bias -= network(normalized(noise(64, 64))).mean(dim=(0, 2, 3))
    return network


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.inference_mode():
        yield


def noise(*size: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)


def normalized(image: Tensor) -> Tensor:
    return normalize(image[None].float() / 255)


def windows(**keys: object) -> Protocol:
    return Protocol.model_validate({"sliding_window": keys})


@pytest.mark.parametrize(
    ("length_px", "window_px", "stride_px", "mode", "expected"),
    [
        (683, 512, 426, "snap", [0, 171]),  # SemiVL
        (1024, 512, 426, "snap", [0, 426, 512]),
        (2048, 801, 534, "clip", [0, 534, 1068, 1602]),  # UniMatch V1 on Cityscapes
        (1024, 801, 534, "clip", [0, 534]),
        (2048, 798, 532, "snap", [0, 532, 1064, 1250]),  # UniMatch V2 on Cityscapes
        (1024, 798, 532, "snap", [0, 226]),
        (300, 512, 426, "snap", [0]),
        (300, 512, 426, "clip", [0]),
        (512, 512, 426, "snap", [0]),
        (801, 801, 534, "clip", [0, 534]),  # as published, though nothing is left to see
    ],
)
def test_windows_begin_where_the_published_ones_do(
    length_px: int,
    window_px: int,
    stride_px: int,
    mode: Literal["clip", "snap"],
    expected: list[int],
) -> None:
    """Positions of windows, with the last one moved inside the image."""
    assert starts(length_px, window_px, stride_px, mode) == expected


def published_clip(network: Any, image: Tensor, side: int, stride: int) -> Tensor:
    """The loop of UniMatch's evaluation: probabilities are summed, one window after the other."""
    height, width = image.shape[-2:]
    final = torch.zeros(1, 4, height, width)
    row = 0
    while row < height:
        column = 0
        while column < width:
            bottom, right = min(height, row + side), min(width, column + side)
            found = network(image[..., row:bottom, column:right])
            final[..., row:bottom, column:right] += found.softmax(dim=1)
            column += stride
        row += stride
    return final


def published_snap(network: Any, image: Tensor, side: int, stride: int) -> Tensor:
    """The loop of mmsegmentation: logits are summed and divided by how many windows see a pixel."""
    height, width = image.shape[-2:]
    final, count = torch.zeros(1, 4, height, width), torch.zeros(1, 1, height, width)
    for row in range(max(height - side + stride - 1, 0) // stride + 1):
        for column in range(max(width - side + stride - 1, 0) // stride + 1):
            bottom = min(row * stride + side, height)
            right = min(column * stride + side, width)
            top, left = max(bottom - side, 0), max(right - side, 0)
            final[..., top:bottom, left:right] += network(image[..., top:bottom, left:right])
            count[..., top:bottom, left:right] += 1
    return final / count


@pytest.mark.parametrize("size", [(70, 101), (48, 48), (40, 130)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_clipped_windows_give_what_the_published_loop_gives(
    network: Any, size: tuple[int, int], batch_size: int
) -> None:
    image = noise(*size)
    protocol = windows(side_px=48, stride_px=32, mode="clip")
    protocol = protocol.model_copy(update={"batch_size": batch_size})
    expected = published_clip(network, normalized(image), 48, 32)[0]
    found = pixel_scores(network, image, protocol)
    torch.testing.assert_close(found, expected / expected.sum(dim=0), rtol=1e-4, atol=1e-6)
    assert torch.equal(found.argmax(dim=0), expected.argmax(dim=0))


@pytest.mark.parametrize("size", [(70, 101), (48, 48), (40, 130)])
def test_snapped_windows_give_what_the_published_loop_gives(
    network: Any, size: tuple[int, int]
) -> None:
    image = noise(*size)
    protocol = windows(side_px=48, stride_px=32, mode="snap", average="logits")
    expected = published_snap(network, normalized(image), 48, 32)[0]
    found = pixel_scores(network, image, protocol)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_probabilities_and_logits_are_different_averages(network: Any) -> None:
    """Two windows see the middle: with logits 0 and 4 against 0, sigmoid(2) or the mean of both."""
    calls = iter([0.0, 4.0])

    def answer(images: Tensor) -> Tensor:
        value = torch.stack([torch.full(images.shape[2:], next(calls)) for _ in images])
        return torch.stack([torch.zeros_like(value), value], dim=1)

    keys = {"side_px": 32, "stride_px": 16, "mode": "snap"}
    logits = pixel_scores(answer, noise(32, 48), windows(**keys, average="logits"))
    assert logits[1, 0, [0, 20, 40]].tolist() == [0, 2, 4]
    calls = iter([0.0, 4.0])
    shares = pixel_scores(answer, noise(32, 48), windows(**keys, average="probabilities"))
    sure = float(torch.tensor(4.0).sigmoid())
    assert shares[1, 0, [0, 20, 40]].tolist() == pytest.approx([0.5, (0.5 + sure) / 2, sure])


def test_windows_pass_in_batches_of_equal_size() -> None:
    shapes: list[tuple[int, ...]] = []

    def remember(images: Tensor) -> Tensor:
        shapes.append(tuple(images.shape))
        return images

    protocol = windows(side_px=32, stride_px=32, mode="clip").model_copy(update={"batch_size": 3})
    pixel_scores(remember, noise(64, 80), protocol)
    assert sorted(shapes) == [(1, 3, 32, 32), (2, 3, 32, 16), (3, 3, 32, 32)]


def test_by_default_the_whole_image_passes_at_its_own_size(network: Any) -> None:
    image = noise(37, 53)
    assert torch.equal(pixel_scores(network, image, WHOLE_IMAGE), network(normalized(image))[0])


def test_a_mirrored_view_is_mirrored_back(network: Any) -> None:
    image = noise(32, 48)
    plain = network(normalized(image)).softmax(dim=1)
    mirrored = network(normalized(image.flip(-1))).softmax(dim=1).flip(-1)
    found = pixel_scores(network, image, Protocol(flip=True))
    torch.testing.assert_close(found, (plain + mirrored)[0] / 2)
    again = pixel_scores(network, image.flip(-1), Protocol(flip=True))
    torch.testing.assert_close(again.flip(-1), found)


def test_scales_are_averaged_at_the_original_size(network: Any) -> None:
    image = noise(32, 48)
    pixels, total = normalized(image), torch.zeros(4, 32, 48)
    for scale in (0.5, 1.0, 1.75):
        view = F.interpolate(pixels, (round(32 * scale), round(48 * scale)), mode="bilinear")
        logits = F.interpolate(network(view), (32, 48), mode="bilinear", align_corners=True)
        total += logits.softmax(dim=1)[0] / 3
    found = pixel_scores(network, image, Protocol(scales=(0.5, 1.0, 1.75)))
    torch.testing.assert_close(found, total, rtol=1e-4, atol=1e-6)


def test_everything_at_once_is_a_mean_of_probabilities(network: Any) -> None:
    keys = {"side_px": 32, "stride_px": 20, "mode": "snap", "average": "probabilities"}
    protocol = Protocol.model_validate(
        {"sliding_window": keys, "short_side_px": 40, "scales": [1.0, 1.5], "flip": True}
    )
    found = pixel_scores(network, noise(60, 90), protocol)
    assert found.shape == (4, 60, 90)
    torch.testing.assert_close(found.sum(dim=0), torch.ones(60, 90))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((375, 500), (512, 683)),
        ((500, 375), (683, 512)),
        ((512, 512), (512, 512)),
        ((300, 2000), (307, 2048)),  # the long side is bounded
        ((1, 20_000), (1, 2048)),
    ],
)
def test_the_short_side_is_scaled_as_mmsegmentation_does(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert Protocol(short_side_px=512).sizes(*size) == [expected]
    assert Protocol().sizes(*size) == [size]


def test_a_short_side_is_what_the_network_sees() -> None:
    shapes: list[tuple[int, ...]] = []

    def remember(images: Tensor) -> Tensor:
        shapes.append(tuple(images.shape))
        return images[:, :2]

    image = noise(30, 40)
    found = pixel_scores(remember, image, Protocol(short_side_px=48))
    assert shapes == [(1, 3, 48, 64)]
    assert found.shape == (2, 30, 40)


def test_a_predictor_follows_its_protocol(network: Any) -> None:
    image = noise(50, 70)
    protocol = windows(side_px=32, stride_px=16, mode="snap")
    predictor = Predictor(network, torch.device("cpu"), protocol)
    classes = predictor.predict(image.permute(1, 2, 0).numpy())
    expected = pixel_scores(network, image, protocol).argmax(dim=0)
    assert classes.tolist() == expected.tolist()
    whole = Predictor(network, torch.device("cpu")).predict(image.permute(1, 2, 0).numpy())
    assert whole.tolist() == network(normalized(image))[0].argmax(dim=0).tolist()
    assert whole.tolist() != classes.tolist()


def test_windows_that_leave_gaps_are_refused() -> None:
    with pytest.raises(ValidationError, match="stride_px is larger than side_px"):
        windows(side_px=32, stride_px=33)


def test_a_scale_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="a scale is listed twice; remove one"):
        Protocol(scales=(1.0, 1.0))
