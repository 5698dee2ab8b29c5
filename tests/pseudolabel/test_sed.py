"""The labeler `sed`: its keys, its checkpoints, and how scores become labels."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import WeightsError
from stages.pseudolabel.labelers.base import ImageBatch
from stages.pseudolabel.labelers.sed import Sed, SedConfig
from stages.pseudolabel.sed import network
from stages.pseudolabel.sed.checkpoint import PREFIX, build, load_sed

CPU = torch.device("cpu")
BuildVocabulary = Callable[..., Vocabulary]
Build = Callable[..., Sed]
LARGE = "https://drive.google.com/file/d/1zAXE0QXy47n0cVn7j_2cSR85eqxdDGg8/view"
BASE = "https://drive.google.com/file/d/1qx6zGZgSPkF6TObregRz4uzQqSRHrgUw/view"


@pytest.fixture
def loaded(sed_checkpoint: Path, vocabulary: BuildVocabulary) -> Build:
    """A loaded labeler: ``loaded(vocabulary_keys, mode="fast")``."""

    def build(classes: dict[str, Any], **keys: Any) -> Sed:
        model = f"local-dir:{sed_checkpoint.parent}"
        given = {"model": model, "weights": str(sed_checkpoint), "input_px": 64, **keys}
        labeler = Sed(SedConfig.model_validate(given), vocabulary(**classes))
        labeler.load(CPU)
        return labeler

    return build


def batch_of(*sizes: tuple[int, int], canvas: int = 64) -> ImageBatch:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.zeros(len(sizes), 3, canvas, canvas, dtype=torch.uint8)
    for image, (height, width) in zip(pixels, sizes, strict=True):
        noise = torch.randint(0, 256, (3, height, width), generator=generator)
        image[:, :height, :width] = noise.to(torch.uint8)
    return ImageBatch(pixels, sizes)


def many(count: int) -> dict[str, Any]:
    return {f"class {number}": [f"{number}"] for number in range(count)}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"model": "ViT-B-16"},
            "no SED was published for 'ViT-B-16'; use convnext_large_d_320 (SED-L), "
            "convnext_base_w_320 (SED-B), or local-dir:FOLDER",
        ),
        ({"input_px": 100}, "multiple of 32"),
        ({"topk": 0}, "greater than or equal to 1"),
        ({"mode": "faster"}, "'normal' or 'fast'"),
        ({"window_px": 224}, "use one of: input_px, mode, model, threshold, topk, weights"),
    ],
)
def test_a_wrong_key_is_told(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        SedConfig(**{"model": "convnext_base_w_320", "weights": "sed.pth", **keys})
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("model", "what"),
    [
        ("convnext_large_d_320", f"SED (L) from {LARGE}"),
        ("convnext_base_w_320", f"SED (B) from {BASE}"),
        ("local-dir:nowhere", "a SED checkpoint of that model"),
    ],
)
def test_a_missing_file_says_which_to_get_and_where_to_put_it(
    vocabulary: BuildVocabulary,
    model: str,
    what: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    labeler = Sed(SedConfig(model=model, weights="weights/sed.pth"), vocabulary(cat=None))
    for ask in (labeler.weights_facts, lambda: labeler.load(CPU)):
        with pytest.raises(WeightsError) as raised:
            ask()
        assert str(raised.value) == (
            f"weights: weights/sed.pth: there is no such file; download {what} and save it there"
        )


def test_a_folder_that_is_none_is_told(
    vocabulary: BuildVocabulary, sed_checkpoint: Path, tmp_path: Path
) -> None:
    config = SedConfig(model=f"local-dir:{tmp_path}", weights=str(sed_checkpoint))
    with pytest.raises(WeightsError) as raised:
        Sed(config, vocabulary(cat=None)).load(CPU)
    assert str(raised.value) == (
        f"model: local-dir:{tmp_path}: the folder has no open_clip_config.json; save it there"
    )


@pytest.fixture
def tensors(sed_checkpoint: Path) -> dict[str, Tensor]:
    read: dict[str, Tensor] = torch.load(sed_checkpoint, weights_only=True)["model"]
    return read


Change = Callable[[dict[str, Tensor]], object]


@pytest.mark.parametrize(
    ("change", "message", "fix"),
    [
        (
            lambda tensors: tensors.pop(f"{PREFIX}transformer.head.bias"),
            "1 tensors missing, such as transformer.head.bias",
            "use a SED checkpoint",
        ),
        (
            lambda tensors: tensors.update(pixel_mean=torch.zeros(3)),
            "1 tensors unknown, such as pixel_mean",
            "use a SED checkpoint",
        ),
        (
            lambda tensors: tensors.update(
                {f"{PREFIX}clip_model.visual.trunk.stem.0.weight": torch.zeros(192, 3, 4, 4)}
            ),
            "1 tensors with the wrong shape, such as clip_model.visual.trunk.stem.0.weight",
            "set `model: convnext_large_d_320`",
        ),
    ],
)
def test_a_checkpoint_must_fit_in_every_tensor(
    sed_checkpoint: Path,
    tensors: dict[str, Tensor],
    change: Change,
    message: str,
    fix: str,
    tmp_path: Path,
) -> None:
    change(tensors)
    weights, model = tmp_path / "other.pth", f"local-dir:{sed_checkpoint.parent}"
    torch.save({"model": tensors}, weights)
    with pytest.raises(WeightsError) as raised:
        load_sed(model, weights, CPU)
    assert str(raised.value) == (
        f"weights: {weights}: not a checkpoint of SED with {model}: {message}; {fix}"
    )


class Harmful:
    """Code that a pickle would run on loading."""

    def __reduce__(self) -> tuple[object, ...]:
        return print, ("harm",)


@pytest.mark.parametrize("damage", ["text", "cut", "pickle", "number", "list"])
def test_what_is_not_plain_tensors_is_one_line(
    sed_checkpoint: Path, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "sed.pth"
    if damage == "text":
        weights.write_text("<html>Google Drive: quota exceeded</html>")
    elif damage == "cut":
        weights.write_bytes(sed_checkpoint.read_bytes()[:100_000])
    else:
        what = {"pickle": Harmful(), "number": 3, "list": [torch.zeros(1)]}[damage]
        torch.save({"model": what}, weights)
    with pytest.raises(WeightsError) as raised:
        load_sed(f"local-dir:{sed_checkpoint.parent}", weights, CPU)
    line = str(raised.value)
    assert line.startswith(f"weights: {weights}: cannot be read as plain tensors: ")
    assert line.endswith(
        "; use an official checkpoint, or save the tensors of its `model` as .safetensors"
    )
    assert "\n" not in line
    assert "harm" not in capsys.readouterr().out


@pytest.mark.parametrize("form", ["bare", "safetensors", "half"])
def test_checkpoints_may_be_wrapped_or_not(
    sed_checkpoint: Path, tensors: dict[str, Tensor], form: str, tmp_path: Path
) -> None:
    model = f"local-dir:{sed_checkpoint.parent}"
    expected = load_sed(model, sed_checkpoint, CPU)[0].state_dict()
    if form == "safetensors":
        weights = tmp_path / "sed.safetensors"
        save_file(tensors, weights)
    else:
        weights = tmp_path / "sed.pth"
        halves = {name: tensor.half() for name, tensor in tensors.items()}
        torch.save(halves if form == "half" else tensors, weights)
    found = load_sed(model, weights, CPU)[0].state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == torch.float32
        own = tensors[f"{PREFIX}{name}"]
        assert torch.equal(tensor, own.half().float() if form == "half" else own)


def test_facts_are_checksums(vocabulary: BuildVocabulary, sed_checkpoint: Path) -> None:
    config = SedConfig(model=f"local-dir:{sed_checkpoint.parent}", weights=str(sed_checkpoint))
    facts = Sed(config, vocabulary(cat=None)).weights_facts()
    assert {key: str(value).split(":")[0] for key, value in facts.items()} == {
        "weights": "sed.pth sha256",
        "weights.config": "open_clip_config.json sha256",
    }


def test_how_a_vocabulary_asks_others_is_no_fact(vocabulary: BuildVocabulary) -> None:
    config = SedConfig(model="convnext_base_w_320", weights="sed.pth")
    asked = [
        Sed(config, vocabulary(cat=None, dog=["dog", "puppy"], **keys)).vocabulary_facts()
        for keys in ({}, {"prompts": "mean-80"}, {"templates": ["a {}"]})
    ]
    assert asked[0] == asked[1] == asked[2]
    assert asked[0]["vocabulary.concepts.dog"] == ["dog", "puppy"]


@pytest.mark.parametrize("mode", ["normal", "fast"])
def test_an_image_is_labeled_alike_to_the_last_bit_in_any_batch(loaded: Build, mode: str) -> None:
    labeler = loaded(many(9), mode=mode, topk=1)
    batch = batch_of((64, 64), (20, 64), (64, 1), (33, 64))
    together = labeler.label(batch)
    for index, size in enumerate(batch.sizes):
        alone = labeler.label(ImageBatch(batch.pixels[index : index + 1], (size,)))
        assert torch.equal(together.mask[index], alone.mask[0])
        assert torch.equal(together.confidence[index], alone.confidence[0])


def test_fast_mode_that_rejects_nothing_labels_as_normal_mode(loaded: Build) -> None:
    """`topk` of the number of classes, or more, rejects none."""
    batch = batch_of((64, 64), (20, 64))
    normal = loaded(many(6)).label(batch)
    for topk in (6, 20):
        fast = loaded(many(6), mode="fast", topk=topk).label(batch)
        assert torch.equal(fast.mask, normal.mask)
        assert torch.equal(fast.confidence, normal.confidence)


def test_classes_given_up_win_nothing(loaded: Build) -> None:
    batch = batch_of((64, 64))
    scores = next(loaded(many(9), mode="fast", topk=1).class_scores(batch))
    gone = (scores == 0).flatten(1).all(1)
    assert 0 < gone.sum() < 9
    mask = loaded(many(9), mode="fast", topk=1).label(batch).mask
    assert not gone[torch.unique(mask)].any()


def test_scores_are_resized_before_the_best_concept_counts(loaded: Build) -> None:
    """As in SemiOVS: the maximum over background channels, at the image's resolution."""
    classes = {
        "other": ["wall"],
        "cat": [["cat", "kitten"]],
        "background": "other",
        "background_concepts": ["sky", "sea"],
    }
    labeler = loaded(classes)
    batch = batch_of((40, 64))
    clip = labeler._clip
    templates = [one("{}") for one in open_clip.OPENAI_IMAGENET_TEMPLATES]

    def stack(name: str) -> Tensor:
        prompts = [template.format(name) for template in templates]
        return clip.encode_text(prompts)

    cat = F.normalize(stack("cat") + stack("kitten"), dim=-1)
    texts = torch.stack([stack("wall"), cat, stack("sky"), stack("sea")])
    shown = clip.normalize(network.fitted(batch.pixels[0, :, :40], 64))
    scores = labeler._network(shown, texts)
    assert scores.shape == (4, 16, 16)
    other, cat, sky, sea = F.interpolate(scores[None], (40, 64), mode="bilinear")[0]
    expected = torch.stack([torch.stack([other, sky, sea]).amax(0), cat])
    torch.testing.assert_close(next(labeler.class_scores(batch)), expected)
    labels = labeler.label(batch)
    torch.testing.assert_close(labels.confidence[0, :40], expected.amax(0))
    assert torch.equal(labels.mask[0, :40], expected.argmax(0))


