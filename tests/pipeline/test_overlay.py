import numpy as np

from pipeline.images.overlay import overlaid, resized, sheet


def test_colors_are_laid_over_the_image_at_its_resolution() -> None:
    pixels = np.full((4, 6, 3), 100, np.uint8)
    mask = np.array([[0, 1, 255]], np.uint8)
    palette = np.zeros((256, 3), np.uint8)
    palette[1] = (200, 0, 100)
    drawn = overlaid(pixels, mask, palette)
    assert drawn.shape == pixels.shape
    assert drawn.dtype == np.uint8
    # 45 % image, 55 % colour; black classes and ignore show the image, dimmed.
    expected = [[45, 45, 45]] * 2 + [[155, 45, 100]] * 2 + [[45, 45, 45]] * 2
    np.testing.assert_allclose(drawn, [expected] * 4, atol=1)


def test_masks_are_resized_without_new_classes() -> None:
    mask = np.array([[0, 7], [255, 3]], np.uint8)
    assert resized(mask, 4, 6).tolist() == [[0] * 3 + [7] * 3] * 2 + [[255] * 3 + [3] * 3] * 2


def test_a_sheet_has_rows_as_high_as_their_highest_picture() -> None:
    red = np.full((2, 3, 3), (255, 0, 0), np.uint8)
    tall = np.full((5, 1, 3), (0, 0, 255), np.uint8)
    page = sheet([[red, tall], [red]])
    assert page.size == (3 + 4 + 1, 5 + 4 + 2)
    assert page.getpixel((0, 0)) == (255, 0, 0)
    assert page.getpixel((7, 4)) == (0, 0, 255)
    assert page.getpixel((0, 9)) == (255, 0, 0)
    assert page.getpixel((4, 0)) == (255, 255, 255)
