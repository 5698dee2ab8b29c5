"""Writes the report's page from tables and pictures; every text on it is escaped."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.config.config import Config
from pipeline.files import storage
from pipeline.records import manifest, tables
from pipeline.records.rows import ReportRow
from stages.evaluate.output import confusion_tables, score_tables, score_warnings
from stages.pseudolabel.config import PseudolabelConfig
from stages.pseudolabel.output import card_tables
from stages.report.output import page_file
from stages.train.output import training_warnings


def write_page(config: Config, notes: Sequence[str], pictures: Sequence[str]) -> ReportRow:
    """Writes the page, next to its pictures.

    Args:
        config: The run; its manifests and the pictures are complete.
        notes: The config's notes on the tables.
        pictures: File names of the pictures to show, in order.
    """
    section = config.section(PseudolabelConfig)
    labelers = {} if section is None else section.labelers
    warnings = {
        name: choice.create(config.vocabulary).warnings() for name, choice in labelers.items()
    }
    environment = Environment(
        loader=PackageLoader("stages.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
    )
    page = page_file(config)
    text = environment.get_template("page.html.jinja").render(
        run=config.run.run,
        config=config.path,
        vocabulary=config.vocabulary,
        tables=[*score_tables(config), *card_tables(config, list(labelers))],
        matrices=confusion_tables(config),
        pictures=_rows_of(config, pictures),
        warnings=warnings,
        doubts=[*training_warnings(config), *score_warnings(config)],
        notes=notes,
    )
    storage.write_bytes(page, text.encode())
    return {"file": page.name, "kind": "page", "title": f"Run {config.run.run}"}


def _rows_of(config: Config, files: Sequence[str]) -> list[ReportRow]:
    """The rows of pictures in the report manifest."""
    folder = config.manifests / tables.REPORT.name
    rows: list[ReportRow] = manifest.read(folder, tables.REPORT).to_pylist()
    by_file = {row["file"]: row for row in rows}
    return [by_file[file] for file in files]
