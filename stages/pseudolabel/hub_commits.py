"""The commits of repositories on the Hugging Face hub that this machine has. Needs no torch."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

CONFIG = "config.json"
"""A small file that every repository of a model has."""


def cached_commit(repository: str, revision: str) -> str | None:
    """The commit that a branch stands for in the cache of this machine; asks no server.

    Args:
        repository: Owner and name.
        revision: A branch, or a commit, which stands for itself.

    Returns:
        40 hex digits; None if the repository is not in the cache.
    """
    import huggingface_hub

    if re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    found = huggingface_hub.try_to_load_from_cache(repository, CONFIG, revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None


def fetch_commit(repository: str, revision: str) -> None:
    """Fetches the commit that a branch stands for now, unless the cache has one of the branch.

    Without a connection nothing happens: loading the model reports it.
    """
    import huggingface_hub

    if cached_commit(repository, revision) is None:
        with suppress(Exception):  # depends on the hub's version and its http library
            # A single request first: offline, the hub's own retries take most of a minute.
            huggingface_hub.file_exists(repository, CONFIG, revision=revision)
            huggingface_hub.hf_hub_download(repository, CONFIG, revision=revision)
