"""The section `train`: what a training is, and the variants of it to compare."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipeline.config.components import Choice, chosen_from
from pipeline.config.config_section import Facts, Name, RunOnly, Section
from pipeline.config.origins import Place, Written, reach
from stages.models.segmenters.builders.base import ModelChoice
from stages.train import preset as presets
from stages.train.step.label_sources.base import LabelSource, LabelSourceConfig
from stages.train.step.perturbations.base import Perturbation
from stages.train.step.supervised_losses.base import SupervisedLoss

PerturbationChoice = Annotated[
    Choice[Perturbation], *chosen_from("stages.train.step.perturbations", Perturbation)
]
LabelSourceChoice = Annotated[
    Choice[LabelSource], *chosen_from("stages.train.step.label_sources", LabelSource)
]
SupervisedLossChoice = Annotated[
    Choice[SupervisedLoss], *chosen_from("stages.train.step.supervised_losses", SupervisedLoss)
]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Resize = Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class DiscriminatorConfig(Section):
    """The section `feature_discriminator`."""

    weight: Positive = 0.01
    """Weight of the loss by which features without labels learn to look like labeled ones."""
    learning_rate: Positive = 1e-4
    """Of the discriminator's own Adam."""

    def facts(self, prefix: str) -> Facts:
        """See `Section.facts`; 2: it moves once a step, not once a micro-batch."""
        return {**super().facts(prefix), f"{prefix}.version": 2}


DEFAULT_STEPS = 40_000


class VariantConfig(Section):
    """One way to train, once a seed."""

    preset: Annotated[str | None, RunOnly] = None
    """A published training, of those in stages/train/presets, whose keys count where the config has
    none: mappings are merged, lists replaced. The keys are facts, not the name."""
    dataset: Annotated[str | None, RunOnly] = None
    """The dataset whose values to take where the preset has such; default: those of the file."""
    title: Annotated[str, RunOnly] = ""
    """What to call it in tables; default: the variant's name."""
    model: ModelChoice
    """The network."""
    perturbation: PerturbationChoice
    """How views are made and compared."""
    label_sources: tuple[LabelSourceChoice, ...] = ()
    """Who labels the images that nobody labeled; none = supervised training."""
    supervised_loss: SupervisedLossChoice = Field("cross_entropy", validate_default=True)
    """What labeled crops cost."""
    feature_discriminator: DiscriminatorConfig | None = None
    """Tells features of labeled crops from others, and so makes them alike (SUFD)."""
    crop_px: Annotated[int, Field(ge=16, le=8192)] = 321
    """Side of the training crops."""
    scale: tuple[Resize, Resize] = (0.5, 2.0)
    """Bounds of the random resize before cropping, within 0.01 to 100."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Crops of each role a step, of all micro-batches and processes together."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Micro-batches that the crops of a step are divided into, one after the other; each weighs the
    same, and BatchNorm sees one at a time."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """Length of the training; 40,000 where `epochs` is not written either."""
    epochs: Annotated[int, Field(ge=1)] | None = None
    """Length of the training instead of `steps`. An epoch is as many full batches as there are
    unlabeled images (OOD ones where only these are learned from, labeled ones where no others)."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD has momentum 0.9."""
    learning_rate: Positive = 0.001
    """Base rate; decays polynomially."""
    encoder_multiplier: Positive = 1.0
    """The encoder's rate over the base rate."""
    decoder_multiplier: Positive = 10.0
    """The decoder's rate over the base rate."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The rate of one of the encoder's transformer blocks over that of the block after it."""
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
    """On all parameters, but see `decay_encoder_norms`."""
    decay_encoder_norms: bool = True
    """Whether the encoder's normalization layers have weight decay too."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the averaged weights, which are the ones evaluated."""
    freeze_encoder: bool = False
    """Whether the encoder stays as it was pretrained: its weights and its BatchNorm statistics."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the network computes in while training (autocast; weights stay float32; float16 with a
    scaled loss). A CPU without bfloat16 arithmetic is slower with it."""
    clip_norm: Positive | None = None
    """Largest norm of the gradient of all weights together; a longer one is scaled to it."""
    compile: Annotated[bool, RunOnly] = False
    """Whether torch compiles the network first; equal up to rounding, as of a device."""
    validate_every: Annotated[int, Field(ge=1)] | Literal["epoch"] | None = None
    """Steps, or an epoch, between scores on val while the training goes on; the averaged weights
    with the best are kept and evaluated too. null = never."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), RunOnly] = (0,)
    """A training each; of everything random. One more makes nothing else stale: the facts of a
    training hold its own seed."""
    checkpoint_every: Annotated[int, Field(ge=1), RunOnly] = 100
    """Steps between checkpoints: what a kill can cost."""
    log_every: Annotated[int, Field(ge=1)] = 50
    """Steps between rows of metrics."""
    pictures_every: Annotated[int, Field(ge=1), RunOnly] = 500
    """Steps between pictures of crops and their labels for TensorBoard."""
    workers: Annotated[int, Field(ge=1), RunOnly] = 2
    """Threads that read and crop ahead."""
    device: Annotated[str, RunOnly] = "auto"
    """cpu, cuda, or auto: a GPU where there is one."""

    @model_validator(mode="before")
    @classmethod
    def _has_a_length(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        written = [key for key in presets.LENGTHS if values.get(key) is not None]
        if len(written) > 1:
            raise ValueError("write `steps` or `epochs`, not both; null takes one back")
        return values if written else {**values, "steps": DEFAULT_STEPS}

    @field_validator("preset")
    @classmethod
    def _is_a_preset(cls, preset: str | None) -> object:
        if preset is not None and preset not in presets.names():
            raise ValueError(f"use one of: {', '.join(presets.names())}")
        return preset

    @field_validator("dataset")
    @classmethod
    def _is_one_of_the_presets(cls, dataset: str | None, info: ValidationInfo) -> object:
        if dataset is None or "preset" not in info.data:
            return dataset
        preset = info.data["preset"]
        if preset is None:
            raise ValueError("name the `preset` whose values for it to take")
        if dataset not in (known := presets.datasets(preset)):
            raise ValueError(
                f"{preset} has values for {', '.join(known)}; use one of these, or leave it out"
            )
        return dataset

    @model_validator(mode="after")
    def _has_others_to_tell_from(self) -> VariantConfig:
        if self.feature_discriminator is not None and not self.label_sources:
            raise ValueError("`feature_discriminator` needs `label_sources`, whose images it sees")
        return self

    @model_validator(mode="after")
    def _validates_for_its_sources(self) -> VariantConfig:
        for choice in self.label_sources:
            if choice.component.needs_validation and self.validate_every is None:
                raise ValueError(
                    f"the label source `{choice.name}` has no labels before a validation; "
                    "set `validate_every` to a number of steps, or to epoch"
                )
        return self

    @model_validator(mode="after")
    def _divides_its_batch(self) -> VariantConfig:
        if self.batch_size % self.accumulate:
            raise ValueError(f"`batch_size` {self.batch_size} is no multiple of `accumulate`")
        least = self.perturbation.component.least_crops
        if self.label_sources and self.batch_size < least * self.accumulate:
            raise ValueError(
                f"{self.perturbation.name} pastes one crop of a micro-batch into another; "
                f"set `batch_size` to at least {least * self.accumulate}"
            )
        return self

    @field_validator("label_sources")
    @classmethod
    def _have_a_name_each(cls, sources: tuple[Choice[LabelSource], ...]) -> object:
        names = [choice.create().name for choice in sources]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two are {name}, and so are their losses; keep one of them")
        return sources

    @field_validator("seeds")
    @classmethod
    def _differ(cls, seeds: tuple[int, ...]) -> object:
        for seed in seeds:
            if seeds.count(seed) > 1:
                raise ValueError(f"{seed} stands there twice, and would train the same network")
        return seeds

    @field_validator("scale")
    @classmethod
    def _ascends(cls, scale: tuple[float, float]) -> object:
        if scale[0] > scale[1]:
            raise ValueError("write [least, most]")
        return scale

    @property
    def sources(self) -> tuple[LabelSourceConfig, ...]:
        """The keys of each label source."""
        configs = [choice.config for choice in self.label_sources]
        return tuple(config for config in configs if isinstance(config, LabelSourceConfig))

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles whose images the label sources label; unlabeled first, ood after."""
        on = {source.on for source in self.sources}
        return tuple(role for role in ("unlabeled", "ood") if role in on)

    @property
    def micro_batch_size(self) -> int:
        """Crops of each role in a micro-batch, of all processes together."""
        return self.batch_size // self.accumulate

    def labelers(self, role: str) -> list[str]:
        """The labelers whose stored labels of a role's images it reads."""
        sources = [choice.create() for choice in self.label_sources]
        return [
            source.labeler
            for source in sources
            if source.labeler is not None and source.config.on == role
        ]

    def facts(self, prefix: str) -> Facts:
        """See `Section.facts`; the model's pretrained weights are part of it."""
        weights = self.model.create().weights_facts()
        own = {f"{prefix}.model.{key}": value for key, value in weights.items()}
        return super().facts(prefix) | own


