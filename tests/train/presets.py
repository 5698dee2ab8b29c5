"""Configs of presets."""

from pathlib import Path
from typing import Any

from pipeline.config.config import parse_section
from pipeline.config.config_section import Section
from stages.train import preset
from stages.train.config import TrainConfig, VariantConfig

ALL = preset.names()
EACH_DATASET = [(name, dataset) for name in ALL for dataset in preset.datasets(name)]


class ConfigFile(Section):
    train: TrainConfig


def parsed(**keys: Any) -> dict[str, VariantConfig]:
    return parse_section(ConfigFile, {"train": keys}, path=Path("run.yaml")).train.variants


def small(keys: dict[str, Any], clip_folder: Path) -> dict[str, Any]:
    """The keys of a preset on drawn images of 32 px, for networks that start from nothing."""
    name = keys["model"]["name"]
    small_clip = f"local-dir:{clip_folder}"
    small_models: dict[str, dict[str, Any]] = {
        "deeplabv3plus": {"encoder": "tu-test_resnet", "encoder_weights": None},
        "dpt": {"encoder": "test_vit", "encoder_weights": None},
        "semivl": {"model": small_clip, "image_px": 32},
        "unet": {"encoder": "tu-test_resnet", "encoder_weights": None},
    }
    model = small_models[name]
    if "conv_stem" in keys["model"]:
        model = {**model, "conv_stem_weights": None}
    sources = [dict(source) for source in keys["label_sources"]]
    for source in sources:
        if source["name"] == "guidance":
            guide = {"model": small_clip, "window_px": 32, "stride_px": 32}
            labeler = {**source["labeler"], **guide}
            del labeler["weights"]  # the folder has its own
            source["labeler"] = labeler
    return {
        **{key: value for key, value in keys.items() if key not in preset.LENGTHS},
        "model": {**keys["model"], **model},
        "label_sources": sources,
        "crop_px": 32,
        "batch_size": 4,
        "precision": "float32",
        "log_every": 1,
    }
