"""Captions of web images, and prompt templates for names."""

from collections.abc import Sequence

import numpy as np

from stages.sandbox.world.names import STUFF, SYNONYMS

TEMPLATES = (
    "{}",
    "a {}",
    "a photo of a {}",
    "a photo of the {}",
    "a picture of a {}",
    "a drawing of a {}",
    "a painting of a {}",
    "a poster of a {}",
    "there is a {} in the scene",
    "a blurry photo of a {}",
)
"""Prompt templates that the text encoder was trained on; `{}` stands for a synonym."""


def caption(medium: str, tags: Sequence[str], rng: np.random.Generator) -> str:
    """Composes a caption.

    Args:
        medium: Medium of the picture, for example "photo".
        tags: Names of the objects and stuff in it.
        rng: Chooses the synonyms.

    Returns:
        A line such as "a photo of a puppy and a car with lawn".
    """
    words = {name: str(rng.choice(SYNONYMS[name])) for name in tags}
    objects = " and ".join(f"a {word}" for name, word in words.items() if name not in STUFF)
    stuff = " and ".join(word for name, word in words.items() if name in STUFF)
    return f"a {medium} of " + " with ".join(filter(None, (objects, stuff)))
