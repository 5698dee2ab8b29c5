"""Published recipes end to end: labels from given cosines."""

import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from pipeline.config import config as config_file
from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import ConfigError
from pipeline.images import images
from stages.graph import GRAPH
from stages.labels.pseudo_labels import PseudoLabels
from stages.models.clip.clip import Clip, load_clip
from stages.models.clip.clip_weights import ClipConfig
from stages.models.clip.text import Channels, channels
from stages.pseudolabel.config import PseudolabelConfig
from stages.pseudolabel.inputs import LabelerInput, batch_of
from stages.pseudolabel.labelers.base import ImageBatch
from stages.pseudolabel.labelers.dense_clip import DenseClip
from stages.pseudolabel.labelers.sed import SedConfig
from stages.pseudolabel.pixels.windows import corners
from stages.sandbox.world.world import render

CPU = torch.device("cpu")
CONFIGS = Path(__file__).parents[2] / "configs"
BuildVocabulary = Callable[..., Vocabulary]


@pytest.fixture
def folder(clip_folder: Callable[[str], Path]) -> Path:
    return clip_folder("vit")


@pytest.fixture
def label(folder: Path, vocabulary: BuildVocabulary) -> Callable[..., PseudoLabels]:
    """Labels an image of noise, seen as one window: ``label(classes, variant="sclip")``."""

    def build(classes: dict[str, Any], **keys: Any) -> PseudoLabels:
        own = {"model": f"local-dir:{folder}", "window_px": 32, "stride_px": 32, **keys}
        labeler = DenseClip(ClipConfig.model_validate(own), vocabulary(**classes))
        labeler.load(CPU)
        return labeler.label(ImageBatch(noise(), ((32, 32),)))

    return build


def noise() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (1, 3, 32, 32), generator=generator).to(torch.uint8)


def cosines(folder: Path, variant: Any, *names: str) -> Tensor:
    """(K, 32, 32), brought to the window's size."""
    weights = folder / "open_clip_model.safetensors"
    dense = ClipConfig(model="sandbox", window_px=32, stride_px=32, variant=variant).dense
    clip = load_clip(folder, weights, window_px=32, device=CPU, dense=dense)
    features = clip.dense_features(clip.normalize(noise()), dense)
    texts = clip.encode_text([f"a photo of a {name}" for name in names])
    coarse = torch.einsum("bdhw,kd->bkhw", features, texts)
    return interpolate(coarse, (32, 32), mode="bilinear")[0]


CLASSES: dict[str, Any] = {
    "ground": ["grass", "road"],
    "cat": ["cat", "kitten"],
    "dog": ["dog"],
    "background": "ground",
}


@pytest.mark.parametrize("variant", ["vanilla", "maskclip", "sclip", "gem"])
def test_sclip_shares_probability_among_concepts(
    label: Callable[..., PseudoLabels], folder: Path, variant: str
) -> None:
    """Softmax over queries, then the best of a class's, as SCLIP does."""
    labels = label(CLASSES, variant=variant, softmax_over="concepts", logit_scale=65.0)
    shares = (65 * cosines(folder, variant, "grass", "road", "cat", "kitten", "dog")).softmax(0)
    expected = torch.stack([shares[:2].amax(0), shares[2:4].amax(0), shares[4]])
    confidence, mask = expected.max(0)
    torch.testing.assert_close(labels.confidence[0], confidence, rtol=1e-3, atol=1e-4)
    assert (labels.mask[0] == mask).float().mean() > 0.99  # but for ties


def test_semivl_shares_probability_among_classes(
    label: Callable[..., PseudoLabels], folder: Path
) -> None:
    """The best concept of a class, then the softmax: concept-max before it, as SemiVL does."""
    labels = label({"dog": ["dog"], "cat": ["cat"]}, logit_scale=100.0)
    expected = (100 * cosines(folder, "maskclip", "dog", "cat")).softmax(0).amax(0)
    torch.testing.assert_close(labels.confidence[0], expected, rtol=1e-3, atol=1e-4)


def test_the_thresholds_of_a_config_count(label: Callable[..., PseudoLabels]) -> None:
    keys = {"softmax_over": "concepts", "variant": "sclip", "logit_scale": 65.0}
    plain = label(CLASSES, **keys)
    middle = float(plain.confidence.median())
    background = label(CLASSES, prob_threshold=middle, **keys)
    assert torch.equal(background.mask, plain.mask.where(plain.confidence >= middle, 0))
    areas = [int((plain.mask == value).sum()) for value in (1, 2)]
    smaller = 1 + areas.index(min(areas))
    share = (min(areas) + 0.5) / sum(areas)
    without = label(CLASSES, area_threshold=share, **keys)
    assert smaller in plain.mask
    assert smaller not in without.mask
    kept = plain.mask != smaller
    assert torch.equal(without.mask[kept], plain.mask[kept])


