"""Images that are gone keep rows and labels until `gc`; many at once are asked about."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.records import manifest, part_file, tables
from tests.finished_run import stamps
from tests.ingest.identity import Labeled, labeled

__all__ = ["labeled"]


def take_away(run: Labeled, *places: str) -> Callable[[], None]:
    """Moves images with their masks out of the data; the result brings them back."""
    moved: list[tuple[Path, Path]] = []
    for number, place in enumerate(places):
        for kind in ("images", "masks"):
            path = run.data / place.replace("*", kind)
            target = run.folder / f"away-{number}-{kind}"
            path.rename(target)
            moved.append((path, target))

    def bring_back() -> None:
        for path, target in moved:
            if path.is_dir():
                path.rmdir()
            target.rename(path)

    return bring_back


def parts(run: Labeled) -> dict[str, tuple[int, int]]:
    """Stamps of the parts of all manifests."""
    found = stamps(run.folder / "work")
    return {name: stamp for name, stamp in found.items() if name.endswith(".parquet")}


def test_an_image_that_vanishes_and_returns_costs_nothing(labeled: Labeled) -> None:
    before, labels = labeled.images(), labeled.labels()
    bring_back = take_away(labeled, "ood/*/0/0.png")
    assert labeled.labeled_again() == set()
    now = labeled.images()
    assert now.index.equals(before.index)
    assert (now.status == "gone").sum() == 1
    assert labeled.labels().equals(labels)
    assert "ingest: 1 gone: rows and labels stay until `maskmill gc`" in labeled.run("status")
    assert labeled.labeled_again() == set()
    bring_back()
    assert labeled.labeled_again() == set()
    assert labeled.images().status.equals(before.status)


def empty_subfolder(run: Labeled) -> Callable[[], None]:
    bring_back = take_away(run, "ood/*/1")
    (run.data / "ood/images/1").mkdir()
    (run.data / "ood/masks/1").mkdir()
    return bring_back


def absent_subfolder(run: Labeled) -> Callable[[], None]:
    return take_away(run, "ood/*/1")


def absent_folder(run: Labeled) -> Callable[[], None]:
    return take_away(run, "ood/*")


def empty_folder(run: Labeled) -> Callable[[], None]:
    bring_back = take_away(run, "ood/*")
    (run.data / "ood/images").mkdir()
    (run.data / "ood/masks").mkdir()
    return bring_back


def empty_mount_points(run: Labeled) -> Callable[[], None]:
    bring_back = take_away(run, "ood/*/0", "ood/*/1", "ood/*/2")
    for number in range(3):
        for kind in ("images", "masks"):
            (run.data / f"ood/{kind}/{number}").mkdir()
    return bring_back


def files_of_a_list(run: Labeled) -> Callable[[], None]:
    names = sorted(path.relative_to(run.data) for path in (run.data / "ood/images").rglob("*.png"))
    pairs = (f"{name} {str(name).replace('images', 'masks')}" for name in names)
    (run.folder / "list.txt").write_text("\n".join(pairs))
    run.sources["ood"]["source"] = {"name": "list", "file": "list.txt"}
    run.run()
    return take_away(run, "ood/*/1")


@pytest.mark.parametrize(
    ("vanish", "count"),
    [
        (empty_subfolder, "4 of 12"),
        pytest.param(absent_subfolder, "4 of 12", marks=pytest.mark.slow),
        (absent_folder, "all 12"),
        pytest.param(empty_folder, "all 12", marks=pytest.mark.slow),
        (empty_mount_points, "all 12"),
        (files_of_a_list, "4 of 12"),
    ],
)
def test_a_run_asks_before_it_goes_on_without_a_tenth_of_a_source(
    labeled: Labeled, vanish: Callable[[Labeled], Callable[[], None]], count: str
) -> None:
    before = labeled.images()
    bring_back = vanish(labeled)
    files = parts(labeled)
    refused = labeled.outcome()
    assert refused.returncode == 1
    what = f"{count} images of source ood are gone, first: {labeled.data}/ood/images/"
    assert f"config.yaml: ingest.sources: {what}" in refused.stderr
    assert "if a disk is not mounted, mount it" in refused.stderr
    assert "maskmill run --accept-gone" in refused.stderr
    assert f"ingest: {what}" in labeled.run("status")
    assert parts(labeled) == files
    assert labeled.labeled_again("run --accept-gone") == set()
    assert labeled.images().status.value_counts()["gone"] == (12 if count == "all 12" else 4)
    assert labeled.labeled_again() == set()  # it was said once
    bring_back()
    assert labeled.labeled_again() == set()
    assert labeled.images().status.equals(before.status)


def test_all_sources_are_named_at_once(labeled: Labeled) -> None:
    take_away(labeled, "ood/*/1", "unlabeled/*")
    refused = labeled.outcome().stderr
    assert "4 of 12 images of source ood are gone, first: " in refused
    assert "; all 12 images of source unlabeled are gone, first: " in refused


def test_a_source_that_the_config_drops_is_not_missed(labeled: Labeled) -> None:
    source = labeled.sources.pop("ood")
    assert labeled.labeled_again() == set()
    labeled.sources["ood"] = source
    assert labeled.labeled_again() == set()


def test_a_wrong_folder_in_the_config_is_named(labeled: Labeled) -> None:
    labeled.sources["ood"]["source"]["images"] = "ood/imgs"
    assert " (data/ood/imgs is missing or empty); " in labeled.outcome().stderr


def test_sam_masks_of_gone_images_stay_until_gc(labeled: Labeled, propose: dict[str, Any]) -> None:
    labeled.values["propose"] = {**propose, "size_px": 32, "roles": ["ood"]}
    labeled.run("run propose")
    folder = labeled.folder / "work/manifests/moves/proposals"
    before = stamps(folder)
    bring_back = take_away(labeled, "ood/*/0/0.png", "ood/*/1")
    assert "propose: nothing to do" in labeled.run("run propose --accept-gone")
    assert stamps(folder) == before
    bring_back()
    assert "propose: nothing to do" in labeled.run("run propose")
    take_away(labeled, "ood/*/1")
    labeled.run("run propose --accept-gone")
    labeled.run("gc")
    assert before.keys() - stamps(folder).keys() == {"part-00005.parquet"}
    assert "propose: nothing to do" in labeled.run("run propose")


def test_a_training_reads_only_images_that_are_there(labeled: Labeled) -> None:
    from pipeline.config import config as config_file
    from stages.graph import GRAPH
    from stages.train.inputs import TrainInputs

    take_away(labeled, "ood/*/0/0.png")
    labeled.run()
    sections = {stage.name: stage.Config for stage in GRAPH}
    inputs = TrainInputs(config_file.load(labeled.folder / "config.yaml", sections))
    assert len(inputs.train_images("ood", ["truth"])) == 11


def test_labels_made_anew_while_an_image_is_gone_wait_for_it_without_asking(
    labeled: Labeled,
) -> None:
    bring_back = take_away(labeled, "ood/*/0/0.png")
    labeled.run()
    labeled.values["pseudolabel"]["size_px"] = 48
    assert labeled.labeled_again()
    assert labeled.labeled_again() == set()
    bring_back()
    again = labeled.labeled_again()
    assert len([name for name in again if name.endswith(".parquet")]) == 1
    labeled.values["pseudolabel"]["size_px"] = 32
    assert not [name for name in labeled.labeled_again() if ".zarr" in name]


def test_forced_labels_of_a_shard_with_a_gone_image_are_of_what_is_there(labeled: Labeled) -> None:
    bring_back = take_away(labeled, "ood/*/0/0.png")
    labeled.run()
    labeled.run("run --only pseudolabel --force")
    bring_back()
    labeled.run()
    assert labeled.labels().index.equals(labeled.images().index)
    assert set(labeled.labels().status) == {"ok"}


def test_gc_drops_what_is_gone_and_the_rest_stays_fresh(labeled: Labeled) -> None:
    before, labels = labeled.images(), labeled.labels()
    take_away(labeled, "ood/*/0/0.png", "ood/*/1")
    assert "would drop" not in labeled.run("gc --dry-run")  # no run has seen it yet
    labeled.run("run --accept-gone")
    gone = labeled.images()
    gone = gone[gone.status == "gone"]
    files = stamps(labeled.folder / "work")
    printed = labeled.run("gc --dry-run")
    assert stamps(labeled.folder / "work") == files
    part = Path("work/manifests/moves/images/part-00004.parquet")
    assert f"ingest: would drop 1 row of images that are gone from {part}" in printed
    part = Path("work/manifests/moves/images/part-00005.parquet")
    assert f"ingest: would drop 4 rows of images that are gone from {part}" in printed
    assert printed.count("pseudolabel: would drop ") == 2
    labeled.run("gc")
    rest = before.index.difference(gone.index)
    assert labeled.images().index.equals(rest)
    assert labeled.labels().equals(labels.loc[rest])
    assert labeled.labeled_again() == set()
    assert labeled.run("verify").count("no damage\n")
    assert labeled.run("gc") == "nothing to delete\n"


def test_gc_keeps_what_may_be_at_another_place(labeled: Labeled) -> None:
    bring_back = take_away(labeled, "ood/*/0/0.png")
    labeled.run()
    bring_back()
    place = labeled.data / "ood/images/0/0.png"
    place.rename(place.with_name("00.png"))
    mask = labeled.data / "ood/masks/0/0.png"
    mask.rename(mask.with_name("00.png"))
    labeled.run("gc")
    assert labeled.labeled_again() == set()
    assert set(labeled.images().status) == {"ok"}


def test_an_image_that_returns_after_gc_is_a_new_one(labeled: Labeled) -> None:
    bring_back = take_away(labeled, "ood/*/0/0.png")
    labeled.run()
    labeled.run("gc")
    bring_back()
    labeled.labeled_again()
    images = labeled.images()
    assert images.image_id.is_unique
    assert set(images.status) == {"ok"}
    assert labeled.labels().index.equals(images.index)


def test_the_whole_data_gone_and_back(labeled: Labeled) -> None:
    labeled.data.rename(labeled.folder / "away")
    refused = labeled.outcome()
    assert refused.returncode == 1
    assert "all 12 images of source ood are gone" in refused.stderr
    shutil.move(labeled.folder / "away", labeled.data)
    assert labeled.labeled_again() == set()


def test_an_image_that_could_not_be_read_once_keeps_its_label(labeled: Labeled) -> None:
    """The rows that such a run of ingest leaves."""
    part = labeled.folder / "work/manifests/moves/images/part-00000.parquet"
    facts = part_file.read_facts(part)
    assert facts is not None
    rows = manifest.read_part(part, tables.IMAGES).to_pylist()
    rows[0] |= {"status": "failed", "error_message": "cannot be read: Input/output error"}
    part_file.replace_rows(part, tables.IMAGES.rows(rows), facts)
    assert labeled.labeled_again() == set()


@pytest.mark.parametrize("end", [0, 1])
def test_a_damaged_part_of_labels_is_made_again_though_images_are_gone(
    labeled: Labeled, end: int
) -> None:
    before = labeled.labels()
    folder = labeled.folder / "work/manifests/moves/pseudo_labels/labeler=truth"
    part = max(folder.glob("part-*.parquet"))
    take_away(labeled, "ood/*/0/0.png")
    content = part.read_bytes()
    part.write_bytes(content[:-7] if end else b"")
    assert "damaged manifest part" in labeled.run("status")
    labeled.run("run ingest")
    labeled.run("gc --dry-run")
    labeled.run()
    assert labeled.labels().index.equals(before.index)
    part.write_bytes(content[:-7])
    labeled.run("gc")
    labeled.run()
    assert len(labeled.labels()) == len(before) - 1
    assert "no damage" in labeled.run("verify")


def test_many_images_that_are_gone_are_asked_about_before_models_are_loaded(
    labeled: Labeled,
) -> None:
    """A rehearsal may download gigabytes; here it would find a fault."""
    labeled.values["pseudolabel"]["device"] = "cuda"
    take_away(labeled, "ood/*/1")
    (error,) = (line for line in labeled.outcome().stderr.splitlines() if "error: " in line)
    assert "4 of 12 images of source ood are gone" in error
