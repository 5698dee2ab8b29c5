"""Open-vocabulary labels from CLIP's own features, with no training: MaskCLIP, SCLIP, GEM."""

from __future__ import annotations

from stages.models.clip.clip_weights import ClipConfig
from stages.pseudolabel.labelers._clip_labeler import ClipLabeler


class DenseClip(ClipLabeler):
    """Compares a CLIP feature of every location with the texts of all classes."""

    Config = ClipConfig
    version = 2
