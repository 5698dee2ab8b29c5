"""Training-free open-vocabulary labels from CLIP features: MaskCLIP, SCLIP, GEM."""

from __future__ import annotations

from stages.models.clip.clip_weights import ClipConfig
from stages.pseudolabel.labelers._clip_labeler import ClipLabeler


class DenseClip(ClipLabeler):
    """Compares the CLIP feature of every location with the texts of all classes."""

    Config = ClipConfig
    version = 3
