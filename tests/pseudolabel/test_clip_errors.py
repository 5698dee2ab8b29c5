import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch

from pipeline.errors import ConfigError, WeightsError
from stages.models.clip.clip import load_clip
from stages.models.clip.clip_weights import Dense
from tests.pseudolabel.clips import CPU, load

ClipFolder = Callable[[str], Path]


def test_a_prompt_that_would_be_cut_is_refused(clip_folder: ClipFolder) -> None:
    clip = load(clip_folder("vit"), 16)
    limit = clip.network.context_length
    longest = " ".join("a" * (limit - 2))  # beside the tokens that start and end it
    assert clip.encode_text([longest]).isfinite().all()
    with pytest.raises(
        ConfigError, match=f"the prompt 'a .* is longer than the model's {limit} tokens"
    ):
        clip.encode_text(["a", f"{longest} a"])


def test_a_checkpoint_that_does_not_fit_is_refused(clip_folder: ClipFolder, tmp_path: Path) -> None:
    for file in clip_folder("vit").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    other = clip_folder("convnext") / "open_clip_model.safetensors"
    (tmp_path / "open_clip_model.safetensors").write_bytes(other.read_bytes())
    with pytest.raises(WeightsError) as raised:
        load(tmp_path, 16)
    start = f"model: local-dir:{tmp_path}: the weights do not fit the folder's config: "
    assert str(raised.value).startswith(start)
    assert str(raised.value).endswith("; set `model` to the architecture they were trained with")
    assert "\n" not in str(raised.value)


class Runs:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return eval, ("open('unpickled', 'w')",)


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_a_checkpoint_never_runs_code(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Runs()}, name)
    with pytest.raises(WeightsError) as raised:
        load_clip("ViT-B-16", Path(name), window_px=224, device=CPU)
    assert str(raised.value).startswith(f"weights: {name}: cannot be read as plain tensors: ")
    assert str(raised.value).endswith(
        "; use a checkpoint saved by open_clip, preferably open_clip_model.safetensors"
    )
    assert not Path("unpickled").exists()


@pytest.mark.parametrize(
    ("model", "weights", "message"),
    [
        (
            "ViT-B16",
            "openai",
            "model: ViT-B16: open_clip has no such architecture; "
            "use an architecture such as ViT-B-16, or local-dir:FOLDER",
        ),
        (
            "RN50",
            "laion",
            "weights: laion: open_clip has no such weights of RN50; "
            "use one of openai, yfcc15m, cc12m, or a checkpoint file",
        ),
    ],
)
def test_unknown_names_are_answered_with_known_ones(model: str, weights: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_clip(model, weights, window_px=224, device=CPU)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("tower", "window_px", "message"),
    [
        (
            "vit",
            20,
            "it must be a multiple of 8, the stride of local-dir:{}; use 16 or 24",
        ),
        (
            "resnet",
            16,
            "it must be a multiple of 32, the stride of local-dir:{}; use 32",
        ),
        (
            "convnext",
            40,
            "it must be a multiple of 32, the stride of local-dir:{}; use 32 or 64",
        ),
    ],
)
def test_a_window_that_does_not_suit_is_refused(
    clip_folder: ClipFolder, tower: str, window_px: int, message: str
) -> None:
    folder = clip_folder(tower)
    with pytest.raises(ConfigError) as raised:
        load(folder, window_px)
    assert str(raised.value) == f"window_px: {window_px}: {message.format(folder)}"


def test_a_tower_without_features_of_locations_is_refused(clip_folder: ClipFolder) -> None:
    match = "no per-location features to compare with text; use a ViT such as ViT-B-16, or a ResNet"
    with pytest.raises(ConfigError, match=match):
        load(clip_folder("vit_pooled"), 160)


