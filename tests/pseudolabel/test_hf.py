"""The real model classes of transformers with random weights."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import ConfigError, WeightsError
from stages.labels.pseudo_labels import PseudoLabels
from stages.pseudolabel.labelers.base import ImageBatch
from stages.pseudolabel.labelers.hf import Hf, HfConfig

transformers: Any = pytest.importorskip("transformers", reason="needs the extra hf")

CPU = torch.device("cpu")
KINDS = ("clipseg", "groupvit", "sam3")
SIZE = (30, 48)
CLASSES: dict[str, Any] = {"cat": ["cat"], "dog": ["dog", ["puppy", "whelp"]]}
Load = Callable[..., Hf]


@pytest.fixture
def load(hf_folder: Callable[[str], Path], vocabulary: Callable[..., Vocabulary]) -> Load:
    """The labeler with a model type: ``load("sam3", threshold=0.5)``."""

    def build(kind: str, **keys: Any) -> Hf:
        config = HfConfig.model_validate({"model": f"local-dir:{hf_folder(kind)}", **keys})
        classes = vocabulary(
            **CLASSES, background_concepts=["sky"], templates=("a {}", "one {} more")
        )
        built = Hf(config, classes)
        built.load(CPU)
        return built

    return build


@pytest.fixture
def batch() -> ImageBatch:
    generator = torch.Generator().manual_seed(3)
    pixels = torch.zeros(1, 3, 48, 48, dtype=torch.uint8)
    pixels[0, :, : SIZE[0]] = torch.randint(0, 256, (3, *SIZE), generator=generator)
    return ImageBatch(pixels, (SIZE,))


def prepared(image: Tensor, folder: Path) -> tuple[Tensor, Any]:
    """An image preprocessed as the folder's config says, and the tokenizer."""
    printed = json.loads((folder / "preprocessor_config.json").read_text())
    side = printed["size"].get("height") or printed["size"]["shortest_edge"]
    mean, std = (torch.tensor(printed[key])[:, None, None] for key in ("image_mean", "image_std"))
    pixels = Image.fromarray(image.byte().permute(1, 2, 0).numpy())
    resized = np.array(pixels.resize((side, side), Image.Resampling(printed["resample"])))
    square = torch.from_numpy(resized).permute(2, 0, 1)[None] / 255
    return (square - mean) / std, transformers.AutoTokenizer.from_pretrained(folder)


def fitted(scores: Tensor) -> Tensor:
    return F.interpolate(scores[None], SIZE, mode="bilinear")[0]


def check(found: PseudoLabels, probabilities: Tensor) -> None:
    """Labels are the best of cat, dog and background."""
    best, channel = probabilities.max(0)
    mask = torch.tensor([0, 1, 255])[channel]
    clear = probabilities.topk(2, dim=0).values.diff(dim=0)[0].abs() > 1e-5
    assert clear.float().mean() > 0.5
    assert torch.equal(found.mask[0, : SIZE[0]][clear], mask[clear])
    sure = found.confidence[0, : SIZE[0]]
    torch.testing.assert_close(sure[clear], best.where(mask != 255, 0)[clear], atol=1e-4, rtol=0)


@torch.no_grad()
def test_clipseg_is_asked_concept_by_concept(
    load: Load, batch: ImageBatch, hf_folder: Callable[[str], Path]
) -> None:
    """Compared with the forward of transformers on each query's mean embedding."""
    network = transformers.CLIPSegForImageSegmentation.from_pretrained(hf_folder("clipseg")).eval()
    pixels, tokenizer = prepared(batch.pixels[0, :, : SIZE[0]].float(), hf_folder("clipseg"))
    maps = []
    for names in (["cat"], ["dog"], ["puppy", "whelp"], ["sky"]):
        prompts = [form.format(name) for name in names for form in ("a {}", "one {} more")]
        tokens = tokenizer(prompts, padding=True, return_tensors="pt")
        query = network.clip.get_text_features(**tokens).pooler_output.mean(0, keepdim=True)
        logits = network(pixel_values=pixels, conditional_embeddings=query).logits
        maps.append(logits.reshape(48, 48).sigmoid())
    classes = torch.stack([maps[0], torch.maximum(maps[1], maps[2]), maps[3]])
    check(load("clipseg").label(batch), fitted(classes))


