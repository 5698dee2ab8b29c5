"""Checks of labelers by the config and the images manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from pipeline.config.config import Config
from pipeline.engine.findings import Findings
from pipeline.errors import ConfigError, error_context
from pipeline.records import arrays, manifest, tables
from stages.ingest.config import IngestConfig
from stages.ingest.output import no_image, read_images, read_supervision
from stages.propose.config import ProposeConfig
from stages.pseudolabel.config import PseudolabelConfig, labeler_key
from stages.pseudolabel.dependency_rounds import dependency_rounds
from stages.pseudolabel.labelers.base import Labeler


@dataclass(frozen=True)
class PseudolabelCheck:
    """Looks for all faults of the labelers of a run.

    Attributes:
        config: The run.
        section: Its section `pseudolabel`.
        findings: Gets what is found.
    """

    config: Config
    section: PseudolabelConfig
    findings: Findings

    def keys(self) -> None:
        """Checks the config, and the files that it names."""
        for name, choice in self.section.labelers.items():
            if choice.component.needs_proposals:
                self._proposals(labeler_key(name))
        with self.findings.collecting():
            rounds_of(self.config, self.section)
        for name, labeler in self._labelers().items():
            with self.findings.collecting(), error_context(labeler_key(name)):
                labeler.weights_facts()
            with self.findings.collecting(), error_context(labeler_key(name)):
                labeler.vocabulary_facts()
            if self.config.run.cluster.address is None:  # else workers elsewhere need them
                with self.findings.collecting(), error_context(labeler_key(name)):
                    labeler.check_packages()
            for warning in labeler.warnings():
                self.findings.warn(f"labeler {name}: {warning}")

    def images(self) -> None:
        """Checks the images manifest; once ingest is done."""
        manifests, roles = self.config.manifests, (*self.section.roles, "labeled")
        images = read_images(manifests, roles)
        absent = [r for r in roles if not arrays.having(images, "role", r).num_rows]
        ingest = self.config.section(IngestConfig)
        given = set() if ingest is None else {source.role for source in ingest.sources.values()}
        if not images.num_rows:
            for role in sorted({*roles} & given) or sorted(roles):
                self.findings.add(no_image(self.config, role))
            return
        for role in absent:
            if role in given:
                self.findings.warn(
                    f"nothing of role {role} is labeled: {no_image(self.config, role)}"
                )
        masked = images.filter(pc.is_valid(images["mask_uri"]))
        for name, labeler in self._labelers().items():
            others = arrays.having(masked, "role", "labeled").num_rows
            if labeler.needs_label_files and masked.num_rows == others and len(roles) > 1:
                self.findings.warn(
                    f"labeler {name} copies label files, but no image of role "
                    f"{' or '.join(self.section.roles)} has one"
                )
        labeled = read_supervision(self.config, "labeled")
        if (doubt := labeled.silence()) is not None:
            where = f"{self.config.path}: {labeled.sources}"
            self.findings.warn(f"{where}: {doubt}; report cards have no scores")

    def masks(self) -> None:
        """Warns of labelers of masks where SAM found none; once propose is done."""
        needing = [name for name, own in self._labelers().items() if own.needs_proposals]
        folder = self.config.manifests / tables.PROPOSALS.name
        found = (
            manifest.read(folder, tables.PROPOSALS, ["status", "num_masks"]) if needing else None
        )
        if found is None:
            return
        good = arrays.having(found, "status", "ok")
        if good.num_rows and not pc.sum(good["num_masks"]).as_py():
            self.findings.warn(
                f"propose found no mask in any of {good.num_rows} images, so that "
                f"{', '.join(needing)} has nothing to classify; lower `propose.pred_iou_thresh`"
            )

    def _labelers(self) -> dict[str, Labeler]:
        vocabulary = self.config.vocabulary
        return {name: own.create(vocabulary) for name, own in self.section.labelers.items()}

    def _proposals(self, key: str) -> None:
        """Refuses a labeler whose images would have no masks, or masks of another size."""
        path, propose = self.config.path, self.config.section(ProposeConfig)
        if propose is None:
            what = "the labeler needs SAM's masks, but the config has no section `propose`"
            fix = "add `propose: {model: ...}` to it"
            self.findings.add(ConfigError(what, where=f"{path}: {key}", fix=fix))
            return
        if roles := {*self.section.roles} - {*propose.roles, "labeled"}:
            what = f"{key} needs SAM's masks of the role {', '.join(sorted(roles))} too"
            self.findings.add(ConfigError(what, where=f"{path}: propose.roles", fix="add it"))
        if propose.size_px != self.section.size_px:
            what = f"masks of {propose.size_px} px, but {key} needs masks of the labels' size"
            fix = f"set it to pseudolabel.size_px, {self.section.size_px}"
            self.findings.add(ConfigError(what, where=f"{path}: propose.size_px", fix=fix))


def rounds_of(config: Config, section: PseudolabelConfig) -> Sequence[Sequence[str]]:
    """The labelers in an order in which members come first; see `dependency_rounds`."""
    labelers = section.labelers.items()
    members = {name: choice.create(config.vocabulary).members for name, choice in labelers}
    return dependency_rounds(members, f"{config.path}: pseudolabel.labelers")
