"""Text-prompted models of Hugging Face transformers: CLIPSeg, GroupViT and SAM 3."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from pipeline.config.config_section import Facts, Section
from pipeline.config.vocabulary_doubts import asked_for, doubts_of_texts
from pipeline.errors import ConfigError, WeightsError
from pipeline.files.checksum import checksum
from stages.models.clip.clip_weights import ModelName, model_folder
from stages.models.model_folder import files_of
from stages.pseudolabel.hub_commits import cached_commit, fetch_commit
from stages.pseudolabel.labelers.base import Labeler

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from pipeline.console import Console
    from stages.labels.pseudo_labels import PseudoLabels
    from stages.pseudolabel.labelers.base import ImageBatch

_Files = tuple[str, ...]
_NEEDED: tuple[tuple[_Files, ...], ...] = (
    (("config.json",),),
    (("model.safetensors",), ("pytorch_model.bin",)),
    (("preprocessor_config.json",), ("processor_config.json",)),
    (("tokenizer.json",), ("vocab.json", "merges.txt")),
)
"""Required files of a folder: one of the alternatives on each line."""


class HfConfig(Section):
    """Keys of the labeler `hf`."""

    model: ModelName
    """A repository of huggingface.co, downloaded on first use (CIDAS/clipseg-rd64-refined,
    nvidia/groupvit-gcc-yfcc, facebook/sam3), or local-dir:FOLDER, as `hf download` leaves it."""
    revision: str = "main"
    """Branch or commit of the repository."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Pixels whose best class is less probable are ignored."""
    prob_threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Pixels whose best class is less probable are background, or ignored if the vocabulary has no
    background. CLIPSeg and SAM 3 score each concept independently; 0.5 means as likely as not."""

    @property
    def folder(self) -> Path | None:
        """The model's folder, if it is not a repository."""
        return model_folder(self.model)


class Hf(Labeler):
    """Scores every concept at every pixel; a class has the probability of its best concept."""

    Config = HfConfig
    version = 2
    config: HfConfig
    libraries = ("torch", "transformers")

    @property
    def resizes(self) -> bool:
        """See `Labeler.resizes`."""
        return True

    def weights_facts(self) -> Facts:
        """See `Labeler.weights_facts`; for a folder, checksums of all files that may be read.

        The commit of a branch is no fact but a version (`versions`): it is not known before the
        first download.
        """
        folder = self.config.folder
        if folder is None:
            return {"weights": f"{self.config.model}@{self.config.revision}"}
        files = files_of(folder, weights=True) if folder.is_dir() else []
        there = {file.name for file in files}
        missing = [
            forms[0][0] for forms in _NEEDED if not any(set(form).issubset(there) for form in forms)
        ]
        if missing:
            what = f"there is no {', '.join(missing)}"
            fix = f"fetch a model with `hf download REPOSITORY --local-dir {folder}`"
            raise WeightsError(what, where=f"model: {self.config.model}", fix=fix)
        return {f"weights.{file.name}": checksum(file) for file in files}

    def versions(self) -> dict[str, str]:
        """See `Labeler.versions`: the commit of a repository's branch."""
        model, revision = self.config.model, self.config.revision
        if self.config.folder is not None or (commit := cached_commit(model, revision)) is None:
            return {}
        return {f"{model}@{revision}": commit}

    def fetch(self, console: Console) -> None:
        """See `Labeler.fetch`; the commit alone, of which `load` fetches the files."""
        if self.config.folder is None:
            fetch_commit(self.config.model, self.config.revision)

    def vocabulary_facts(self) -> Facts:
        """See `Labeler.vocabulary_facts`.

        Raises:
            ConfigError: No class has a concept.
        """
        return self.vocabulary.prompt_facts()

    def shows(self) -> frozenset[int]:
        """See `Labeler.shows`."""
        return asked_for(self.vocabulary, has_rest=True)

    def warnings(self) -> list[str]:
        """See `Labeler.warnings`: classes that cannot be told by their concepts."""
        return doubts_of_texts(self.vocabulary, has_rest=True)

    def check_packages(self) -> None:
        """See `Labeler.check_packages`."""
        if find_spec("transformers") is None:
            what = "the library transformers is not installed"
            fix = "run `pip install 'maskmill[hf]'`"
            raise ConfigError(what, where="name: hf", fix=fix)

    def load(self, device: torch.device, cache: Path | None = None) -> None:
        """See `Labeler.load`; embeddings of texts are not cached.

        Raises:
            ConfigError: transformers is not installed, or the model type is not supported.
        """
        self.check_packages()
        from stages.models.clip import text
        from stages.pseudolabel.transformers_models import load_model

        self.vocabulary_facts()  # both fail before the slow part
        self.weights_facts()
        self._channels = text.channels(self.vocabulary)
        revision = self.config.revision
        if self.config.folder is None:  # a branch may move while workers load it one by one
            revision = cached_commit(self.config.model, revision) or revision
        self._model = load_model(self.config.folder or self.config.model, revision)
        self._model.network.to(device)
        self._model.set_texts(self._channels, text.templates_of(self.vocabulary))

    def label(self, images: ImageBatch) -> PseudoLabels:
        """See `Labeler.label`; confidence is the probability of the class.

        Images are processed one by one, stretched to the model's square input.
        """
        import torch

        from stages.pseudolabel.pixels.classify_pixels import classify_pixels

        device = self._model.device
        values = torch.tensor(self._channels.values, device=device)
        labels = (
            classify_pixels(
                self._model.probabilities(images.original(index), size),
                values,
                self.vocabulary.background_id,
                threshold=self.config.threshold,
                prob_threshold=self.config.prob_threshold,
            )
            for index, size in enumerate(images.sizes)
        )
        return images.place(labels, device)
