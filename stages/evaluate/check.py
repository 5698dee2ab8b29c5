"""Checks of scores before they are computed: images without truth, classes without score."""

from __future__ import annotations

from pipeline.config.config import Config
from pipeline.engine.findings import Findings
from pipeline.errors import DataError
from stages.evaluate.score_key import LABELED_ROLES, SPLITS
from stages.ingest.config import IngestConfig
from stages.ingest.output import no_image, read_images, read_supervision
from stages.labels.supervision import Supervision
from stages.train.config import TrainConfig


def check_splits(config: Config, findings: Findings) -> None:
    """Finds that the config has no images to score anything on, or none for trainings."""
    ingest = config.section(IngestConfig)
    if ingest is None:
        return
    given = {source.role for source in ingest.sources.values()}
    if not given.intersection(SPLITS) and config.section(TrainConfig) is not None:
        what = f"no source has the role {' or '.join(SPLITS)}, so that no training can be scored"
        where = f"{config.path}: ingest.sources"
        fix = "add a source of such images with label files, or remove the section `evaluate`"
        if given.intersection(LABELED_ROLES):
            findings.warn(f"{where}: {what}; {fix}")
        else:
            findings.add(DataError(what, where=where, fix=fix))


def check_truth(config: Config, findings: Findings) -> None:
    """Finds splits whose label files give no score, or a score that says nothing."""
    ingest = config.section(IngestConfig)
    given = set() if ingest is None else {source.role for source in ingest.sources.values()}
    for split in SPLITS:
        if split in given and not read_images(config.manifests, [split]).num_rows:
            findings.warn(f"nothing is scored on {split}: {no_image(config, split)}")
        found = read_supervision(config, split)
        if found.files:
            _check_files(config, found, findings)


def _check_files(config: Config, found: Supervision, findings: Findings) -> None:
    where = f"{config.path}: {found.sources}"
    if (doubt := found.silence()) is not None:
        findings.warn(f"{where}: {doubt}; nothing is scored on {found.role}")
        return
    if (doubt := found.monotony()) is not None:
        findings.warn(f"{where}: {doubt}; whoever gives this class everywhere scores best")
    elif lacking := found.lacking():
        findings.warn(
            f"no label file of a {found.role} image shows {', '.join(lacking)}: never scored on "
            f"{found.role}, and counted as 0 in the mean IoU"
        )