def test_logits_are_averaged_and_resized_before_the_softmax(
    label: Callable[..., PseudoLabels], folder: Path, vocabulary: BuildVocabulary
) -> None:
    keys = {"model": f"local-dir:{folder}", "window_px": 16, "stride_px": 8, "short_side_px": 24}
    labeler = DenseClip(ClipConfig.model_validate(keys), vocabulary(cat=None, dog=None))
    labeler.load(CPU)
    small = interpolate(labeler._clip.normalize(noise()), (24, 24), mode="bilinear", antialias=True)
    texts = labeler._clip.encode_text(["a photo of a cat", "a photo of a dog"])
    total, count = torch.zeros(1, 2, 24, 24), torch.zeros(24, 24)
    for top, left in corners(24, 24, 16, 8):
        window = small[..., top : top + 16, left : left + 16]
        coarse = torch.einsum("bdhw,kd->bkhw", labeler._clip.dense_features(window), texts)
        total[..., top : top + 16, left : left + 16] += interpolate(
            coarse, (16, 16), mode="bilinear"
        )
        count[top : top + 16, left : left + 16] += 1
    logits = interpolate(total / count, (32, 32), mode="bilinear") * labeler._clip.logit_scale
    labels = labeler.label(ImageBatch(noise(), ((32, 32),)))
    torch.testing.assert_close(labels.confidence, logits.softmax(1).amax(1), rtol=1e-4, atol=1e-5)


def test_what_the_documentation_shows_can_be_written() -> None:
    text = (CONFIGS.parent / "docs/labels.md").read_text(encoding="utf-8")
    vocabulary, recipes, compared, seds, others, trained = (
        yaml.safe_load(textwrap.dedent(block))
        for block in re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    )
    assert Vocabulary.model_validate(vocabulary).classes[2].asked == (("tv", "monitor", "screen"),)
    for name, recipe in recipes.items():
        assert recipe.pop("name") == "dense_clip"
        assert ClipConfig.model_validate(recipe).variant == name
    smooth, rough = (ClipConfig.model_validate(without_name(each)) for each in compared.values())
    assert {smooth.resize, rough.resize} == {"opencv", "bilinear"}
    assert smooth.model_copy(update={"resize": "opencv"}) == rough.model_copy(
        update={"resize": "opencv"}
    )
    for recipe in seds.values():
        assert recipe.pop("name") == "sed"
        SedConfig.model_validate(recipe)
    assert set(seds) == {"sed-l", "sed-b"}
    labelers = PseudolabelConfig.model_validate({"labelers": others}).labelers
    found = {choice.name for choice in labelers.values()}
    assert found == {"ensemble", "segmenter", "hf", "sam_clip"}
    assert trained.keys() == {"label_sources"}  # tests/train/test_calibrated.py trains so


def without_name(keys: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if key != "name"}


