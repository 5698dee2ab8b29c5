"""The files of a model's folder that loading it may read. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.config.config_section import Facts
from pipeline.errors import WeightsError
from pipeline.files.checksum import checksum

_DOCUMENTS = frozenset([".md", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".pdf", ".html", ".ipynb"])
_OTHER_WEIGHTS = frozenset([".h5", ".msgpack", ".onnx", ".ot", ".tflite", ".ckpt", ".pt", ".pth"])
"""Weights that transformers does not read here."""
_WEIGHTS = frozenset([".safetensors", ".bin"])


def files_of(folder: Path, *, weights: bool) -> list[Path]:
    """The files of a folder that transformers may read: all but documents, by name.

    Args:
        folder: As `hf download` leaves it.
        weights: Whether to list files of weights too.
    """
    skipped = _DOCUMENTS | _OTHER_WEIGHTS | (frozenset() if weights else _WEIGHTS)
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file()
        and path.suffix not in skipped
        and not path.name.startswith((".", "LICENSE", "NOTICE", "README"))
    )


def tokenizer_facts(folder: Path, config: Path) -> Facts:
    """Checksums of the files that the tokenizer of a CLIP's folder reads.

    Args:
        folder: In open_clip's layout.
        config: Its config, which says what the tokenizer is. Without one of its own the tokenizer
            is open_clip's, which has no file here.

    Raises:
        WeightsError: A file that the config names is missing.
    """
    try:
        text = json.loads(config.read_text())["model_cfg"]["text_cfg"]
        merges = (text.get("tokenizer_kwargs") or {}).get("bpe_path")
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # loading says what is wrong with the config
    files = [folder / merges] if merges else []
    if text.get("hf_tokenizer_name"):
        files += files_of(folder, weights=False)
    for file in files:
        if not file.is_file():
            fix = "put it there, or name another file in `tokenizer_kwargs`"
            raise WeightsError(f"there is no {file}", where=str(config), fix=fix)
    return {f"weights.{file.name}": checksum(file) for file in files if file != config}
