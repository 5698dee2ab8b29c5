"""Checks of trainings by the config and the manifests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config.config import Config
from pipeline.config.vocabulary_doubts import reached
from pipeline.engine import torchrun
from pipeline.engine.findings import Findings
from pipeline.engine.machine_memory import more_than_all
from pipeline.errors import ConfigError, DataError
from pipeline.records import manifest, part_file, snapshot, tables
from stages.ingest.config import IngestConfig, Role
from stages.ingest.output import no_image, read_images, read_supervision
from stages.labels.supervision import Supervision
from stages.pseudolabel.config import PseudolabelConfig
from stages.pseudolabel.output import (
    copies_label_files,
    label_classes,
    read_labels,
    too_few_to_calibrate,
)
from stages.train.config import TrainConfig, VariantConfig
from stages.train.scoring_check import check_sizes

_BYTES_A_PIXEL = 3 * 4
"""Memory of a pixel of a crop: three channels as float32."""
_LOSS = "loss/"
"""Prefix of the metrics that are the losses of label sources."""


def needed_roles(config: Config) -> set[Role]:
    """The roles without whose images a run stops; of a run without trainings that of the labels."""
    section = config.section(TrainConfig)
    return {"labeled"} if section is None else {*TrainCheck(config, section, Findings()).roles()}


@dataclass(frozen=True)
class TrainCheck:
    """Looks for all faults of the trainings of a run.

    Attributes:
        config: The run.
        section: Its section `train`.
        findings: Gets what is found.
    """

    config: Config
    section: TrainConfig
    findings: Findings

    def keys(self) -> None:
        """Checks the config, and the files that it names."""
        if self.config.vocabulary.num_classes < 2:
            what = "every pixel would be of the only class"
            where = f"vocabulary {self.config.vocabulary.name!r}: classes"
            self.findings.add(ConfigError(what, where=where, fix="add a class, e.g. background"))
        first = next(iter(self.section.variants.values()))
        for name, variant in self.section.variants.items():
            self._labelers(name, variant)
            self._processes(name, variant, first)
            self._memory(name, variant)
            self._components(variant)
        ingest = self.config.section(IngestConfig)
        if ingest is not None:
            given = {source.role for source in ingest.sources.values()}
            for role in self.roles():
                if role not in given:
                    self.findings.add(no_image(self.config, role))

    def schemes(self) -> None:
        """Classes that no label scheme reaches; before the label files were read."""
        ingest = self.config.section(IngestConfig)
        sources = () if ingest is None else ingest.sources.values()
        found: frozenset[int] = frozenset()
        for source in sources:
            if source.role == "labeled":
                with self.findings.collecting():
                    found |= reached(self.config.vocabulary, source.label_scheme)
        if found:
            how = "no label scheme of a labeled source reaches"
            self._warn_of_unlearned(found, how, is_read=False)

    def images(self) -> None:
        """Checks the images manifest; once ingest is done."""
        counts = {
            role: read_images(self.config.manifests, [role]).num_rows for role in self.roles()
        }
        for role in (role for role, count in counts.items() if not count):
            self.findings.add(no_image(self.config, role))
        self._calibrations(counts["labeled"])
        self._copied_files()
        self._label_files(read_supervision(self.config, "labeled"))
        if "val" in counts:
            self._validations(read_supervision(self.config, "val"))
        check_sizes(self.config, self.section, self.findings)

    def labels(self) -> None:
        """Stored labels that leave every pixel open, or are all of one class; once they exist."""
        manifests = self.config.manifests
        for name, variant in self.section.variants.items():
            for role in variant.roles:
                rows = read_images(manifests, [role])
                for labeler in variant.labelers(role):
                    own = read_labels(manifests, labeler, rows, more=("coverage",))
                    if own.num_rows and not pc.max(own["coverage"]).as_py():
                        what = (
                            f"{labeler} left every pixel of all {own.num_rows} {role} images open"
                        )
                        where = self._where(name, "label_sources")
                        fix = f"lower the thresholds of pseudolabel.labelers.{labeler}"
                        self.findings.add(DataError(what, where=where, fix=fix))
                    elif (
                        own.num_rows and (only := self._only_class(labeler, role, own)) is not None
                    ):
                        where = self._where(name, "label_sources")
                        what = f"{labeler} labels all {own.num_rows} {role} images as {only} only"
                        self.findings.warn(f"{where}: {what}; look at them: maskmill show IMAGE_ID")

    def results(self) -> None:
        """Label sources whose loss was 0 or missing in all steps that a training recorded."""
        folder = self.config.manifests / tables.METRICS.name
        for name, variant in self.section.variants.items():
            sources = [choice.create().name for choice in variant.label_sources]
            for seed in variant.seeds if sources else ():
                part = folder / f"part-train-{name}-seed-{seed}.parquet"
                if not part_file.exists(part):
                    continue
                rows = manifest.read_part(part, tables.METRICS, ["name", "value"]).to_pylist()
                taught = {row["name"].removeprefix(_LOSS) for row in rows if row["value"]}
                for source in (source for source in sources if source not in taught):
                    where = f"{self._where(name, 'label_sources')}: seed {seed}"
                    self.findings.warn(
                        f"{where}: {source} taught nothing: no recorded step has a loss of it"
                    )

    def _only_class(self, labeler: str, role: str, labels: pa.Table) -> str | None:
        """The name of the class that all labels show and no other; None if they show several.

        Args:
            labeler: The labeler.
            role: The role of the images.
            labels: Rows of their labels, with the column `row`.
        """
        shown = snapshot.once(
            ("classes of labels", self.config.manifests, labeler, role),
            partial(self._two_classes, labeler, labels),
        )
        return self.config.vocabulary.class_names[min(shown)] if len(shown) == 1 else None

    def _two_classes(self, labeler: str, labels: pa.Table) -> set[int]:
        """The classes that labels show; reads on only until there are two."""
        seen: set[int] = set()
        for classes in label_classes(self.config, labeler, labels):
            seen |= classes
            if len(seen) > 1:
                break
        return seen

    def _where(self, variant: str, *keys: str) -> str:
        return self.config.where("train", "variants", variant, *keys)

    def roles(self) -> Iterator[Role]:
        """The roles whose images trainings need, each once."""
        variants = self.section.variants.values()
        yield "labeled"
        for role in ("unlabeled", "ood"):
            if any(role in variant.roles for variant in variants):
                yield "unlabeled" if role == "unlabeled" else "ood"
        if any(variant.validate_every is not None for variant in variants):
            yield "val"

    def _labelers(self, name: str, variant: VariantConfig) -> None:
        section = self.config.section(PseudolabelConfig)
        known = [] if section is None else list(section.labelers)
        where = self._where(name, "label_sources")
        for source in (choice.create() for choice in variant.label_sources):
            labeler, role = source.labeler, source.config.on
            if labeler is not None and labeler not in known:
                fix = f"use one of `pseudolabel.labelers`: {', '.join(known) or 'none'}"
                self.findings.add(ConfigError(f"no labeler {labeler!r}", where=where, fix=fix))
            elif labeler is not None and section is not None and role not in section.roles:
                what, fix = f"{labeler} does not label {role} images", "to `pseudolabel.roles`"
                self.findings.add(ConfigError(what, where=where, fix=f"add {role} {fix}"))
            for doubt in source.doubts(variant.length):
                self.findings.warn(f"{where}: {source.file_name()}: {doubt}")

    def _processes(self, name: str, variant: VariantConfig, first: VariantConfig) -> None:
        world, crops = torchrun.world(), variant.micro_batch_size
        if crops % world:
            what = f"{crops} crops a micro-batch cannot be shared evenly by {world} processes"
            fix = f"set `batch_size` to a multiple of {world * variant.accumulate}"
            self.findings.add(ConfigError(what, where=self._where(name, "batch_size"), fix=fix))
        if world > 1 and variant.device != first.device:
            fix = "write the same device for all variants"
            what = "processes that train together need the same kind of device"
            self.findings.add(ConfigError(what, where=self._where(name, "device"), fix=fix))

    def _memory(self, name: str, variant: VariantConfig) -> None:
        """Refuses crops that do not fit into memory, let alone what a network makes of them."""
        pixels = variant.micro_batch_size * variant.crop_px**2 * (1 + len(variant.roles))
        error = more_than_all(
            f"{variant.micro_batch_size} crops of {variant.crop_px} px of each role",
            pixels * _BYTES_A_PIXEL // torchrun.world(),
            where=self._where(name, "batch_size"),
            fix="set a smaller `batch_size` or `crop_px`, or a larger `accumulate`",
        )
        if error is not None:
            self.findings.add(error)

    def _components(self, variant: VariantConfig) -> None:
        """Lets each component say what it lacks: files, classes, concepts."""
        vocabulary = self.config.vocabulary
        with self.findings.collecting():
            variant.model.create().weights_facts()
        with self.findings.collecting():
            variant.model.create().vocabulary_facts(vocabulary)
        with self.findings.collecting():
            variant.perturbation.create(vocabulary)
        for source in (choice.create() for choice in variant.label_sources):
            if source.labeler is None:  # stored labels are not there yet
                with self.findings.collecting():
                    source.inputs(self.config)

    def _calibrations(self, labeled: int) -> None:
        for name, variant in self.section.variants.items():
            for source in (choice.create() for choice in variant.label_sources):
                if source.is_calibrated and 0 < labeled < 2:
                    where = self._where(name, "label_sources")
                    self.findings.add(too_few_to_calibrate(str(source.labeler), where))

    def _copied_files(self) -> None:
        """Label files of other roles that trainings read as stored labels."""
        for name, variant in self.section.variants.items():
            where = self._where(name, "label_sources")
            for role in variant.roles:
                for labeler in variant.labelers(role):
                    if not copies_label_files(self.config, labeler):
                        continue
                    found = read_supervision(self.config, role)
                    if not found.files:
                        what = f"{labeler} copies label files, but no {role} image has one"
                        fix = "name their folder with `masks: ...` in the source"
                        self.findings.add(DataError(what, where=where, fix=fix))
                    elif (doubt := found.silence()) is not None:
                        what = f"{labeler} copies label files: {doubt.what}"
                        self.findings.add(DataError(what, where=where, fix=doubt.fix))

    def _label_files(self, labeled: Supervision) -> None:
        where = f"{self.config.path}: {labeled.sources}"
        if (doubt := labeled.silence()) is not None:
            self.findings.add(DataError(doubt.what, where=where, fix=doubt.fix))
            return
        if text := labeled.partly_silent():
            self.findings.warn(f"{text}; nothing is learned from their images")
        if (doubt := labeled.monotony()) is not None:
            variants = self.section.variants.values()
            # What learns from its own predictions alone cannot learn another class.
            taught = [self._taught(variant, is_read=True) for variant in variants]
            if any(own is not None and own <= labeled.shown for own in taught):
                self.findings.add(DataError(doubt.what, where=where, fix=doubt.fix))
            else:
                self.findings.warn(f"{where}: {doubt}")
        if labeled.files:
            how = "no label file of a labeled image shows"
            self._warn_of_unlearned(labeled.shown, how, is_read=True)

    def _validations(self, val: Supervision) -> None:
        where = f"{self.config.path}: {val.sources}"
        if (doubt := val.silence()) is not None:
            fix = f"{doubt.fix}; or set `validate_every: null`"
            self.findings.add(DataError(f"val: {doubt.what}", where=where, fix=fix))

    def _warn_of_unlearned(self, shown: frozenset[int], how: str, *, is_read: bool) -> None:
        """Warns of classes that neither label files nor the labels of stage one show."""
        names = self.config.vocabulary.class_names
        lacking: dict[tuple[str, ...], list[str]] = {}
        for variant, keys in self.section.variants.items():
            if (taught := self._taught(keys, is_read=is_read)) is not None:
                absent = tuple(name for i, name in enumerate(names) if i not in shown | taught)
                lacking.setdefault(absent, []).append(variant)
        for classes, variants in lacking.items():
            if classes:
                self.findings.warn(
                    f"{how} {', '.join(classes)}, nor do stored labels of "
                    f"{', '.join(variants)}: never learned"
                )

    def _taught(self, variant: VariantConfig, *, is_read: bool) -> frozenset[int] | None:
        """The classes that others than label files and the student teach; None: maybe any.

        Args:
            variant: The keys of a training.
            is_read: Whether the images manifest holds the classes of label files.
        """
        taught: frozenset[int] = frozenset()
        for source in (choice.create() for choice in variant.label_sources):
            labeler = source.labeler
            if is_read and labeler is not None and copies_label_files(self.config, labeler):
                taught |= read_supervision(self.config, source.config.on).shown
                continue
            with self.findings.collecting():
                if (own := source.shows(self.config)) is None:
                    return None
                taught |= own
        return taught
