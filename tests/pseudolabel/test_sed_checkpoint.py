"""The keys and checkpoints of the labeler `sed`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from pipeline.config.vocabulary import Vocabulary
from pipeline.errors import WeightsError
from stages.pseudolabel.labelers.sed import Sed, SedConfig
from stages.pseudolabel.sed.checkpoint import PREFIX, load_sed

CPU = torch.device("cpu")


BuildVocabulary = Callable[..., Vocabulary]


LARGE = "https://drive.google.com/file/d/1zAXE0QXy47n0cVn7j_2cSR85eqxdDGg8/view"


BASE = "https://drive.google.com/file/d/1qx6zGZgSPkF6TObregRz4uzQqSRHrgUw/view"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"model": "ViT-B-16"},
            "no SED was published for 'ViT-B-16'; use convnext_large_d_320 (SED-L), "
            "convnext_base_w_320 (SED-B), or local-dir:FOLDER",
        ),
        ({"input_px": 100}, "multiple of 32"),
        ({"topk": 0}, "write a whole number from 1"),
        ({"mode": "faster"}, "'normal' or 'fast'"),
        ({"window_px": 224}, "use one of: input_px, mode, model, threshold, topk, weights"),
    ],
)
def test_a_wrong_key_is_reported(keys: dict[str, Any], message: str) -> None:
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


def test_a_folder_that_is_none_is_reported(
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
            lambda tensors: tensors.update(pixel_size=torch.zeros(3)),
            "1 tensors unknown, such as pixel_size",
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
        "weights.bpe.txt.gz": "bpe.txt.gz sha256",
    }


def test_how_a_vocabulary_asks_others_is_no_fact(vocabulary: BuildVocabulary) -> None:
    config = SedConfig(model="convnext_base_w_320", weights="sed.pth")
    asked = [
        Sed(config, vocabulary(cat=None, dog=["dog", "puppy"], **keys)).vocabulary_facts()
        for keys in ({}, {"prompts": "mean-80"}, {"templates": ["a {}"]})
    ]
    assert asked[0] == asked[1] == asked[2]
    assert asked[0]["vocabulary.concepts.dog"] == ["dog", "puppy"]


def test_checkpoints_of_detectron2_may_be_of_any_published_form(
    sed_checkpoint: Path, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    """As DistributedDataParallel names them, as arrays, with buffers, without auxiliary heads."""
    model = f"local-dir:{sed_checkpoint.parent}"
    expected = load_sed(model, sed_checkpoint, CPU)[0].state_dict()
    heads = [name for name in tensors if ".head" in name and ".head." not in name]
    assert len(heads) == 6
    others = {name: each for name, each in tensors.items() if name not in heads}
    others |= {"pixel_mean": torch.zeros(3), f"{PREFIX}clip_model.attn_mask": torch.zeros(2, 2)}
    arrays = {f"module.{name}": each.numpy() for name, each in others.items()}
    weights = tmp_path / "sed.pth"
    torch.save({"model": arrays, "iteration": 80000}, weights, _use_new_zipfile_serialization=False)
    found = load_sed(model, weights, CPU, needs_heads=False)[0].state_dict()
    short = {name.removeprefix(PREFIX) for name in heads}
    assert all(torch.equal(found[name], expected[name]) for name in expected.keys() - short)
    with pytest.raises(WeightsError, match="6 tensors missing, such as transformer"):
        load_sed(model, weights, CPU)
