"""The section `report`: notes on the tables, and where predictions are drawn."""

from __future__ import annotations

from typing import Annotated

from pipeline.config.config_section import RunOnly, Section


class ReportConfig(Section):
    """The section `report`."""

    notes: tuple[str, ...] = ()
    """Notes for readers of the tables; printed below them, and on the page."""
    device: Annotated[str, RunOnly] = "auto"
    """cpu, cuda, mps, or auto: a GPU if there is one. It predicts the images that are shown."""
