"""What predicting leaves in its folder, for others to read."""

from __future__ import annotations

from stages.predict.kinds import KINDS

TABLE = "predictions.parquet"
"""The rows of all images."""
CLASSES = "classes.json"
"""The classes in the order of their ids: a list of entries with name and colour."""


def mask_file(name: str) -> str:
    """The path of an image's mask below the folder."""
    return KINDS["masks"].file(name)
