"""Refuses folders of CLIPs that would run code, or read anything outside of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from pipeline.errors import WeightsError

_TOKENIZER_KEYS = frozenset(
    ["additional_special_tokens", "bpe_path", "clean", "language", "strip_sep_token"]
)
"""Arguments of open_clip's tokenizers that a folder may set; all others could be anything's."""


def check_folder(config: Mapping[str, Any], where: str) -> None:
    """Checks the `model_cfg` of a folder before anything is built from it.

    Args:
        config: The `model_cfg` of its open_clip_config.json.
        where: The folder, for errors.

    Raises:
        WeightsError: It asks for unknown arguments, for files elsewhere, or for downloads.
    """
    towers = {key: config.get(key) or {} for key in ("text_cfg", "vision_cfg", "multimodal_cfg")}
    for key, tower in towers.items():
        if not isinstance(tower, Mapping):
            raise _refused(f"{key} must be a mapping", where)
        for name, value in tower.items():
            if value and (name.startswith("hf_model_") or name.endswith("_pretrained")):
                raise _refused(f"{key}.{name} {value!r} would be read from elsewhere", where)
    text, vision = towers["text_cfg"], towers["vision_cfg"]
    options = text.get("tokenizer_kwargs", {})
    if not isinstance(options, Mapping):
        raise _refused("text_cfg.tokenizer_kwargs must be a mapping", where)
    if unknown := sorted({*options} - _TOKENIZER_KEYS):
        raise _refused(f"text_cfg.tokenizer_kwargs.{unknown[0]} is not known here", where)
    if (merges := options.get("bpe_path")) is not None and not _is_inside(merges):
        raise _refused(f"text_cfg.tokenizer_kwargs.bpe_path {merges!r} leads out of it", where)
    if ":" in str(vision.get("timm_model_name", "")):
        raise _refused("vision_cfg would fetch a model of timm from elsewhere", where)


def _is_inside(path: object) -> bool:
    parts = PurePosixPath(str(path)).parts
    return isinstance(path, str) and ".." not in parts and not path.startswith(("/", "~"))


def _refused(what: str, where: str) -> WeightsError:
    fix = "use a folder as open_clip saves it, or an architecture and its tag"
    return WeightsError(f"open_clip_config.json: {what}", where=where, fix=fix)
