import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from pipeline.vocabulary import ClassEntry, Vocabulary
from stages.pseudolabel.sed.checkpoint import build
from stages.segmenters.models.small_unet import SmallUNetConfig, SmallUNetModel
from stages.segmenters.weights import save_weights

TOWERS: dict[str, dict[str, Any]] = {
    "vit": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16},
    "vit_custom": {
        **{"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16},
        **{"ls_init_value": 0.5, "scale_heads": True, "scale_attn": True, "scale_fc": True},
    },
    "vit_pooled": {
        **{"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16},
        "attentional_pool": True,
    },
    "resnet": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 64, "image_size": 32},
    "convnext": {"timm_model_name": "test_convnext", "image_size": 64},
    "byobnet": {"timm_model_name": "test_byobnet", "image_size": 64, "timm_proj": None},
    "timm_vit": {"timm_model_name": "test_vit", "image_size": 160, "timm_pool": "token"},
    "timm_vit_average": {"timm_model_name": "test_vit2", "image_size": 160, "timm_pool": "avg"},
    "timm_siglip": {
        **{"timm_model_name": "test_vit3", "image_size": 160},
        **{"timm_pool": "map", "timm_proj": "none"},
    },
    "timm_eva": {
        "timm_model_name": "eva02_tiny_patch14_224",
        "image_size": 224,
        "timm_pool": "avg",
    },
}


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders, in open_clip's layout, of tiny CLIPs with random weights; one a kind of tower."""

    @cache
    def build(tower: str) -> Path:
        folder = tmp_path_factory.mktemp(tower)
        # Byte-level tokens without a single merge: 2 x 256 bytes and two special tokens.
        (folder / "bpe.txt.gz").write_bytes(gzip.compress(b"#version: 0.2"))
        text: dict[str, Any] = {
            "context_length": 24,
            "vocab_size": 514,
            "width": 32,
            "heads": 2,
            "layers": 2,
        }
        text |= {"tokenizer_kwargs": {"bpe_path": "bpe.txt.gz"}}
        model = {"embed_dim": 32, "vision_cfg": TOWERS[tower], "text_cfg": text}
        model["custom_text"] = tower == "byobnet"
        config = {"model_cfg": model, "preprocess_cfg": {"mean": [0.5, 0.4, 0.3]}}
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        torch.manual_seed(0)
        network = open_clip.create_model(f"local-dir:{folder}")
        save_file(network.state_dict(), folder / "open_clip_model.safetensors")
        return folder

    return build


@pytest.fixture(scope="session")
def sed_checkpoint(
    clip_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A checkpoint as detectron2 saves one, of a SED with random weights, in the CLIP's folder."""
    folder = tmp_path_factory.mktemp("sed")
    for name in ("open_clip_config.json", "bpe.txt.gz"):
        shutil.copy(clip_folder("convnext") / name, folder)
    torch.manual_seed(1)
    network = build(f"local-dir:{folder}")
    tensors = {
        f"sem_seg_head.predictor.{name}": tensor for name, tensor in network.state_dict().items()
    }
    path = folder / "sed.pth"
    torch.save({"model": tensors, "optimizer": {"state": {}}, "iteration": 79999}, path)
    return path


@pytest.fixture
def vocabulary() -> Callable[..., Vocabulary]:
    """Builds vocabularies: ``vocabulary(sky=["sky"], car=["car", "van"], templates=...)``."""

    def build(**keys: Any) -> Vocabulary:
        known = Vocabulary.model_fields.keys() - {"classes"}
        own = {key: keys.pop(key) for key in list(keys) if key in known}
        classes = [
            ClassEntry(name=name, color="#000000", concepts=concepts)
            for name, concepts in keys.items()
        ]
        return Vocabulary(**{"name": "test", "classes": classes, **own})

    return build


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Vocabulary], Path]:
    """What trainings of `small_unet` might end with, with random weights; a file a vocabulary."""

    def build(classes: Vocabulary) -> Path:
        names = json.dumps(classes.class_names)
        path = folder / f"{hashlib.sha256(names.encode()).hexdigest()}.safetensors"
        torch.manual_seed(0)
        model = SmallUNetModel(SmallUNetConfig(encoder_weights=None))
        save_weights(path, model.build(classes.num_classes), {"classes": names})
        return path

    folder = tmp_path_factory.mktemp("segmenter")
    return build
