from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stages.sandbox.world.names import TARGETS
from stages.sandbox.world.world import render

COUNTS = {"labeled": 3, "unlabeled": 2, "ood": 4, "val": 2, "test": 2}
Draw = Callable[..., CompletedProcess[str]]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


@pytest.fixture
def draw(maskmill: Draw, workspace: Path) -> Draw:
    """Draws a few small scenes by the default config: ``draw("sandbox.seed=2")``."""
    settings = {"workspace": workspace, "sandbox.long_side_px": 32}
    settings |= {f"sandbox.{role}": count for role, count in COUNTS.items()}

    def run(*overrides: str, command: str = "run", stage: str = "sandbox") -> CompletedProcess[str]:
        pairs = [f"{key}={value}" for key, value in settings.items()]
        arguments = [part for pair in [*pairs, *overrides] for part in ("--set", pair)]
        return maskmill(command, *([stage] if command == "run" else []), *arguments)

    return run


@pytest.fixture
def data(workspace: Path) -> Path:
    return workspace / "artifacts/sandbox/data"


def files(data: Path) -> dict[str, bytes]:
    found = sorted(path for path in data.rglob("*") if path.is_file())
    return {path.relative_to(data).as_posix(): path.read_bytes() for path in found}


def scenes(workspace: Path) -> pd.DataFrame:
    return pd.read_parquet(workspace / "manifests/sandbox/scenes").set_index("uri")


def test_images_of_every_role_and_masks_where_they_may_be_known(draw: Draw, data: Path) -> None:
    assert draw().returncode == 0
    expected = {
        f"{role}/images/{number:05d}.{'jpg' if role == 'ood' else 'png'}"
        for role, count in COUNTS.items()
        for number in range(count)
    }
    expected |= {
        f"{role}/masks/{number:05d}.png"
        for role in ("labeled", "val", "test")
        for number in range(COUNTS[role])
    }
    assert files(data).keys() == expected


def test_the_manifest_draws_every_scene_again(draw: Draw, data: Path, workspace: Path) -> None:
    draw()
    table = scenes(workspace)
    assert len(table) == sum(COUNTS.values())
    assert not table.duplicated(["domain", "seed", "index"]).any()
    assert set(table.domain[table.role == "ood"]) == {"web"}
    assert set(table.domain[table.role != "ood"]) == {"id"}
    for uri in ("val/images/00001.png", "labeled/images/00000.png"):
        row: Any = table.loc[uri]
        scene = render(row["domain"], row["seed"], row["index"], long_side_px=32)
        with (
            Image.open(data / uri) as image,
            Image.open(data / uri.replace("images", "masks")) as mask,
        ):
            np.testing.assert_array_equal(np.asarray(image), scene.image)
            np.testing.assert_array_equal(np.asarray(mask), scene.classes)
            assert np.asarray(mask).max() <= len(TARGETS)
        assert row["caption"] == scene.caption


def test_label_files_of_web_images_only_where_asked_for(draw: Draw, data: Path) -> None:
    draw()
    first = files(data)
    assert "sandbox: sandbox.masks false -> true: ood" in draw("sandbox.ood_masks=true").stderr
    more = files(data)
    assert {name: more[name] for name in first} == first
    assert more.keys() - first.keys() == {f"ood/masks/{n:05d}.png" for n in range(COUNTS["ood"])}


def test_spurious_cues_of_a_role_redraw_that_role(draw: Draw, data: Path) -> None:
    draw()
    first = files(data)
    done = draw("sandbox.spurious_cues=[ood]")
    assert "sandbox: sandbox.spurious_cues false -> true: ood" in done.stderr
    changed = {name for name, content in files(data).items() if content != first[name]}
    assert changed
    assert all(name.startswith("ood/") for name in changed)


def test_drawing_again_gives_the_same_files_and_an_edit_only_its_role(
    draw: Draw, data: Path
) -> None:
    draw()
    first = files(data)
    assert "sandbox: nothing to do, 5 fresh" in draw().stderr
    done = draw("sandbox.val=3")
    assert "sandbox: sandbox.val 2 -> 3: val" in done.stderr
    more = files(data)
    assert {name: more[name] for name in first} == first
    assert more.keys() - first.keys() == {"val/images/00002.png", "val/masks/00002.png"}
    draw("sandbox.val=2")
    assert files(data) == first


def test_another_seed_is_another_world(draw: Draw, data: Path) -> None:
    draw()
    first = files(data)
    assert "sandbox: sandbox.seed 1 -> 2: 5 units" in draw("sandbox.seed=2").stderr
    assert not set(files(data).values()) & set(first.values())


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_role_whose_files_are_gone_is_drawn_again(draw: Draw, data: Path, kind: str) -> None:
    draw()
    first = files(data)
    (data / "test" / kind).rename(data.parent / "elsewhere")
    assert f"sandbox: {data}/test/{kind} is gone: test" in draw().stderr
    assert files(data) == first


def test_a_role_half_drawn_is_not_taken_for_what_it_was(draw: Draw, data: Path) -> None:
    draw()
    first = files(data)
    aside = (data / "val").rename(data.parent / "aside")
    (data / "val").touch()  # where a folder must go: drawing stops
    assert draw("sandbox.val=3").returncode == 1
    (data / "val").unlink()
    aside.rename(data / "val")
    (data / "val/images/00000.png").unlink()
    draw()
    assert files(data) == first


def test_what_it_draws_is_what_ingest_reads(draw: Draw, workspace: Path) -> None:
    done = draw(stage="ingest")
    assert "ingest: 3 labeled, 4 ood, 2 test, 2 unlabeled, 2 val; in " in done.stderr
    images = pd.read_parquet(workspace / "manifests/sandbox/images")
    assert set(images.status) == {"ok"}
    assert images.mask_uri.notna().sum() == 7


def test_it_never_draws_into_a_folder_of_the_user(draw: Draw, tmp_path: Path) -> None:
    mine = tmp_path / "photos" / "test" / "images" / "mine.jpg"
    mine.parent.mkdir(parents=True)
    mine.touch()
    for command in ("run", "status"):
        done = draw(f"data={tmp_path}/photos", command=command)
        assert done.returncode == 1
        assert done.stderr == (
            f"error: --set data={tmp_path}/photos: the sandbox needs a data folder of its own; "
            "remove the key `data`, or the section `sandbox`\n"
        )
    assert mine.exists()


@pytest.mark.parametrize(
    "override", ["sandbox.seed=0", "sandbox.ood=0", "sandbox.val=100001", f"sandbox.seed={2**63}"]
)
def test_a_seed_or_count_that_would_leak_is_refused(draw: Draw, override: str) -> None:
    done = draw(override)
    value = override.partition("=")[2]
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: --set {override}: {value} is wrong; ")
