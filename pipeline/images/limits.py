"""Limits for images; in a separate file, so that a config can be read without Pillow."""

from typing import Annotated

from pydantic import Field

from pipeline.config.config_section import Section

ValueRange = tuple[int, int]
"""The values of a grey image of more than 8 bits that become black and white."""


class Limits(Section):
    """Limits for an image."""

    max_bytes: Annotated[int, Field(ge=1, le=2**31)] = 256 * 2**20
    """Bytes of a file."""
    max_pixels: Annotated[int, Field(ge=1, le=10**9)] = 100_000_000
    """Width times height; checked before decoding."""
    max_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60
    """CPU time to decode it. Does not apply to WebP, AVIF, JPEG 2000 and compressed TIFF, which are
    decoded in one call."""
