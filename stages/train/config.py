"""The section `train`: the keys of a training, and the variants to compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo

from pipeline.config.components import Choice, chosen_from
from pipeline.config.config_section import Facts, Name, RunOnly, Section, UnlessDefault
from pipeline.config.origins import Place, Written, reach
from pipeline.config.plain_words import Unit
from stages.models.segmenters.builders.base import ModelChoice
from stages.models.segmenters.protocol import Protocol
from stages.train import preset as presets
from stages.train.step.label_sources.base import LabelSource, LabelSourceConfig
from stages.train.step.perturbations.base import Perturbation
from stages.train.step.schedule import Length
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
    """Learning rate of the discriminator's own Adam."""

    def facts(self, prefix: str) -> Facts:
        """See `Section.facts`; 2: it moves once a step, not once a micro-batch."""
        return {**super().facts(prefix), f"{prefix}.version": 2}


DEFAULT_STEPS = 40_000


class VariantConfig(Section):
    """One way to train, once a seed."""

    preset: Annotated[str | None, RunOnly] = None
    """A published training of stages/train/presets, whose keys apply where the config has none.
    Mappings are merged, lists replaced. Facts hold the keys, not the name."""
    dataset: Annotated[str | None, RunOnly] = None
    """The dataset whose values in the preset to use; default: those at the top of its file."""
    title: Annotated[str, RunOnly] = ""
    """Its title in tables; default: the variant's name."""
    model: ModelChoice
    """The network."""
    perturbation: PerturbationChoice
    """The strong views and their losses."""
    label_sources: tuple[LabelSourceChoice, ...] = ()
    """The label sources of images without hand-made labels; none = supervised training."""
    supervised_loss: SupervisedLossChoice = Field("cross_entropy", validate_default=True)
    """The loss of labeled crops."""
    feature_discriminator: DiscriminatorConfig | None = None
    """A discriminator that aligns features of labeled and other crops (SUFD)."""
    crop_px: Annotated[int, Field(ge=16, le=8192)] = 321
    """Side of the training crops."""
    scale: tuple[Resize, Resize] = (0.5, 2.0)
    """Bounds of the random resize before cropping, within 0.01 to 100."""
    short_side_px: Annotated[Annotated[int, Field(ge=16, le=8192)] | None, UnlessDefault] = None
    """Length of an image's short side at scale 1; null = its own length. The long side is at most
    four times as long."""
    mirror: Annotated[bool, UnlessDefault] = True
    """Whether every second crop is mirrored."""
    batch_size: Annotated[int, Field(ge=1, le=65536), Unit("crops")] = 8
    """Crops of each role a step, of all micro-batches and processes together."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Number of micro-batches of a step, run one after the other with equal weights; BatchNorm sees
    one at a time."""
    steps: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """Length of the training; 40,000 where `epochs` is not written either."""
    epochs: Annotated[int, Field(ge=1, le=10**6)] | None = None
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
    """Whether to freeze the encoder's weights and BatchNorm statistics."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of training (autocast; weights stay float32; float16 scales the loss). On a CPU
    without bfloat16 arithmetic, bfloat16 is slower."""
    clip_norm: Positive | None = None
    """Largest norm of the gradient of all weights together; larger ones are scaled down to it."""
    compile: Annotated[bool, RunOnly] = False
    """Whether torch compiles the network first; changes results only by rounding."""
    validate_every: Annotated[int, Field(ge=1)] | Literal["epoch"] | None = None
    """Steps, or an epoch, between scores on val during training; the averaged weights with the best
    score are kept and evaluated too. null = never."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1), RunOnly] = (0,)
    """Seeds of all random numbers, one training each. A new seed makes no other training stale."""
    checkpoint_every: Annotated[int, Field(ge=1), RunOnly] = 100
    """Steps between checkpoints; a kill loses at most so many."""
    log_every: Annotated[int, Field(ge=1)] = 50
    """Steps between rows of metrics. The rows are output of the training, so another number trains
    again."""
    pictures_every: Annotated[int, Field(ge=1), RunOnly] = 500
    """Steps between pictures of crops and their labels for TensorBoard."""
    workers: Annotated[int, Field(ge=1, le=1024), RunOnly, Unit("threads")] = 2
    """Threads that read and crop ahead."""
    device: Annotated[str, RunOnly] = "auto"
    """cpu, cuda, mps, or auto: a GPU where there is one."""

    @model_validator(mode="before")
    @classmethod
    def _has_a_length(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        written = [key for key in presets.LENGTHS if values.get(key) is not None]
        if len(written) > 1:
            raise ValueError("write `steps` or `epochs`, not both; null resets a key")
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
            raise ValueError("set `preset` too: `dataset` selects among its values")
        if dataset not in (known := presets.datasets(preset)):
            raise ValueError(
                f"{preset} has values for {', '.join(known)}; use one of these, or leave it out"
            )
        return dataset

    @model_validator(mode="after")
    def _has_others_to_tell_from(self) -> VariantConfig:
        if self.feature_discriminator is not None and not self.label_sources:
            raise ValueError(
                "`feature_discriminator` needs `label_sources`: it compares both crops"
            )
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
            raise ValueError(f"`batch_size` {self.batch_size} is not a multiple of `accumulate`")
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
                raise ValueError(f"two sources are named {name}; keep one of them")
        return sources

    @field_validator("seeds")
    @classmethod
    def _differ(cls, seeds: tuple[int, ...]) -> object:
        for seed in seeds:
            if seeds.count(seed) > 1:
                raise ValueError(f"{seed} is listed twice; remove one")
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
    def length(self) -> Length:
        """Its length, as far as the config tells it."""
        return Length(self.steps, self.epochs, self.validate_every)

    @property
    def micro_batch_size(self) -> int:
        """Crops of each role in a micro-batch, of all processes together."""
        return self.batch_size // self.accumulate

    @property
    def published_protocol(self) -> Protocol | None:
        """How images are predicted in the paper of its preset; None if that is unknown."""
        keys = presets.protocol(self.preset, self.dataset)
        return None if keys is None else Protocol.model_validate(keys)

    def labelers(self, role: str) -> list[str]:
        """The labelers whose stored labels of a role's images it reads."""
        sources = [choice.create() for choice in self.label_sources]
        own = [source.labeler for source in sources if source.config.on == role]
        return [labeler for labeler in own if labeler is not None]

    def facts(self, prefix: str) -> Facts:
        """See `Section.facts`; the model's pretrained weights are part of it."""
        weights = self.model.create().weights_facts()
        own = {f"{prefix}.model.{key}": value for key, value in weights.items()}
        return super().facts(prefix) | own