@pytest.mark.parametrize(
    ("tower", "dense", "message"),
    [
        (
            "resnet",
            Dense("gem"),
            "variant: gem: local-dir:{} is a ResNet, which does not support this variant; "
            "use maskclip",
        ),
        (
            "resnet",
            Dense("vanilla"),
            "variant: vanilla: local-dir:{} is a ResNet, which does not support this variant; "
            "use maskclip",
        ),
        (
            "convnext",
            Dense("sclip"),
            "variant: sclip: local-dir:{} is a network without attention, which does not support "
            "this variant; use vanilla or maskclip",
        ),
        (
            "timm_vit",
            Dense("gem"),
            "variant: gem: local-dir:{} is a ViT of timm, which does not support this variant; "
            "use vanilla or maskclip",
        ),
        (
            "convnext",
            Dense(ffn=False),
            "residual, ffn: local-dir:{} is a network without attention, which does not support "
            "these keys; leave out both keys, or use a ViT of open_clip such as ViT-B-16",
        ),
    ],
)
def test_a_variant_that_a_tower_has_not_is_refused(
    clip_folder: ClipFolder, tower: str, dense: Dense, message: str
) -> None:
    folder = clip_folder(tower)
    with pytest.raises(ConfigError) as raised:
        load(folder, 160, dense=dense)
    assert str(raised.value) == message.format(folder)


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("ViT-B-16", "set `model: ViT-B-16-quickgelu` and "),
        ("ViT-B-16-quickgelu", "set `model: ViT-B-16-quickgelu` and "),
    ],
)
def test_without_a_connection_the_error_says_how_to_fetch(
    model: str, settings: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError) as raised:
        load_clip(model, "openai", window_px=224, device=CPU)
    assert str(raised.value).startswith("weights: openai: cannot be downloaded (OfflineModeIs")
    assert str(raised.value).endswith(
        "; where there is a connection, run `hf download timm/vit_base_patch16_clip_224.openai "
        f"open_clip_model.safetensors --local-dir weights`, then {settings}"
        "`weights: weights/open_clip_model.safetensors`"
    )


CODE = """
from pathlib import Path
from transformers import CLIPTokenizer
Path("ran").touch()
class Tokens(CLIPTokenizer): pass
"""


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (
            {"hf_tokenizer_name": "x/y", "tokenizer_kwargs": {"trust_remote_code": True}},
            "text_cfg.tokenizer_kwargs.trust_remote_code is not known here",
        ),
        ({"tokenizer_kwargs": {"bpe_path": "../bpe.txt.gz"}}, "'../bpe.txt.gz' leads out of it"),
        ({"tokenizer_kwargs": {"bpe_path": "/etc/passwd"}}, "'/etc/passwd' leads out of it"),
        ({"hf_model_name": "x/y"}, "text_cfg.hf_model_name 'x/y' would be read from elsewhere"),
        ({"hf_model_pretrained": True}, "hf_model_pretrained True would be read from elsewhere"),
        ({"tokenizer_kwargs": None}, "text_cfg.tokenizer_kwargs must be a mapping"),
        ({"tokenizer_kwargs": ["x"]}, "text_cfg.tokenizer_kwargs must be a mapping"),
        (
            {"multimodal_cfg": {"hf_model_name": "x/y"}},
            "multimodal_cfg.hf_model_name 'x/y' would be read from elsewhere",
        ),
    ],
)
def test_a_strangers_folder_neither_runs_nor_reads_elsewhere(
    keys: dict[str, Any],
    text: str,
    clip_folder: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(clip_folder("vit"), tmp_path / "clip")
    config = json.loads((folder / "open_clip_config.json").read_text())
    keys = dict(keys)
    if (multimodal := keys.pop("multimodal_cfg", None)) is not None:
        config["model_cfg"]["multimodal_cfg"] = multimodal
    config["model_cfg"]["text_cfg"] |= keys
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    tokens = {"auto_map": {"AutoTokenizer": ["tokens.Tokens", None]}, "tokenizer_class": "Tokens"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    (folder / "config.json").write_text(json.dumps({"auto_map": tokens["auto_map"]}))
    (folder / "tokens.py").write_text(CODE)
    with pytest.raises(WeightsError) as caught:
        load(folder, 16)
    assert str(caught.value).startswith(f"model: local-dir:{folder}: open_clip_config.json: ")
    assert text in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_with_code_of_its_own_is_refused(
    clip_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the argument that would ask for it."""
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(clip_folder("vit"), tmp_path / "clip")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "x/y", "tokenizer_kwargs": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    tokens = {"auto_map": {"AutoTokenizer": ["tokens.Tokens", None]}, "tokenizer_class": "Tokens"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    (folder / "tokens.py").write_text(CODE)
    with pytest.raises(WeightsError):
        load(folder, 16)
    assert not (tmp_path / "ran").exists()