@torch.no_grad()
def test_groupvit_finds_the_classes_of_transformers(
    load: Load, batch: ImageBatch, hf_folder: Callable[[str], Path]
) -> None:
    """Logits are those of transformers divided by the scale, which it applies twice."""
    network = transformers.GroupViTModel.from_pretrained(hf_folder("groupvit")).eval()
    pixels, tokenizer = prepared(batch.pixels[0, :, : SIZE[0]].float(), hf_folder("groupvit"))
    names = ["cat", "dog", "sky"]
    tokens = tokenizer([f"a {name}" for name in names], padding=True, return_tensors="pt")
    printed = network(pixel_values=pixels, output_segmentation=True, **tokens)
    logits = printed.segmentation_logits[0] / network.logit_scale.exp()
    built = load("groupvit")
    plain = {"cat": None, "dog": None}
    entries = [{"name": name, "color": "#000000", "concepts": plain[name]} for name in plain]
    classes = Vocabulary.model_validate(
        {"name": "n", "classes": entries, "background_concepts": ["sky"], "templates": ["a {}"]}
    )
    labeler = Hf(built.config, classes)
    labeler.load(CPU)
    check(labeler.label(batch), fitted(logits.softmax(0)))


@torch.no_grad()
def test_sam3_is_asked_for_names_as_they_are(
    load: Load, batch: ImageBatch, hf_folder: Callable[[str], Path]
) -> None:
    network = transformers.Sam3Model.from_pretrained(hf_folder("sam3")).eval()
    pixels, tokenizer = prepared(batch.pixels[0, :, : SIZE[0]].float(), hf_folder("sam3"))
    maps = {}
    for name in ("cat", "dog", "puppy", "whelp", "sky"):
        tokens = tokenizer(name, padding="max_length", max_length=24, return_tensors="pt")
        printed = network(pixel_values=pixels, **tokens)
        maps[name] = (printed.semantic_seg.sigmoid() * printed.presence_logits.sigmoid())[0, 0]
    dog = torch.stack([maps[name] for name in ("dog", "puppy", "whelp")]).amax(0)
    check(load("sam3").label(batch), fitted(torch.stack([maps["cat"], dog, maps["sky"]])))


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_gets_the_same_label_in_any_batch(load: Load, kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    sizes = ((48, 48), (1, 48), (48, 7))
    pixels = torch.randint(0, 256, (3, 3, 48, 48), generator=generator, dtype=torch.uint8)
    built = load(kind)
    together = built.label(ImageBatch(pixels, sizes))
    for index, size in enumerate(sizes):
        single = built.label(ImageBatch(pixels[index : index + 1], (size,)))
        assert torch.equal(together.mask[index], single.mask[0])
        assert torch.equal(together.confidence[index], single.confidence[0])
    assert ((together.confidence >= 0) & (together.confidence <= 1)).all()


def test_what_no_concept_is_probable_enough_for_is_background(
    load: Load, batch: ImageBatch
) -> None:
    assert (load("clipseg", prob_threshold=1.0).label(batch).mask == 255).all()
    assert (load("clipseg", threshold=1.0).label(batch).mask == 255).all()


def test_a_folder_that_is_no_model_is_one_line(
    hf_folder: Callable[[str], Path], vocabulary: Callable[..., Vocabulary], tmp_path: Path
) -> None:
    classes = vocabulary(**CLASSES)
    labeler = Hf(HfConfig(model=f"local-dir:{tmp_path}"), classes)
    with pytest.raises(WeightsError) as raised:
        labeler.weights_facts()
    assert str(raised.value) == (
        f"model: local-dir:{tmp_path}: there is no config.json, model.safetensors, "
        "preprocessor_config.json, tokenizer.json; "
        f"fetch a model with `hf download REPOSITORY --local-dir {tmp_path}`"
    )
    shutil.copytree(hf_folder("clipseg"), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(ConfigError) as wrong:
        labeler.load(CPU)
    assert str(wrong.value) == (
        f"model: {tmp_path}: unsupported transformers model type bert; "
        "use a model of one of the types clipseg, groupvit, sam3"
    )
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(WeightsError) as damaged:
        labeler.load(CPU)
    assert str(damaged.value).startswith(f"model: {tmp_path}: cannot be loaded (")
    assert "\n" not in str(damaged.value)


def test_without_a_connection_it_is_one_line(
    vocabulary: Callable[..., Vocabulary],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    nobody = "http://127.0.0.1:9"
    template = f"{nobody}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", nobody)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError) as raised:
        Hf(HfConfig(model="somebody/tiny"), vocabulary(**CLASSES)).load(CPU)
    assert str(raised.value).startswith("model: somebody/tiny: cannot be loaded (")
    assert str(raised.value).endswith(
        "; run `hf download somebody/tiny --local-dir weights/tiny`, "
        "then `model: local-dir:weights/tiny`"
    )
    assert not [record for record in caplog.records if "Retrying" in record.getMessage()]


def test_repositories_of_all_years_are_read(
    load: Load,
    batch: ImageBatch,
    hf_folder: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """Older ones have vocab.json, merges.txt and pickles; newer ones one processor config."""
    built, old, new = load("clipseg"), tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        shutil.copytree(hf_folder("clipseg"), folder)
    tokenizer = json.loads((old / "tokenizer.json").read_text())
    (old / "tokenizer.json").unlink()
    (old / "vocab.json").write_text(json.dumps(tokenizer["model"]["vocab"]))
    (old / "merges.txt").write_text("#version: 0.2\n")
    torch.save(load_file(old / "model.safetensors"), old / "pytorch_model.bin")
    (old / "model.safetensors").unlink()
    (new / "preprocessor_config.json").unlink()
    transformers.CLIPSegProcessor(
        image_processor=transformers.ViTImageProcessor(size={"height": 48, "width": 48}),
        tokenizer=transformers.AutoTokenizer.from_pretrained(new),
    ).save_pretrained(new)
    assert not (new / "preprocessor_config.json").exists()
    for folder in (old, new):
        labeler = Hf(HfConfig(model=f"local-dir:{folder}"), built.vocabulary)
        labeler.load(CPU)
        assert torch.equal(labeler.label(batch).mask, built.label(batch).mask)
    (old / "merges.txt").unlink()
    with pytest.raises(WeightsError, match=r"there is no tokenizer\.json; "):
        Hf(HfConfig(model=f"local-dir:{old}"), built.vocabulary).weights_facts()


def test_other_weights_are_other_facts(
    hf_folder: Callable[[str], Path], vocabulary: Callable[..., Vocabulary], tmp_path: Path
) -> None:
    shutil.copytree(hf_folder("clipseg"), tmp_path, dirs_exist_ok=True)
    labeler = Hf(HfConfig(model=f"local-dir:{tmp_path}"), vocabulary(**CLASSES))
    before = labeler.weights_facts()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text("{}")
    after = labeler.weights_facts()
    assert [key for key in before if before[key] != after[key]] == [
        "weights.tokenizer.json",
        "weights.tokenizer_config.json",
    ]
    hub = HfConfig(model="CIDAS/clipseg-rd64-refined", revision="main")
    assert Hf(hub, vocabulary(**CLASSES)).weights_facts() == {
        "weights": "CIDAS/clipseg-rd64-refined@main"
    }
