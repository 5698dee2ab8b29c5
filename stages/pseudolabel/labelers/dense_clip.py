"""Open-vocabulary labels straight from CLIP's own features, with no training (MaskCLIP)."""

from __future__ import annotations

from stages.pseudolabel.clip_labeler import ClipLabeler
from stages.pseudolabel.clip_weights import ClipConfig


class DenseClip(ClipLabeler):
    """Compares a CLIP feature of every location with the texts of all classes."""

    Config = ClipConfig
    version = 1
