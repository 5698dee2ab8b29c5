from typing import Any

import pytest


@pytest.fixture
def stage_one(tiny: dict[str, Any]) -> dict[str, Any]:
    """Label files as labels: four shards of images, of which two are labeled."""
    pseudolabel = {
        "size_px": 32,
        "roles": ["labeled", "val", "test"],
        "labelers": {"truth": "files"},
    }
    ingest = {**tiny["ingest"], "shard_size": 2}
    return {**tiny, "ingest": ingest, "pseudolabel": pseudolabel}
