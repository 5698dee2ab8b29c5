"""The section `evaluate`: how images are predicted to score trainings."""

from __future__ import annotations

from typing import Annotated

from pipeline.config.config_section import RunOnly
from stages.models.segmenters.protocol import ProtocolChoice


class EvaluateConfig(ProtocolChoice):
    """The section `evaluate`: the protocol by which images are predicted."""

    device: Annotated[str, RunOnly] = "auto"
    """cpu, cuda, mps, or auto: a GPU if there is one."""
