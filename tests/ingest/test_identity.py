"""An image is its bytes: whatever place they are found at, nothing is labeled again."""

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ingest.identity import COUNTS, Labeled, labeled

__all__ = ["labeled"]


def spelled_absolute(run: Labeled) -> None:
    run.values["data"] = os.path.abspath(run.data)


def spelled_with_points(run: Labeled) -> None:
    run.values["data"] = "./data/../data/."


def linked(run: Labeled) -> None:
    (run.folder / "link").symlink_to(run.folder / "data")
    run.values["data"] = f"{run.folder}/link/"


def moved_mount_point(run: Labeled) -> None:
    run.data.rename(run.folder / "elsewhere")
    run.values["data"] = f"{run.folder}/./elsewhere/../elsewhere"


def copied_to_another_disk(run: Labeled) -> None:
    shutil.copytree(run.data, run.folder / "copy", copy_function=shutil.copy)
    shutil.rmtree(run.data)
    run.values["data"] = str(run.folder / "copy")


def renamed_sources(run: Labeled) -> None:
    run.values["ingest"]["sources"] = {f"new-{name}": one for name, one in run.sources.items()}


def sources_in_another_order(run: Labeled) -> None:
    run.values["ingest"]["sources"] = dict(reversed(run.sources.items()))


def renamed_files(run: Labeled) -> None:
    for kind in ("images", "masks"):
        for path in sorted((run.data / "ood" / kind).rglob("*.png")):
            path.rename(path.with_name(f"x{path.name}"))


def images_as_a_list(run: Labeled) -> None:
    names = sorted(path.relative_to(run.data) for path in (run.data / "ood/images").rglob("*.png"))
    pairs = (f"{name} {str(name).replace('images', 'masks')}" for name in names)
    (run.folder / "list.txt").write_text("\n".join(pairs))
    run.sources["ood"]["source"] = {"name": "list", "file": "list.txt"}


@pytest.mark.parametrize(
    "change",
    [
        spelled_absolute,
        pytest.param(spelled_with_points, marks=pytest.mark.slow),
        pytest.param(linked, marks=pytest.mark.slow),
        moved_mount_point,
        copied_to_another_disk,
        renamed_sources,
        pytest.param(sources_in_another_order, marks=pytest.mark.slow),
        renamed_files,
        images_as_a_list,
    ],
)
def test_the_same_bytes_at_another_place_keep_rows_and_labels(
    labeled: Labeled, change: Callable[[Labeled], None]
) -> None:
    before = labeled.images()
    change(labeled)
    assert labeled.labeled_again() == set()
    after = labeled.images()
    assert after.image_id.equals(before.image_id)
    assert set(after.status) == {"ok"}
    assert all(Path(uri).exists() for uri in [*after.uri, *after.mask_uri])


def test_of_a_renamed_source_with_new_images_only_these_are_labeled(labeled: Labeled) -> None:
    before = labeled.images()
    labeled.sources["web"] = labeled.sources.pop("ood")
    for kind in ("images", "masks"):
        shutil.copy(labeled.data / f"ood/{kind}/0/0.png", labeled.data / f"ood/{kind}/0/00.png")
    with (labeled.data / "ood/images/0/00.png").open("ab") as file:
        file.write(b"other bytes")
    again = labeled.labeled_again()
    assert {name.rpartition("/")[2] for name in again if name.endswith("parquet")} == {
        "part-00007.parquet"
    }
    after = labeled.images()
    assert after.image_id[before.index].equals(before.image_id)
    assert len(after) == len(before) + 1


def test_an_image_that_changes_its_role_keeps_its_row_and_label(labeled: Labeled) -> None:
    before = labeled.images()
    for kind in ("images", "masks"):
        place = labeled.data / f"ood/{kind}/0/0.png"
        place.rename(labeled.data / f"unlabeled/{kind}/from-ood.png")
    assert labeled.labeled_again() == set()
    after = labeled.images()
    assert after.image_id.equals(before.image_id)
    (moved,) = after.index[after.uri.str.endswith("from-ood.png")]
    assert (before.role[moved], after.role[moved]) == ("ood", "unlabeled")
    labeled.values["pseudolabel"]["roles"] = ["ood"]
    labeled.run()
    for kind in ("images", "masks"):
        place = labeled.data / f"ood/{kind}/1/4.png"
        place.rename(labeled.data / f"unlabeled/{kind}/second.png")
    assert labeled.labeled_again() == set()  # the label stays, though no training reads it


def test_repeated_bytes_keep_their_order(labeled: Labeled) -> None:
    for kind in ("images", "masks"):
        for name in ("a", "b"):
            place = labeled.data / f"ood/{kind}"
            shutil.copy(place / "0/0.png", place / f"{name}.png")
    labeled.run()
    before = labeled.images()
    assert before.status.value_counts()["duplicate"] == 2
    moved_mount_point(labeled)
    assert labeled.labeled_again() == set()
    after = labeled.images()
    assert after.status.equals(before.status)
    assert after.uri.str.rpartition("/")[2].equals(before.uri.str.rpartition("/")[2])


def test_of_two_equal_images_the_one_that_stays_takes_the_label(labeled: Labeled) -> None:
    for kind in ("images", "masks"):
        place = labeled.data / f"ood/{kind}"
        shutil.copy(place / "0/0.png", place / "twin.png")
    labeled.run()
    before = labeled.images()
    (row,) = before.index[before.uri.str.endswith("ood/images/0/0.png")]
    for kind in ("images", "masks"):
        (labeled.data / f"ood/{kind}/0/0.png").rename(labeled.folder / f"{kind}.png")
    assert labeled.labeled_again() == set()
    after = labeled.images()
    assert (after.status[row], after.uri[row][-8:]) == ("ok", "twin.png")
    assert after[after.status == "gone"].uri.str.endswith("ood/images/0/0.png").tolist() == [True]
    for kind in ("images", "masks"):
        (labeled.folder / f"{kind}.png").rename(labeled.data / f"ood/{kind}/0/0.png")
    assert labeled.labeled_again() == set()
    assert sorted(labeled.images().status) == sorted(before.status)


@pytest.mark.parametrize("is_repacked", [False, True])
def test_an_archive_that_is_renamed_or_packed_again(labeled: Labeled, is_repacked: bool) -> None:
    pictures = sorted((labeled.data / "ood/images").rglob("*.png"))
    packed = labeled.folder / "web/0.tar"
    packed.parent.mkdir()
    for target in (packed, packed.with_name("1.tar")):
        with tarfile.open(target, "w") as archive:
            for picture in pictures:
                archive.add(picture, picture.name)
        pictures.reverse()
    aside = packed.with_name("1.tar").rename(labeled.folder / "aside")
    source = {"name": "webdataset", "shards": str(packed.parent)}
    labeled.sources["ood"]["source"] = source
    labeled.run("run --accept-gone")
    before = labeled.images()
    assert (before.status == "ok").sum() == sum(COUNTS.values())
    packed.rename(packed.with_name("other.tar"))
    if is_repacked:
        aside.replace(packed.with_name("other.tar"))
    assert labeled.labeled_again() == set()
    after = labeled.images()
    assert after.image_id.equals(before.image_id)
    assert after.status.equals(before.status)


def test_other_bytes_at_the_same_place_are_labeled(labeled: Labeled) -> None:
    place = labeled.data / "ood/images/0/0.png"
    place.write_bytes(place.read_bytes() + b"x")
    again = labeled.labeled_again()
    assert len([name for name in again if name.endswith("parquet")]) == 1