class TrainConfig(Section):
    """The section, with the keys next to `variants` copied into each variant."""

    variants: dict[Name, VariantConfig] = Field(min_length=1)
    """Trainings by name. Each has the keys of this section, over those next to `variants`."""

    @field_validator("variants")
    @classmethod
    def _have_a_title_each(cls, variants: dict[str, VariantConfig]) -> object:
        titles = [variant.title or name for name, variant in variants.items()]
        for title in titles:
            if titles.count(title) > 1:
                raise ValueError(
                    f"two variants have the title {title!r} in tables; give each its own `title`"
                )
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
    def written_fields(cls) -> Mapping[str, FieldInfo]:
        """See `Section.written_fields`: keys of variants may stand next to `variants`."""
        variants = FieldInfo.from_annotated_attribute(dict[Name, VariantConfig], {})
        return {"variants": variants, **VariantConfig.model_fields}

    @classmethod
    def written_in(cls) -> tuple[type[Section], ...]:
        """See `Section.written_in`."""
        return (VariantConfig,)

    @classmethod
    def is_repeated(cls, key: str) -> bool:
        """See `Section.is_repeated`."""
        return key == "variants"

    def places(self, place: Place) -> list[Place]:
        """See `Section.places`: a key next to `variants` is one of each."""
        if place[:1] == ("variants",):
            return [place]
        return [("variants", name, *place) for name in self.variants]

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
    """The keys that apply to every variant."""
    return {key: value for key, value in values.items() if key != "variants"}