PUBLISHED = {
    "sclip": {
        **{"short_side_px": 336, "long_side_px": 2048, "resize": "opencv", "fit": "shape"},
        **{"window_px": 224, "stride_px": 112, "softmax_over": "concepts", "logit_scale": 65},
        **{"prob_threshold": 0.1, "area_threshold": 0.1, "maps": "cosine", "variant": "sclip"},
    },
    "gem": {
        **{"short_side_px": 448, "fit": "square", "resize": "bicubic", "maps": "min-max"},
        **{"window_px": 448, "stride_px": 448, "logit_scale": 1, "variant": "gem"},
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_documentation_s_recipes_have_the_published_values(name: str) -> None:
    text = (CONFIGS.parent / "docs/labels.md").read_text(encoding="utf-8")
    _, block, *_ = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    config = ClipConfig.model_validate(without_name(yaml.safe_load(textwrap.dedent(block))[name]))
    assert {key: getattr(config, key) for key in PUBLISHED[name]} == PUBLISHED[name]


def test_a_prompt_axis_is_nothing_for_dense_features(vocabulary: BuildVocabulary) -> None:
    labeler = DenseClip(
        ClipConfig(model="sandbox", window_px=96, stride_px=48),
        vocabulary(cat=None, prompts="stack-80"),
    )
    for ask in (labeler.vocabulary_facts, lambda: labeler.load(CPU)):
        with pytest.raises(ConfigError) as raised:
            ask()
        assert str(raised.value) == (
            "vocabulary test: CLIP labelers do not support `prompts: stack-80`; "
            "use `prompts: mean-80`"
        )


@pytest.mark.parametrize("keys", [{"residual": False}, {"ffn": False}])
def test_gem_has_no_last_block_to_do_without(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="leave out `residual` and `ffn`: gem adds up blocks"):
        ClipConfig(model="sandbox", window_px=96, stride_px=48, variant="gem", **keys)


def test_what_changes_labels_is_a_fact_and_what_does_not_is_none() -> None:
    facts = ClipConfig(model="sandbox", window_px=96, stride_px=48).facts("x")
    new = ("variant", "residual", "ffn", "softmax_over", "prob_threshold", "area_threshold")
    assert {f"x.{key}" for key in (*new, "precision")} <= facts.keys()
    assert not {"x.compile", "x.batch_size"} & facts.keys()


def test_half_precision_labels_almost_as_float32_does(
    label: Callable[..., PseudoLabels],
) -> None:
    whole, half = (label(CLASSES, precision=kind) for kind in ("float32", "bfloat16"))
    assert (whole.mask == half.mask).float().mean() > 0.9
    torch.testing.assert_close(whole.confidence, half.confidence, atol=0.05, rtol=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself
@pytest.mark.parametrize("variant", ["maskclip", "gem"])
def test_compiled_labels_are_the_same_up_to_rounding(
    label: Callable[..., PseudoLabels], variant: str
) -> None:
    plain, compiled = (label(CLASSES, variant=variant, compile=on) for on in (False, True))
    assert (plain.mask == compiled.mask).float().mean() > 0.99
    torch.testing.assert_close(plain.confidence, compiled.confidence, atol=1e-4, rtol=0)


def test_the_sandboxs_labels_are_what_they_were() -> None:
    """The default config's labels, by the formula from before the variants."""
    sections = {stage.name: stage.Config for stage in GRAPH}
    config = config_file.load(CONFIGS / "sandbox.yaml", sections, [])
    section = config.sections["pseudolabel"]
    assert isinstance(section, PseudolabelConfig)
    labeler = section.labelers["dense_clip"].create(config.vocabulary)
    assert isinstance(labeler, DenseClip)
    labeler.load(CPU)
    found = channels(config.vocabulary)
    scenes = [images.fit(render("web", 7, index).image, section.size_px) for index in range(3)]
    labels = labeler.label(batch_of([LabelerInput(pixels) for pixels in scenes], section.size_px))
    texts = mean_of_templates(labeler._clip, config.vocabulary.templates, found)
    for index, pixels in enumerate(scenes):
        height, width = pixels.shape[:2]
        image = labeler._clip.normalize(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
        probabilities = formerly(labeler._clip, image, texts, found)
        best, second = probabilities.topk(2, dim=0).values
        values = torch.tensor(found.values)[probabilities.argmax(0)]
        mask = labels.mask[index, :height, :width]
        confidence = labels.confidence[index, :height, :width]
        sure = best - second > 1e-4
        assert sure.float().mean() > 0.99
        assert torch.equal(mask[sure], values[sure])
        torch.testing.assert_close(confidence, best, atol=1e-5, rtol=0)


def mean_of_templates(clip: Clip, templates: tuple[str, ...], found: Channels) -> Tensor:
    prompts = [t.replace("{}", name) for [name] in found.queries for t in templates]
    each = clip.encode_text(prompts).reshape(len(found.queries), len(templates), -1)
    return normalize(each.mean(1), dim=-1)


def formerly(clip: Clip, image: Tensor, texts: Tensor, found: Channels) -> Tensor:
    """(C, H, W) probabilities of windows of 96 px at a stride of 48."""
    height, width = image.shape[1:]
    scores = torch.zeros(len(found.members), height, width)
    count = torch.zeros(height, width)
    for top, left in corners(height, width, 96, 48):
        cut = image[:, top : top + 96, left : left + 96]
        pad = (0, 96 - cut.shape[2], 0, 96 - cut.shape[1])
        window = torch.nn.functional.pad(cut[None], pad, mode="replicate")
        trunk, head = clip.network.visual.trunk, clip.network.visual.head
        maps = trunk.forward_features(window)[0]
        places = maps.flatten(1).T[..., None, None]
        features = normalize(head(trunk.forward_head(places)), dim=-1)
        own = (features @ texts.T).T.reshape(-1, *maps.shape[1:])
        best = torch.stack([own[list(members)].amax(0) for members in found.members])
        fine = interpolate(best[None], (96, 96), mode="bilinear")[0]
        inside = (slice(top, top + cut.shape[1]), slice(left, left + cut.shape[2]))
        scores[:, *inside] += fine[:, : cut.shape[1], : cut.shape[2]]
        count[inside] += 1
    return (clip.logit_scale * scores / count).softmax(0)
