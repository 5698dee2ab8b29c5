"""Writes and loads the tiny CLIP as a folder for open_clip: config, tokenizer merges, weights."""

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import open_clip
from torch import Tensor

from stages.models.embedded import trunk
from stages.models.embedded.models import CLIP
from tools.sandbox.training import save_half

CONTEXT_LENGTH = 40
EMBED_DIM = 128

_MERGES = "bpe.txt.gz"
_BYTES = 2 * 256 + 2  # of SimpleTokenizer: bytes, bytes that end a word, start, end


def byte_pair_merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Learns merges until each of the words is one token (Sennrich et al. 2016, algorithm 1).

    Args:
        words: In lower case; other words are spelled with the learned tokens, or in bytes.

    Returns:
        Pairs of tokens to merge, in order; "</w>" marks the end of a word.
    """
    spellings = [[*word[:-1], f"{word[-1]}</w>"] for word in sorted(set(words))]
    merges = []
    while pairs := Counter(pair for spelling in spellings for pair in pairwise(spelling)):
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        spellings = [_merge(spelling, best) for spelling in spellings]
    return merges


def _merge(spelling: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for token in spelling:
        if merged and (merged[-1], token) == pair:
            merged[-1] += token
        else:
            merged.append(token)
    return merged


def start(folder: Path, words: Sequence[str]) -> None:
    """Writes the config and the tokenizer of an untrained CLIP.

    Args:
        folder: Created if it is missing.
        words: Each becomes one token.
    """
    folder.mkdir(parents=True, exist_ok=True)
    merges = byte_pair_merges(words)
    text = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)])
    (folder / _MERGES).write_bytes(gzip.compress(text.encode(), mtime=0))
    model = {
        "embed_dim": EMBED_DIM,
        "vision_cfg": {
            "timm_model_name": trunk.NAME,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": 128,
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": _BYTES + len(merges),
            "width": 128,
            "heads": 4,
            "layers": 2,
            "tokenizer_kwargs": {"bpe_path": _MERGES},
        },
    }
    statistics = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    config = {"model_cfg": model, "preprocess_cfg": statistics}
    (folder / CLIP.config_name).write_text(json.dumps(config, indent=2) + "\n")


def build(folder: Path) -> Any:
    """Builds the folder's CLIP in float32, with its weights if there are any, else random ones.

    Args:
        folder: Written by `start`.

    Returns:
        An `open_clip.CLIP` in evaluation mode.
    """
    trunk.register()
    has_weights = (folder / CLIP.weights_name).exists()
    return open_clip.create_model(f"local-dir:{folder}", load_weights=has_weights).eval()


def tokenizer(folder: Path) -> Any:
    """The folder's tokenizer, which maps strings to (N, CONTEXT_LENGTH) int64."""
    return open_clip.get_tokenizer(f"local-dir:{folder}", bpe_path=str(folder / _MERGES))


def save(model: Any, folder: Path) -> None:
    """Writes the weights in half precision; integers keep their type."""
    save_half(folder / CLIP.weights_name, model.state_dict())


def dense_embedding(model: Any, images: Tensor) -> Tensor:
    """Embeds each location: applies the head for pooled features to the trunk's map.

    Args:
        model: From `build`.
        images: (B, 3, H, W) float, normalised.

    Returns:
        (B, D, H/8, W/8), not normalised; its mean over locations is the image's embedding.
    """
    locations = model.visual.trunk.forward_features(images).permute(0, 2, 3, 1)
    embedding: Tensor = model.visual.head(locations).permute(0, 3, 1, 2)
    return embedding
