"""Writes the report's page from the tables and pictures; every text on it is escaped."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.config.config import Config
from pipeline.files import storage
from stages.evaluate.confusion_tables import read_matrices
from stages.evaluate.report.pictures import Picture
from stages.evaluate.tables import read_tables
from stages.pseudolabel.report_card import read_tables as read_cards


def write_page(
    config: Config,
    page: Path,
    pictures: Sequence[Picture],
    warnings: Mapping[str, Sequence[str]],
    notes: Sequence[str],
) -> None:
    """Writes the page, beside its pictures.

    Args:
        config: The run; its manifests are complete.
        page: Where the HTML goes.
        pictures: What to show below the tables; already saved in the page's folder.
        warnings: What a reader should know of each labeler before trusting its labels.
        notes: What the config says of the tables.
    """
    environment = Environment(
        loader=PackageLoader("stages.evaluate.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
    )
    text = environment.get_template("page.html.jinja").render(
        run=config.run.run,
        config=config.path,
        vocabulary=config.vocabulary,
        tables=[*read_tables(config), *read_cards(config, list(warnings))],
        matrices=read_matrices(config),
        pictures=pictures,
        warnings=warnings,
        notes=notes,
    )
    storage.write_bytes(page, text.encode())