class TrainConfig(Section):
    """The section after the keys next to `variants` were filled into each variant."""

    variants: dict[Name, VariantConfig] = Field(min_length=1)
    """Trainings by name."""

    @field_validator("variants")
    @classmethod
    def _have_a_title_each(cls, variants: dict[str, VariantConfig]) -> object:
        titles = [variant.title or name for name, variant in variants.items()]
        for title in titles:
            if titles.count(title) > 1:
                raise ValueError(f"two are {title!r} in tables; give each its own `title`")
        return variants

    @model_validator(mode="before")
    @classmethod
    def _fill_variants(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        base = _base(values)
        variants = values.get("variants") or {"default": {}}
        if not isinstance(variants, dict):
            return {"variants": variants}
        laid = {name: presets.overridden(base, own) for name, own in variants.items()}
        return {"variants": {name: presets.expanded(keys) for name, keys in laid.items()}}

    @classmethod
    def written_at(cls, values: Any, place: Place) -> Written:
        """See `Section.written_at`: in a variant, next to `variants`, or in a preset."""
        if place[:1] != ("variants",) or not place[1:] or not isinstance(values, dict):
            return Written(place)
        variants, base = values.get("variants") or {}, _base(values)
        name, rest = place[1], place[2:]
        own = {} if variants.get(name) is None else variants[name]
        keys = presets.overridden(base, own)
        layer, depth = reach([own, base, *presets.layers(keys)], rest)
        if layer == 0 and name in variants and (depth or not rest):
            return Written(place)
        return Written(rest, f"from the preset {keys['preset']}" if layer > 1 else "")


def _base(values: dict[str, Any]) -> dict[str, Any]:
    """The keys that count for every variant."""
    return {key: value for key, value in values.items() if key != "variants"}
