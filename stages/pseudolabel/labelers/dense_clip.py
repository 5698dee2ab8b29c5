"""Open-vocabulary labels from CLIP's own features, with no training: MaskCLIP, SCLIP, GEM."""

from __future__ import annotations

from stages.pseudolabel.clip_labeler import ClipLabeler
from stages.pseudolabel.clip_weights import ClipConfig


class DenseClip(ClipLabeler):
    """Compares a CLIP feature of every location with the texts of all classes."""

    Config = ClipConfig
    version = 2
