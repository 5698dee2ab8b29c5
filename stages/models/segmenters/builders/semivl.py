"""SemiVL's network: a CLIP's ViT and a decoder guided by the names of the classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, JsonValue, TypeAdapter, model_validator

from pipeline.config.config_section import Facts
from pipeline.errors import ConfigError
from pipeline.files.config_paths import MaybePath
from stages.models.clip.clip_weights import FOLDER_PREFIX, ClipChoice, ModelName
from stages.models.segmenters.builders.base import Architecture, ModelBuilder
from stages.models.segmenters.normalization import OPENAI, Normalization
from stages.models.segmenters.pretrained import weights_facts

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.config.vocabulary import Vocabulary
    from stages.models.clip.clip import Clip
    from stages.models.segmenters.networks.base import SegmentationNetwork

_STEM = "resnet101c.gluon_in1k"
_STEM_WHERE = "model.conv_stem_weights"


class SemiVLConfig(ClipChoice):
    """Keys of the model `semivl`. Without any, the CLIP is OpenAI's ViT-B-16."""

    model: ModelName = "ViT-B-16"
    """An open_clip ViT (ViT-B-16), or local-dir:FOLDER in open_clip's layout."""
    image_px: Annotated[int, Field(ge=16, le=8192)] = 512
    """Side of the square crops that it is trained on: positions are learned for these."""
    text: Literal["single", "concept-avg"] = "single"
    """The text of a class: its name, or the mean of its concepts (Cityscapes)."""
    conv_stem: bool = False
    """Whether the first layers of a ResNet-101 give the finest features (Cityscapes)."""
    conv_stem_weights: MaybePath | None = "imagenet"
    """Theirs: imagenet, downloaded on first use; a file; null = random."""
    clip_normalization: bool = False
    """Whether the CLIP gets images normalized as in its own training (Cityscapes), and not by the
    mean and deviation of ImageNet as published elsewhere."""

    @model_validator(mode="before")
    @classmethod
    def _default_weights(cls, values: Any) -> Any:
        if isinstance(values, dict) and not {"model", "weights"} & values.keys():
            return {**values, "weights": "openai"}
        return values


class SemiVLModel(ModelBuilder):
    """Builds `networks.semivl.SemiVL`."""

    Config = SemiVLConfig
    version = 2
    config: SemiVLConfig

    def weights_facts(self) -> Facts:
        """See `ModelBuilder.weights_facts`."""
        facts = self.config.weights_facts()
        if self.config.conv_stem:
            stem = weights_facts(self.config.conv_stem_weights, _STEM_WHERE)
            facts["conv_stem_weights"] = stem["weights"]
        return facts

    def vocabulary_facts(self, vocabulary: Vocabulary) -> Facts:
        """Names and templates, and with `concept-avg` the concepts."""
        if self.config.text == "concept-avg":
            return vocabulary.prompt_facts()
        prompts: Facts = {"vocabulary.templates": list(vocabulary.templates)}
        if vocabulary.prompts is not None:
            prompts = {"vocabulary.prompts": vocabulary.prompts}
        return {**vocabulary.class_facts(), **prompts}

    def architecture(self) -> dict[str, JsonValue]:
        """The image side of the CLIP; see `ModelBuilder.architecture`."""
        from stages.models.clip.clip import tower_config

        own = self.config
        tower, statistics = tower_config(*own.chosen(), self._window_px(), own.normalization)
        found: dict[str, JsonValue] = {"clip": tower}
        if own.clip_normalization and statistics != OPENAI:
            found["statistics"] = {"mean": [*statistics.mean], "std": [*statistics.std]}
        return found

    def build(
        self, vocabulary: Vocabulary, *, architecture: Architecture | None = None
    ) -> SegmentationNetwork:
        """See `ModelBuilder.build`."""
        import torch
        from open_clip.transformer import VisionTransformer

        from stages.models.clip.clip import load_clip, untrained_tower
        from stages.models.segmenters.encoders import timm_encoder
        from stages.models.segmenters.networks.semivl import SemiVL

        own = self.config
        if architecture is None:
            model, weights = own.chosen()
            clip = load_clip(
                model,
                weights,
                window_px=self._window_px(),
                device=torch.device("cpu"),
                normalization=own.normalization,
            )
            visual, text = clip.network.visual, self._text(clip, vocabulary)
            read = visual.preprocess_cfg
            statistics = Normalization(tuple(read["mean"]), tuple(read["std"]))
        else:
            kept = architecture.get("statistics")
            statistics = TypeAdapter(Normalization).validate_python(kept) if kept else OPENAI
            tower = architecture["clip"]
            assert isinstance(tower, dict)
            visual = untrained_tower(tower)
            text = torch.zeros(vocabulary.num_classes, visual.output_dim)
        if not isinstance(visual, VisionTransformer) or visual.attn_pool is not None:
            what, fix = f"{own.model} is no ViT of open_clip's own", "use one such as ViT-B-16"
            raise ConfigError(what, where="model.model", fix=fix)
        stem = None
        if own.conv_stem:
            stem_weights = own.conv_stem_weights if architecture is None else None
            level = {"features_only": True, "out_indices": (1,)}
            stem = timm_encoder(_STEM, stem_weights, _STEM_WHERE, **level)
        return SemiVL(
            vocabulary.num_classes,
            visual,
            text,
            conv_stem=stem,
            clip_statistics=statistics if own.clip_normalization else None,
        )

    def _window_px(self) -> int:
        """Side of the squares that positions are learned for: a multiple of the patch."""
        from stages.models.clip.architectures import model_config
        from stages.models.segmenters.resizing import nearest_multiples

        own = self.config
        name = own.model if own.folder is None else f"{FOLDER_PREFIX}{own.folder}"
        patch_px = model_config(name)["vision_cfg"].get("patch_size", 1)
        side_px, _ = nearest_multiples((own.image_px, own.image_px), patch_px)
        return side_px

    def _text(self, clip: Clip, vocabulary: Vocabulary) -> Tensor:
        """(C, D) float32 of length 1, an embedding a class."""
        from stages.models.clip.text import Channels, embed, ensemble, templates_of

        def encode(prompts: Any) -> Tensor:
            return clip.encode_text(prompts, normalize=False)

        queries = tuple(self._names(vocabulary))
        each = tuple((position,) for position in range(len(queries)))
        channels = Channels(queries, each, tuple(range(len(queries))), averages_raw=True)
        return ensemble(embed(encode, channels, templates_of(vocabulary)))

    def _names(self, vocabulary: Vocabulary) -> list[tuple[str, ...]]:
        """The texts of each class, whose embeddings are averaged."""
        if self.config.text == "single":
            return [(name,) for name in vocabulary.class_names]
        asked = {entry.name: entry.asked for entry in vocabulary.classes}
        if vocabulary.background is not None:
            asked[vocabulary.background] += vocabulary.background_concepts
        return [
            tuple(name for names in concepts for name in names) or (class_name,)
            for class_name, concepts in asked.items()
        ]
