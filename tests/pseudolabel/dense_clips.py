"""Builds the labeler `dense_clip`."""

from typing import Any

import torch

from pipeline.config.vocabulary import Vocabulary
from stages.models.clip.clip_weights import ClipConfig
from stages.pseudolabel.labelers.dense_clip import DenseClip

CPU = torch.device("cpu")
CHECKPOINT = "open_clip_model.safetensors"


def config(**keys: Any) -> ClipConfig:
    return ClipConfig(**{"window_px": 32, "stride_px": 16, **keys})


def loaded(vocabulary: Vocabulary, **keys: Any) -> DenseClip:
    labeler = DenseClip(config(**keys), vocabulary)
    labeler.load(CPU)
    return labeler
