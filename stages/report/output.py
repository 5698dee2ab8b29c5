"""The output of report: where the page and its pictures are."""

from pathlib import Path

from pipeline.config.config import Config


def page_file(config: Config) -> Path:
    """The page."""
    return config.artifacts / "report" / "index.html"


def labels_picture(config: Config, labeler: str) -> Path:
    """The picture of a labeler's labels."""
    return page_file(config).with_name(f"labels-{labeler}.png")


def predictions_picture(config: Config, split: str) -> Path:
    """The picture of the predictions of all variants on a split."""
    return page_file(config).with_name(f"predictions-{split}.png")