def test_pixels_below_the_threshold_are_ignored(loaded: Build) -> None:
    batch = batch_of((64, 64))
    every = loaded(many(3)).label(batch)
    threshold = float(every.confidence.median())
    kept = loaded(many(3), threshold=threshold).label(batch)
    sure = every.confidence >= threshold
    assert 0 < sure.sum() < sure.numel()
    assert torch.equal(kept.mask, every.mask.where(sure, 255))
    assert torch.equal(kept.confidence, every.confidence.where(sure, 0))


@pytest.mark.slow
def test_a_checkpoint_of_the_full_size_labels(vocabulary: BuildVocabulary, tmp_path: Path) -> None:
    """SED-B as published, with random weights of 0.7 GB, at 768 pixels, in both modes."""
    torch.manual_seed(0)
    weights = tmp_path / "sed_b.pth"
    built = build("convnext_base_w_320")
    named = {f"{PREFIX}{name}": tensor for name, tensor in built.state_dict().items()}
    torch.save({"model": named, "iteration": 79999}, weights)
    del built, named
    batch = batch_of((48, 64))
    for mode in ("normal", "fast"):
        config = SedConfig(model="convnext_base_w_320", weights=str(weights), mode=mode, topk=1)
        labeler = Sed(config, vocabulary(cat=None, dog=None))
        labeler.load(CPU, tmp_path)
        mask = labeler.label(batch).mask[0]
        assert (mask[:48] < 2).all()
        assert (mask[48:] == 255).all()


def test_checking_a_config_takes_no_torch() -> None:
    code = (
        "import sys\n"
        "from pipeline.config.vocabulary import Vocabulary\n"
        "from stages.pseudolabel.labelers.sed import Sed\n"
        "keys = {'model': 'convnext_base_w_320', 'weights': 'sed.pth'}\n"
        "classes = [{'name': 'cat', 'color': '#000000'}]\n"
        "labeler = Sed(Sed.Config(**keys), Vocabulary(name='a', classes=classes))\n"
        "assert labeler.vocabulary_facts() and labeler.warnings() == []\n"
        "assert not {'torch', 'open_clip', 'timm'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
