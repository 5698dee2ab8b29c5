"""A CLIP that every test can afford: a ViT of three blocks, with random weights."""

import gzip
import json
from pathlib import Path


def write_clip(folder: Path) -> None:
    """Fills a folder in open_clip's layout; it always gets the same CLIP."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    # Byte-level tokens without a single merge: 2 x 256 bytes and two special tokens.
    (folder / "bpe.txt.gz").write_bytes(gzip.compress(b"#version: 0.2"))
    text = {"context_length": 77, "vocab_size": 514, "width": 32, "heads": 2, "layers": 2}
    vision = {"layers": 3, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16}
    model = {
        "embed_dim": 16,
        "vision_cfg": vision,
        "text_cfg": {**text, "tokenizer_kwargs": {"bpe_path": "bpe.txt.gz"}},
    }
    config = {"model_cfg": model, "preprocess_cfg": {"mean": [0.5, 0.4, 0.3]}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    network = open_clip.create_model(f"local-dir:{folder}")
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
