"""Images with difficult masks, and a run that has them as labeled, val and web images."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from PIL import Image

Bytes = npt.NDArray[np.uint8]
NAMES = ("background", "cat", "dog & <co>", "hat")


def masks() -> dict[str, Bytes]:
    """Class ids 0 to 3 and 255: a hole, touching classes, lines, single pixels, nothing."""
    rng = np.random.default_rng(0)
    found = {name: np.zeros(size, np.uint8) for name, size in _SIZES.items()}
    ring = found["ring"]
    ring[5:40, 5:50], ring[12:30, 12:25], ring[12:20, 30:44], ring[15, 33:40] = 1, 0, 2, 1
    found["thin"][3, 2:40], found["thin"][10:30, 7], found["thin"][40, 40] = 1, 2, 3
    noise = rng.integers(0, 8, found["noise"].shape)
    found["noise"][:] = np.array([0, 0, 1, 1, 2, 3, 255, 0], np.uint8)[noise]
    found["ignored"][:] = 255
    found["full"][:] = 3
    return found


_SIZES = {
    "ring": (48, 64),
    "thin": (47, 65),
    "noise": (31, 33),
    "ignored": (48, 64),
    "full": (20, 64),
    "empty": (48, 64),
}


def photo(size: tuple[int, int], seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Every mask is one of a labeled image, of a val image and of a web image."""
    for number, role in enumerate(("labeled", "val", "ood")):
        for folder in ("images", "masks"):
            (tmp_path / role / folder).mkdir(parents=True)
        for seed, (name, mask) in enumerate(masks().items()):
            ending = ".jpg" if name == "thin" else ".png"
            image = photo(mask.shape, 10 * number + seed)
            image.save(tmp_path / role / "images" / f"{name}{ending}")
            Image.fromarray(mask).save(tmp_path / role / "masks" / f"{name}.png")
    classes = [{"name": name, "color": f"#0{number}0000"} for number, name in enumerate(NAMES)]
    vocabulary = {"name": "odd", "background": "background", "classes": classes}
    (tmp_path / "vocabulary.yaml").write_text(yaml.safe_dump(vocabulary))
    sources = {
        role: {
            "role": role,
            "source": {"name": "folder", "images": f"{role}/images", "masks": f"{role}/masks"},
        }
        for role in ("labeled", "val", "ood")
    }
    values = {
        "run": "odd",
        "workspace": str(tmp_path / "workspace"),
        "data": str(tmp_path),
        "vocabulary": "vocabulary.yaml",
        "ingest": {"shard_size": 4, "sources": sources},
        "pseudolabel": {"size_px": 64, "labelers": {"files": {"name": "files"}}},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def run(config: Path, maskmill: Callable[..., CompletedProcess[str]]) -> Path:
    """The config of the run, which is done."""
    done = maskmill("run", "pseudolabel", "--config", config)
    assert done.returncode == 0, done.stderr
    return config


@pytest.fixture
def export(
    run: Path, maskmill: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> Callable[..., Path]:
    """Exports labeled and val images: ``export("coco")``; returns the folder."""

    def to(form: str, *more: Any) -> Path:
        out = tmp_path / f"out-{form}"
        chosen = more or ("--roles", "labeled,val")
        done = maskmill("export", "labels", "--config", run, "--to", form, "--out", out, *chosen)
        assert done.returncode == 0, done.stderr
        return out

    return to
