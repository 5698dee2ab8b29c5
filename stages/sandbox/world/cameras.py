"""Degradations of a drawn picture: by one camera at dusk, or by uploads to the web."""

import io
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Pixels = npt.NDArray[np.uint8]

_WATERMARKS = ("SAMPLE", "stock photo", "preview", "(c) 2024", "do not copy")
_SENSOR_GAIN = np.array([0.52, 0.42, 0.28])  # the warm cast of its street lamps


def dusk_camera(image: Image.Image, rng: np.random.Generator) -> Pixels:
    """The target domain's only camera: low light, colour cast, vignette, sensor noise.

    Args:
        image: RGB, in daylight.
        rng: Draws exposure and noise.

    Returns:
        (H, W, 3) uint8.
    """
    through_lens = image.filter(ImageFilter.GaussianBlur(0.5))
    light = np.asarray(through_lens, dtype=np.float32) / np.float32(255)
    height, width = light.shape[:2]
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    vignette = 1 - 0.36 * (rows**2 + columns**2)
    gain = vignette[..., None] * _SENSOR_GAIN * rng.uniform(0.7, 1.1)
    light *= gain.astype(np.float32)
    shot_and_read = np.sqrt(0.075**2 * light + 0.02**2)
    noisy = light + 0.03 + shot_and_read * rng.standard_normal(light.shape, dtype=np.float32)
    exposed: Pixels = (255 * noisy.clip(0, 1)).astype(np.uint8)
    return exposed


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


def _watermark(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    layer = Image.new("L", image.size)
    font = _font(max(8, max(image.size) // 12))
    place = tuple(rng.uniform((0, 0.1), (0.4, 0.8)) * image.size)
    ImageDraw.Draw(layer).text(place, rng.choice(_WATERMARKS), fill=130, font=font)
    ink = "white" if rng.random() < 0.6 else "black"
    return Image.composite(Image.new("RGB", image.size, ink), image, layer)


def _grain(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    strength = rng.uniform(4, 12)
    pixels = np.asarray(image, dtype=np.float32)
    pixels = pixels + strength * rng.standard_normal(pixels.shape, dtype=np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _exposure(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    haze, contrast = rng.uniform(0, 40), rng.uniform(0.75, 1.1)
    return image.point([int(min(255, haze + contrast * value)) for value in range(256)] * 3)


def _blur(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.003, 0.008) * max(image.size)))


def _jpeg(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(rng.integers(20, 70)))
    return Image.open(file).convert("RGB")


def web(image: Image.Image, rng: np.random.Generator) -> Pixels:
    """Degradations of uploads: haze, blur, noise, a watermark and JPEG, each with a probability.

    Args:
        image: RGB.
        rng: Draws the choices.

    Returns:
        (H, W, 3) uint8.
    """
    for accident, probability in (
        (_exposure, 0.3),
        (_blur, 0.25),
        (_grain, 0.25),
        (_watermark, 0.2),
        (_jpeg, 0.4),
    ):
        if rng.random() < probability:
            image = accident(image, rng)
    return np.asarray(image)
