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
from open_clip.tokenizer import bytes_to_unicode
from safetensors.torch import save_file

from pipeline.config.class_entry import ClassEntry
from pipeline.config.components import Choice
from pipeline.config.vocabulary import Vocabulary
from stages.models.segmenters.builders.base import ModelBuilder
from stages.models.segmenters.builders.small_unet import SmallUNetConfig, SmallUNetModel
from stages.models.segmenters.description import ModelDescription
from stages.models.segmenters.model_file import save_model_file
from stages.models.segmenters.protocol import WHOLE_IMAGE, Protocol
from stages.pseudolabel.sed.checkpoint import build

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
    """Folders in open_clip's layout of tiny CLIPs with random weights, one per kind of tower."""

    @cache
    def build(tower: str) -> Path:
        folder = tmp_path_factory.mktemp(tower)
        # Byte-level tokens without a single merge: 2 x 256 bytes and two special tokens.
        (folder / "bpe.txt.gz").write_bytes(gzip.compress(b"#version: 0.2"))
        text: dict[str, Any] = {
            "context_length": 77,
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
    """A checkpoint of SED with random weights, as detectron2 saves it, in a CLIP folder."""
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
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Model files of `small_unet` with random weights, one per vocabulary and protocol."""

    def build(classes: Vocabulary, protocol: Protocol = WHOLE_IMAGE) -> Path:
        names = json.dumps([classes.class_names, protocol.model_dump()])
        path = folder / f"{hashlib.sha256(names.encode()).hexdigest()}.safetensors"
        torch.manual_seed(0)
        keys = SmallUNetConfig(encoder_weights=None)
        model: Choice[ModelBuilder] = Choice("small_unet", SmallUNetModel, keys)
        description = ModelDescription.of_training(model, classes, protocol, {})
        save_model_file(path, model.create().build(classes).state_dict(), description)
        return path

    folder = tmp_path_factory.mktemp("segmenter")
    return build


@pytest.fixture(scope="session")
def hf_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of tiny models with random weights, as from `hf download`, one per model type."""
    transformers = pytest.importorskip("transformers", reason="needs the extra hf")

    @cache
    def build(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        torch.manual_seed(0)
        heads = {"num_attention_heads": 2, "intermediate_size": 64}
        wide = {"hidden_size": 32, **heads}
        vision: dict[str, Any]
        backbone: dict[str, Any]
        text = {"vocab_size": 514, "num_hidden_layers": 2, "max_position_embeddings": 24, **wide}
        text |= {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
        if kind == "clipseg":
            vision = {"num_hidden_layers": 3, "image_size": 32, "patch_size": 8, **wide}
            decoder = {"extract_layers": [0, 1], "reduce_dim": 16, "projection_dim": 32}
            decoder |= {"decoder_num_attention_heads": 2, "decoder_intermediate_size": 32}
            config = transformers.CLIPSegConfig(text_config=text, vision_config=vision, **decoder)
            network = transformers.CLIPSegForImageSegmentation(config)
            processor = transformers.ViTImageProcessor(size={"height": 48, "width": 48})
        elif kind == "groupvit":
            groups: dict[str, Any] = {"depths": [1, 1, 1], "num_group_tokens": [8, 4, 0]}
            groups |= {"num_output_groups": [8, 4, 0], "num_hidden_layers": 3}
            vision = {"image_size": 32, "patch_size": 8, **groups, **wide}
            sizes = {"projection_dim": 16, "projection_intermediate_dim": 32}
            config = transformers.GroupViTConfig(text_config=text, vision_config=vision, **sizes)
            network = transformers.GroupViTModel(config)
            processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32})
        else:
            backbone = {"model_type": "sam3_vit_model", "num_hidden_layers": 2, "image_size": 56}
            backbone |= {"patch_size": 14, "window_size": 2, "global_attn_indexes": [1], **wide}
            backbone |= {"pretrain_image_size": 28}
            sides = [[16, 16], [8, 8], [4, 4]]
            vision = {"backbone_config": backbone, "backbone_feature_sizes": sides}
            narrow = {"hidden_size": 16, "num_attention_heads": 2}
            layers = {**narrow, "num_layers": 1, "intermediate_size": 32}
            config = transformers.Sam3Config(
                text_config={**text, "projection_dim": 16},
                vision_config={**vision, "fpn_hidden_size": 16},
                geometry_encoder_config=layers,
                detr_encoder_config=layers,
                detr_decoder_config={**layers, "num_queries": 5},
                mask_decoder_config=narrow,
            )
            network = transformers.Sam3Model(config)
            processor = transformers.Sam3ImageProcessor(size={"height": 56, "width": 56})
        network.save_pretrained(folder)
        processor.save_pretrained(folder)
        symbols = list(bytes_to_unicode().values())
        tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols)]
        tokens += ["<|startoftext|>", "<|endoftext|>"]
        vocab = {token: number for number, token in enumerate(tokens)}
        transformers.CLIPTokenizer(vocab=vocab, merges=[]).save_pretrained(folder)
        return folder

    return build
