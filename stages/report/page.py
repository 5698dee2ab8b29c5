"""Writes the report's page from tables and pictures; every text on it is escaped."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.config.config import Config
from pipeline.files import storage
from pipeline.records import manifest, tables
from pipeline.records.rows import ReportRow
from stages.evaluate.output import confusion_tables, score_tables, shown_split
from stages.pseudolabel.config import PseudolabelConfig
from stages.pseudolabel.output import card_tables
from stages.report.output import labels_picture, page_file, predictions_picture


def write_page(config: Config, notes: Sequence[str]) -> ReportRow:
    """Writes the page, next to its pictures.

    Args:
        config: The run; its manifests and the pictures are complete.
        notes: The config's notes on the tables.
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
        pictures=_pictures(config),
        warnings=warnings,
        notes=notes,
    )
    storage.write_bytes(page, text.encode())
    return {"file": page.name, "kind": "page", "title": f"Run {config.run.run}"}


def _pictures(config: Config) -> list[ReportRow]:
    """The pictures of the report: labels first, in the order of the config."""
    rows: list[ReportRow] = manifest.read(
        config.manifests / tables.REPORT.name, tables.REPORT
    ).to_pylist()
    section = config.section(PseudolabelConfig)
    files = [] if section is None else [labels_picture(config, name) for name in section.labelers]
    if (split := shown_split(config)) is not None:
        files.append(predictions_picture(config, split))
    pictures = {row["file"]: row for row in rows}
    return [pictures[file.name] for file in files if file.name in pictures]
