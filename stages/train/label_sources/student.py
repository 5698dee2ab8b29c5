"""The student's own weak view labels its strong views (FixMatch, UniMatch)."""

from stages.train.label_sources.base import OnlineConfig, OnlineSource


class StudentSource(OnlineSource):
    """What the network in training sees."""

    Config = OnlineConfig
    version = 1
