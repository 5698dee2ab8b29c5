"""The SAM that ships, in the stage."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from pipeline.config import config as config_file
from stages.graph import GRAPH
from stages.propose.output import Proposals
from tests.repository import ROOT
from tools.sandbox.sam_metrics import GENERATOR


@pytest.mark.slow
def test_it_proposes_the_same_masks_in_worker_processes_and_warns_of_photos(
    tiny: dict[str, Any],
    write_config: Callable[..., Path],
    maskmill: Callable[..., CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    propose = {"model": "sandbox", "size_px": 128, "points_per_side": 4, "pred_iou_thresh": 0.3}
    config = write_config({**tiny, "propose": {**propose, "stability_score_thresh": 0.3}})
    done = maskmill("run", "--config", config)
    assert done.returncode == 0, done.stderr
    assert (
        f"warning: {config}: propose.model: the sandbox's SAM was trained on drawn scenes "
        "and knows nothing of real photos; use vit_b, vit_l or vit_h\n"
    ) in done.stderr
    maskmill("run", "--config", config, "--set", "run=other", "--set", "cluster.workers=2")
    alone, shared = (
        pd.read_parquet(tmp_path / "workspace/manifests" / run / "proposals")
        for run in ("tiny", "other")
    )
    assert sum(len(masks) for masks in alone["rle"]) > 4
    for one, other in zip(masks_of(alone), masks_of(shared), strict=True):
        assert one.shape == other.shape
        # Workers compute on one thread each: a logit within rounding of the cut may fall elsewhere.
        assert (one != other).mean() < 0.001


def masks_of(proposals: pd.DataFrame) -> list[npt.NDArray[np.bool_]]:
    rows = proposals.to_dict("records")
    return [
        Proposals(
            (row["height"], row["width"]),
            tuple(row["rle"]),
            tuple(row["predicted_iou"]),
            tuple(row["stability_score"]),
        ).masks()
        for row in rows
    ]


def test_the_default_config_has_the_settings_it_was_measured_with() -> None:
    sections = {stage.name: stage.Config for stage in GRAPH}
    propose = config_file.load(ROOT / "configs/sandbox.yaml", sections).sections["propose"]
    assert propose.model_dump(include=set(GENERATOR)) == GENERATOR
