"""The facts of labels: what a labeler would make them from now, and what they were made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.compute as pc

from pipeline.config.config import Config
from pipeline.config.config_section import Facts
from pipeline.errors import ConfigError, error_context
from pipeline.records import manifest, part_file
from pipeline.records.redone import PREFIX, Redone, without_shard
from pipeline.records.sharded_table import ShardedTable
from stages.propose.config import ProposeConfig
from stages.propose.output import mask_facts, proposals_part
from stages.pseudolabel.config import PseudolabelConfig, labeler_key
from stages.pseudolabel.output import labels_folder, labels_part


@dataclass(frozen=True)
class LabelFacts:
    """The facts of each labeler's labels besides the images.

    Attributes:
        config: The run.
        section: Its section `pseudolabel`.
        version: The stage's version, as a fact.
        images: Gives all images to be labeled, by shard.
    """

    config: Config
    section: PseudolabelConfig
    version: Facts
    images: Callable[[], ShardedTable]
    _known: dict[str, Facts] = field(default_factory=dict, init=False, repr=False)
    _weights: dict[str, Facts] = field(default_factory=dict, init=False, repr=False)
    """The facts of labelers without what they read; checksums of weights are computed once."""

    def planned(self, name: str) -> Facts:
        """The facts of a labeler's labels if everything that it reads is fresh."""
        facts = self._own(name)
        if self.section.labelers[name].component.needs_proposals:
            propose = self.config.section(ProposeConfig)
            assert propose is not None
            facts |= mask_facts(propose)
        for member in self.members(name):
            facts = {**self.planned(member), **facts}
        return facts

    def redone(self, name: str, shard: int, counts: Redone) -> Facts:
        """The facts of what a labeler reads for a shard and what was done again on request.

        What a member reads counts too: the member's labels are made again because of it.
        """
        facts: Facts = {}
        if counts.is_empty:
            return facts
        if self.section.labelers[name].component.needs_proposals:
            propose = self.config.section(ProposeConfig)
            assert propose is not None
            part = proposals_part(self.config.manifests, shard)
            if count := counts.count([part], mask_facts(propose)):
                facts[f"{PREFIX}proposals"] = count
        for member in self.members(name):
            if count := self.count_redone(member, shard, counts):
                facts[f"{PREFIX}labels of {member}"] = count
        return facts

    def count_redone(self, name: str, shard: int, counts: Redone) -> int:
        """The number of times that labels of a shard, or their inputs, were done again."""
        own = counts.count([labels_part(self.config.manifests, name, shard)], self.planned(name))
        read = self.redone(name, shard, counts).values()
        return own + sum(count for count in read if isinstance(count, int))

    def read(self, name: str, shard: int) -> Facts:
        """The facts of a shard's labels by the parts that the labeler reads.

        They differ from the planned ones if these parts are stale, as they may be with `--only`.
        Then the labels are stale from the beginning.
        """
        facts = self._own(name)
        for part in self._parts_read(name, shard):
            recorded = part_file.read_facts(part) or {}
            facts |= without_shard(recorded)
        return facts | self.redone(name, shard, Redone(self.config.manifests))

    def versions(self, name: str) -> dict[str, str]:
        """Present versions of what makes a labeler's labels, by name."""
        choice = self.section.labelers[name]
        found = part_file.installed(choice.component.libraries)
        found = {**found, **choice.create(self.config.vocabulary).versions()}
        for member in self.members(name):
            found |= self.versions(member)
        return found

    def check_one_version(self, name: str, doing: Set[Path]) -> None:
        """Refuses to mix labels of two versions of a model, such as commits of a branch.

        Args:
            name: The labeler; its model is on this machine.
            doing: Parts of shards that are about to be labeled.

        Raises:
            ConfigError: Another version made labels that stay.
        """
        now = self.section.labelers[name].create(self.config.vocabulary).versions()
        if not now:
            return
        planned, folder = self.planned(name), labels_folder(self.config.manifests, name)
        for part, record in manifest.read_records(folder).items():
            if folder / part in doing or without_shard(record.facts) != planned:
                continue
            for model, version in now.items():
                if (made_by := record.versions.get(model, version)) != version:
                    what = f"its labels were made by {model} at {made_by}, which is now {version}"
                    fix = "name one of the two as `revision`, or label all again with --force"
                    raise ConfigError(what, where=labeler_key(name), fix=fix)

    def members(self, name: str) -> tuple[str, ...]:
        """The labelers whose labels a labeler reads."""
        return self.section.labelers[name].create(self.config.vocabulary).members

    def weights(self, name: str) -> Facts:
        """The facts of a labeler's weights, by the keys of `Labeler.weights_facts`."""
        self._own(name)
        return dict(self._weights[name])

    def _own(self, name: str) -> Facts:
        if name not in self._known:
            self._known[name] = self._compute(name)
        return dict(self._known[name])

    def _compute(self, name: str) -> Facts:
        vocabulary, choice = self.config.vocabulary, self.section.labelers[name]
        prefix, labeler = labeler_key(name), choice.create(vocabulary)
        with error_context(prefix):
            weights, asked = labeler.weights_facts(), labeler.vocabulary_facts()
        self._weights[name] = weights
        facts: Facts = {
            **self.version,
            **choice.facts(prefix),
            **{f"{prefix}.{key}": value for key, value in weights.items()},
            **asked,
            "pseudolabel.size_px": self.section.size_px,
        }
        if labeler.resizes:  # it sees other images than those of `size_px`
            facts["pseudolabel.max_side_px"] = self.section.max_side_px
        if choice.component.needs_label_files:
            images = self.images().table
            schemes = images.filter(pc.is_valid(images["mask_uri"]))["label_scheme"].unique()
            facts |= vocabulary.schemes_facts(schemes.to_pylist())
        return facts

    def _parts_read(self, name: str, shard: int) -> Iterator[Path]:
        """The parts of proposals and members that a labeler reads for a shard."""
        manifests = self.config.manifests
        if self.section.labelers[name].component.needs_proposals:
            yield proposals_part(manifests, shard)
        yield from (labels_part(manifests, member, shard) for member in self.members(name))
