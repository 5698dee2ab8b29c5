"""Checkpoint files of CLIPs: activation and normalization that the file does not say itself."""

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import ConfigError, WeightsError
from stages.models.checkpoint_file import CheckpointFile
from stages.models.clip.clip import load_clip, tower_config
from stages.models.clip.clip_weights import ClipChoice
from stages.models.clip.file_settings import read_clip_file, settings_of
from stages.models.segmenters.normalization import IMAGENET, OPENAI, Normalization

HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
PLAIN = CheckpointFile({}, True, False)


def statistics(model: str, path: Path, **keys: Any) -> dict[str, Any]:
    found = settings_of(path, model, PLAIN, keys.get("normalization"))
    return dict(found["force_preprocess_cfg"])


def test_the_normalization_is_that_of_all_weights_of_the_architecture(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for model in ("ViT-B-16-SigLIP", "PE-Core-B-16"):
        assert statistics(model, path) == HALF
    assert statistics("ViT-L-14-CLIPA", path) == {"mean": IMAGENET.mean, "std": IMAGENET.std}
    assert statistics("MobileCLIP-S1", path) == {"mean": (0, 0, 0), "std": (1, 1, 1)}
    assert statistics("ViT-B-16-quickgelu", path) == {"mean": OPENAI.mean, "std": OPENAI.std}


def test_where_weights_differ_the_file_beside_or_a_key_decides(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    exact = json.dumps({"model_cfg": {"quick_gelu": False}})
    (tmp_path / "open_clip_config.json").write_text(exact)
    with pytest.raises(ConfigError) as caught:
        statistics("ViT-L-14", path)
    assert "and the file does not say; put its open_clip_config.json next to it" in str(
        caught.value
    )
    own = Normalization(HALF["mean"], HALF["std"])
    assert statistics("ViT-L-14", path, normalization=own) == HALF
    beside = {"model_cfg": {}, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(beside))
    assert statistics("ViT-L-14", path) == HALF
    (tmp_path / "open_clip_config.json").write_text("{")
    with pytest.raises(WeightsError, match="replace it by the published one"):
        statistics("ViT-L-14", path)


def test_every_architecture_has_a_fact_if_its_files_were_normalized_wrongly(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.touch()
    for model, _ in open_clip.list_pretrained():
        choice = ClipChoice(model=model, weights=str(path))
        is_new = "weights.normalization" in choice.weights_facts()
        tags = open_clip.list_pretrained_tags_by_model(model)
        means = {tuple(open_clip.get_pretrained_cfg(model, tag)["mean"]) for tag in tags}
        assert is_new or means == {OPENAI.mean}, model


def test_the_activation_is_that_of_all_weights_of_the_architecture(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for model in dict.fromkeys(model for model, _ in open_clip.list_pretrained()):
        tags = open_clip.list_pretrained_tags_by_model(model)
        quick = {bool(open_clip.get_pretrained_cfg(model, tag).get("quick_gelu")) for tag in tags}
        if len(quick) > 1:
            with pytest.raises(ConfigError) as caught:
                settings_of(path, model, PLAIN, OPENAI)
            assert f"set `model: {model}-quickgelu`" in str(caught.value)
            assert '{"model_cfg": {"quick_gelu": false}}' in str(caught.value)
        else:
            options = settings_of(path, model, PLAIN, OPENAI)
            is_quick = options.get("force_quick_gelu", model.endswith("-quickgelu"))
            assert {is_quick} == quick, model
            facts = ClipChoice(model=model, weights=str(path.with_name("x.pt")))
            path.with_name("x.pt").touch()
            is_new = "weights.activation" in facts.weights_facts()
            assert is_new == (is_quick and not model.endswith("-quickgelu"))


@pytest.mark.parametrize("form", ["numbers", "config beside", "exact"])
def test_weights_of_openai_are_loaded_with_their_activation(form: str, tmp_path: Path) -> None:
    """open_clip's ViT-B-32 has exact GELU; OpenAI's was trained with QuickGELU."""
    torch.manual_seed(0)
    network = open_clip.create_model("ViT-B-32", load_weights=False)
    tensors = network.state_dict()
    path = tmp_path / ("model.pt" if form == "numbers" else "model.safetensors")
    if form == "numbers":
        numbers = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
        torch.save(tensors | {key: torch.tensor(value) for key, value in numbers.items()}, path)
    else:
        save_file(tensors, path)
    if form != "numbers":
        config = {"model_cfg": {"quick_gelu": form != "exact"}, "preprocess_cfg": {}}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    clip = load_clip("ViT-B-32", path, window_px=32, device=torch.device("cpu"))
    activation = type(clip.network.visual.transformer.resblocks[0].mlp.gelu).__name__
    assert activation == ("GELU" if form == "exact" else "QuickGELU")
    tower, found = tower_config("ViT-B-32", path, 32)  # what a model file of SemiVL keeps
    assert tower["quick_gelu"] == (form != "exact")
    assert found == OPENAI


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_openais_program_says_how_to_get_the_same_weights(tmp_path: Path) -> None:
    path = tmp_path / "ViT-B-16.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)
    with pytest.raises(WeightsError) as caught:
        read_clip_file(path, "ViT-B-16", f"weights: {path}")
    text = str(caught.value)
    assert (
        "it is a TorchScript archive, a program; set `weights: openai`, or run `hf download" in text
    )
    assert "timm/vit_base_patch16_clip_224.openai open_clip_model.safetensors" in text


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"preprocess_cfg": {"mean": [0.5]}}, "three numbers each"),
        ({"preprocess_cfg": {"mean": [127.5] * 3}}, "from 0 to 1"),
        ({"preprocess_cfg": {"std": [0.5, 0.5, 0]}}, "std not 0"),
        ({"preprocess_cfg": {"std": [0.5, 0.5, -0.5]}}, "std not 0"),
        ({"preprocess_cfg": {"mean": [True] * 3}}, "three numbers each"),
        ({"preprocess_cfg": {"mean": 0.5}}, "three numbers each"),
        ({"preprocess_cfg": {"mean": None}}, "three numbers each"),
        ({"preprocess_cfg": {"mean": "abc"}}, "three numbers each"),
        ({"preprocess_cfg": None}, "preprocess_cfg is no mapping"),
        ({"model_cfg": []}, "model_cfg is no mapping"),
        ({"model_cfg": {"quick_gelu": "false"}}, "quick_gelu must be true or false"),
        ([], "is no mapping"),
    ],
)
def test_a_config_beside_that_cannot_be_is_refused(config: Any, text: str, tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError) as caught:
        statistics("ViT-B-16", tmp_path / "model.safetensors")
    assert text in str(caught.value)
    assert "open_clip_config.json" in str(caught.value)


def test_what_a_config_beside_leaves_out_is_openais(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text('{"preprocess_cfg": {"mean": [0, 0, 0]}}')
    found = statistics("ViT-B-16", tmp_path / "model.safetensors")
    assert found == {"mean": (0, 0, 0), "std": OPENAI.std}


def test_a_config_beside_that_contradicts_the_architecture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"quick_gelu": false}}')
    with pytest.raises(ConfigError, match="set `model: ViT-B-16`"):
        statistics("ViT-B-16-quickgelu", tmp_path / "model.safetensors")
