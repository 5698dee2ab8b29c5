import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from stages.pseudolabel.pixels.windows import corners, scaled_size, sliding_scores


@pytest.mark.parametrize(
    ("size", "long_side_px", "expected"),
    [
        ((375, 500), 2048, (336, 448)),
        ((100, 1000), 2048, (205, 2048)),  # mmcv: int(side * scale + 0.5)
        ((100, 1000), None, (202, 2016)),
        ((1, 5000), None, (1, 2016)),  # at least a pixel
        ((672, 1005), 2048, (336, 503)),  # a half is rounded up
    ],
)
def test_images_are_scaled_as_in_mmcv(
    size: tuple[int, int], long_side_px: int | None, expected: tuple[int, int]
) -> None:
    assert scaled_size(*size, 336, long_side_px) == expected


def gray(windows: Tensor) -> Tensor:
    """A score with one channel, the first input channel, so that pixels can be followed."""
    return windows[:, :1]


def coarse(windows: Tensor) -> Tensor:
    return adaptive_avg_pool2d(windows, 2)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((40, 40), [(0, 0)]),
        ((32, 50), [(0, 0), (0, 10)]),
        ((80, 1), [(0, 0), (20, 0), (40, 0)]),
        ((41, 41), [(0, 0), (0, 1), (1, 0), (1, 1)]),
        ((1, 1), [(0, 0)]),
    ],
)
def test_windows_cover_the_image_and_stay_inside(
    size: tuple[int, int], expected: list[tuple[int, int]]
) -> None:
    assert corners(*size, window_px=40, stride_px=20) == expected


@pytest.mark.parametrize("stride_px", [7, 16, 32])
def test_every_pixel_is_scored_where_it_lies(stride_px: int) -> None:
    images = [
        torch.rand(3, 70, 45),
        torch.rand(3, 32, 32),
        torch.rand(3, 1, 90),
        torch.rand(3, 9, 3),
    ]
    scores = sliding_scores(images, gray, window_px=32, stride_px=stride_px, batch_size=5)
    for image, score in zip(images, scores, strict=True):
        torch.testing.assert_close(score, image[:1])


def test_coarse_maps_are_resized_to_their_window_and_averaged() -> None:
    image = torch.zeros(3, 4, 6)
    image[:, :, 4:] = 1.0
    [scores] = sliding_scores([image], coarse, window_px=4, stride_px=2, batch_size=2)
    first, second = torch.zeros(4), torch.tensor([0.0, 0.25, 0.75, 1.0])
    expected = torch.cat([first[:2], (first[2:] + second[:2]) / 2, second[2:]])
    torch.testing.assert_close(scores, expected.expand(3, 4, 6))


def test_beyond_its_edge_an_image_continues_and_does_not_count() -> None:
    seen: list[Tensor] = []

    def remember(windows: Tensor) -> Tensor:
        seen.append(windows)
        return windows

    image = torch.arange(2.0).view(1, 2, 1).expand(3, 2, 9)
    [scores] = sliding_scores([image], remember, window_px=4, stride_px=4, batch_size=8)
    assert torch.equal(scores, image)
    assert [len(windows) for windows in seen] == [3]
    assert torch.equal(seen[0][:, :, 2:], torch.ones(3, 3, 2, 4))


def test_windows_of_several_images_share_a_forward() -> None:
    counts: list[int] = []

    def count(windows: Tensor) -> Tensor:
        counts.append(len(windows))
        return windows

    images = [torch.rand(3, 8, 8), torch.rand(3, 8, 20), torch.rand(3, 8, 8)]
    assert len(list(sliding_scores(images, count, window_px=8, stride_px=8, batch_size=4))) == 3
    assert counts == [4, 1]


@pytest.mark.parametrize(
    ("size", "expected"),
    [((100, 200), (50, 100)), ((30, 20), (75, 50)), ((1, 1000), (1, 300)), ((600, 100), (300, 50))],
)
def test_the_short_side_is_scaled_and_the_long_one_bounded(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert scaled_size(*size, short_side_px=50) == expected
