"""The mean teacher labels the strong views (ClassMix, UniMatch V2 arXiv 2410.10777)."""

from stages.train.label_sources.base import Asked, OnlineConfig, OnlineSource


class EmaSource(OnlineSource):
    """What the student's moving average sees.

    It is always in eval mode: its labels depend neither on the rest of the batch nor on dropout.
    """

    Config = OnlineConfig
    version = 1

    @property
    def asks(self) -> Asked:
        """See `LabelSource.asks`."""
        return "teacher"
