"""The flow: every stage, in order."""

from typing import Any

from pipeline.engine.stage import Stage
from stages.evaluate.stage import EvaluateStage
from stages.ingest.stage import IngestStage
from stages.propose.stage import ProposeStage
from stages.pseudolabel.stage import PseudolabelStage
from stages.report.stage import ReportStage
from stages.sandbox.stage import SandboxStage
from stages.train.stage import TrainStage

GRAPH: tuple[type[Stage[Any]], ...] = (
    SandboxStage,  # draws the embedded world; only where the config has a `sandbox` section
    IngestStage,
    ProposeStage,  # SAM's masks; only where the config has a `propose` section
    PseudolabelStage,
    TrainStage,
    EvaluateStage,
    ReportStage,
)
