"""`maskmill data split`: which images are labeled, drawn once and kept."""

import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.config.config import load
from pipeline.console import Console
from pipeline.errors import DataError
from stages.ingest.config import IngestConfig, ingest_section
from stages.ingest.split import draw_split
from tests.conftest import VOCABULARY

Split = Callable[..., CompletedProcess[str]]
LINES = [f"images/{n:03d}.jpg masks/{n:03d}.png" for n in range(50)]


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    file = tmp_path / "all.txt"
    file.write_text("\n".join(LINES) + "\n")
    return file


@pytest.fixture
def split(
    maskmill: Callable[..., CompletedProcess[str]],
    tiny: dict[str, Any],
    write_config: Callable[..., Path],
) -> Split:
    """Draws into lists/labeled.txt and lists/unlabeled.txt: ``split("--labeled", 9)``."""
    for role in ("labeled", "unlabeled"):
        tiny["ingest"]["sources"][role]["source"] = {"name": "list", "file": f"lists/{role}.txt"}
    return lambda *arguments: maskmill("data", "split", write_config(tiny), *arguments)


def drawn(tmp_path: Path) -> tuple[list[str], list[str]]:
    labeled, unlabeled = (
        (tmp_path / "lists" / f"{role}.txt").read_text().splitlines()
        for role in ("labeled", "unlabeled")
    )
    return labeled, unlabeled


def forget(tmp_path: Path) -> None:
    for path in (tmp_path / "lists").iterdir():
        path.unlink()


def test_each_line_is_labeled_or_unlabeled_and_stays_as_it_was(
    split: Split, pool: Path, tmp_path: Path
) -> None:
    done = split("--labeled", 9, "--seed", 3, "--from", pool)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"labeled: 9 of 50, seed 3: {tmp_path}/lists/labeled.txt" in done.stdout
    labeled, unlabeled = drawn(tmp_path)
    assert (len(labeled), len(unlabeled)) == (9, 41)
    assert sorted(labeled + unlabeled) == LINES
    assert labeled == sorted(labeled)  # in the order of the list


def test_a_seed_draws_the_same_images_and_another_one_others(
    split: Split, pool: Path, tmp_path: Path
) -> None:
    found: list[list[str]] = []
    for arguments in (["--labeled", 9], ["--labeled", 9], ["--labeled", 20], ["--labeled", 9]):
        seed = len(found) // 3
        split(*arguments, "--seed", seed, "--from", pool)
        found.append(drawn(tmp_path)[0])
        forget(tmp_path)
        pool.write_text("\n".join(reversed(pool.read_text().splitlines())))
    assert {*found[0]} == {*found[1]}
    assert {*found[0]} < {*found[2]}
    assert {*found[0]} != {*found[3]}


def test_a_draw_is_the_same_in_every_version(split: Split, pool: Path, tmp_path: Path) -> None:
    split("--labeled", 3, "--seed", 0, "--from", pool)
    assert [line[7:10] for line in drawn(tmp_path)[0]] == ["004", "015", "038"]


def test_another_split_is_not_overwritten(split: Split, pool: Path, tmp_path: Path) -> None:
    split("--labeled", 9, "--from", pool)
    before = drawn(tmp_path)
    assert split("--labeled", 9, "--from", pool).returncode == 0
    done = split("--labeled", 8, "--from", pool)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {tmp_path}/lists/labeled.txt: the file already holds another list; "
        "delete it, or name another file in the config\n"
    )
    assert drawn(tmp_path) == before
    (tmp_path / "lists" / "labeled.txt").unlink()
    assert split("--labeled", 8, "--from", pool).returncode == 1  # the other one is still there
    assert not (tmp_path / "lists" / "labeled.txt").exists()


def test_several_lists_are_drawn_from_and_repeated_lines_count_once(
    split: Split, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa.jpg a.png\r\n\nb.jpg b.png\n")
    (tmp_path / "b.txt").write_text("b.jpg b.png\n c.jpg c.png")
    done = split("--labeled", 1, "--from", tmp_path / "a.txt", "--from", tmp_path / "b.txt")
    assert done.returncode == 0
    labeled, unlabeled = drawn(tmp_path)
    assert sorted(labeled + unlabeled) == [" c.jpg c.png", "a.jpg a.png", "b.jpg b.png"]


@pytest.fixture
def folder(tiny: dict[str, Any], data: Path) -> None:
    """One folder for the labeled, the unlabeled and the val images, selected by lists of ids."""
    sources = tiny["ingest"]["sources"]
    for role in ("labeled", "unlabeled", "val"):
        folders = {"images": "all/images", "ids": f"lists/{role}.txt"}
        masks = {} if role == "unlabeled" else {"masks": "all/masks"}
        sources[role]["source"] = {"name": "folder", **folders, **masks}
    for kind in ("images", "masks"):
        (data / "all" / kind / "a").mkdir(parents=True)
        for number in range(6):
            copied = (data / "labeled" / kind / f"{number % 2}.png").read_bytes()
            # Each its own bytes: of equal images one counts.
            (data / "all" / kind / "a" / f"{number}.png").write_bytes(copied + bytes([number]))
    (data / "all" / "masks" / "a" / "5.png").unlink()


def test_images_of_other_sources_are_not_drawn_from_a_folder(
    split: Split, folder: None, tmp_path: Path
) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "val.txt").write_text("a/3\n")
    done = split("--labeled", 2)
    assert (done.returncode, done.stderr) == (0, "")
    labeled, unlabeled = drawn(tmp_path)
    assert (len(labeled), len(unlabeled)) == (2, 2)
    assert sorted(labeled + unlabeled) == ["a/0", "a/1", "a/2", "a/4"]


def test_a_drawn_split_can_be_ingested(
    split: Split,
    folder: None,
    tmp_path: Path,
    maskmill: Callable[..., CompletedProcess[str]],
) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "val.txt").write_text("a/3\n")
    assert split("--labeled", 3).returncode == 0
    done = maskmill("run", "ingest", "--config", tmp_path / "config.yaml")
    assert done.returncode == 0, done.stderr
    assert "ingest: 3 labeled, 2 ood, 1 test, 1 unlabeled, 1 val; in" in done.stderr


ERRORS: list[tuple[list[object], str]] = [
    (
        ["--labeled", 50],
        r"--labeled: cannot draw 50 labeled images from 50 and leave unlabeled ones; draw 1 to 49",
    ),
    (["--labeled", 0], r"--labeled: cannot draw 0 labeled images from 50 and"),
    (["--labeled", 3, "--from", "none.txt"], r"--from none.txt: cannot read the list: No such"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_a_draw_that_cannot_be_is_one_line(
    arguments: list[object], message: str, split: Split, pool: Path, tmp_path: Path
) -> None:
    done = split("--from", pool, *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert re.match(f"error: {message}", done.stderr)
    assert not (tmp_path / "lists").exists()


def test_a_list_alone_is_no_folder_to_draw_from(split: Split) -> None:
    done = split("--labeled", 3)
    assert done.returncode == 1
    assert (
        "labeled.source: images can be drawn only from a source `folder`, "
        "and this is another kind; name the lists to draw from with --from\n" in done.stderr
    )


def test_the_config_must_say_where_to_write(split: Split, pool: Path, tiny: dict[str, Any]) -> None:
    sources = tiny["ingest"]["sources"]
    sources["labeled"]["source"]["file"] = "labeled.parquet"
    done = split("--labeled", 3, "--from", pool)
    assert "the labeled source has no list file; name the text file" in done.stderr
    sources["more"] = sources["labeled"]
    done = split("--labeled", 3, "--from", pool)
    assert (
        "ingest.sources: 2 sources have the role labeled; use exactly one; its list" in done.stderr
    )


@pytest.mark.parametrize(
    "spelling", ["lists/labeled.txt", "lists/../lists/labeled.txt", "link.txt"]
)
def test_one_file_is_not_the_list_of_both(
    spelling: str, split: Split, pool: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "link.txt").symlink_to(tmp_path / "lists" / "labeled.txt")
    tiny["ingest"]["sources"]["unlabeled"]["source"]["file"] = spelling
    done = split("--labeled", 9, "--from", pool)
    assert (done.returncode, done.stdout) == (1, "")
    where = f"{tmp_path}/config.yaml: ingest.sources"
    assert done.stderr == (
        f"error: {where}.labeled.source: its list {tmp_path}/lists/labeled.txt is also the list of "
        f"{where}.unlabeled.source; name a file of its own for each source\n"
    )
    assert not (tmp_path / "lists").exists()


PARTS = [
    "a",
    "b",
    ".",
    " ",
    "\t",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x85",
    "\u2028",
    "\u2029",
    "\xa0",
    "\ufeff",
]
PARTS += ["\r", "\n", "\udcff", ",", "é", ".jpg", "/"]
NAMES = st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map("".join)
STEMS = NAMES.filter(lambda name: "/" not in (name[0], name[-1]) and "/." not in f"/{name}")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.sets(STEMS.filter(lambda name: "//" not in name), min_size=2, max_size=4))
def test_ingest_reads_the_names_that_split_writes(stems: set[str]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        for kind, stem in ((kind, stem) for stem in stems for kind in ("images", "masks")):
            path = Path(f"{folder}/{kind}/{stem}.png")
            assume(not path.parent.is_file())
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        source = {"name": "folder", "images": "images"}
        sources = {
            "labeled": {"role": "labeled", "source": {**source, "masks": "masks", "ids": "1.txt"}},
            "unlabeled": {"role": "unlabeled", "source": {**source, "ids": "2.txt"}},
        }
        values = {"run": "x", "data": name, "vocabulary": "v.yaml", "workspace": name}
        (folder / "v.yaml").write_text(yaml.safe_dump(VOCABULARY))
        (folder / "c.yaml").write_text(yaml.safe_dump({**values, "ingest": {"sources": sources}}))
        config = load(folder / "c.yaml", {"ingest": IngestConfig})
        wrong = [stem for stem in stems if re.search("\n|\r$|^\ufeff|\udcff", stem)]
        if wrong:
            with pytest.raises(DataError, match="a list cannot hold these names: ") as error:
                draw_split(config, Console(), labeled=1, seed=0, lists=[])
            assert all(repr(f"{stem}.png")[1:-1] in str(error.value) for stem in wrong)
            return
        draw_split(config, Console(), labeled=1, seed=0, lists=[])
        found = [
            path.removeprefix(f"{folder}/images/").removesuffix(".png")
            for name, source in ingest_section(config).sources.items()
            for path in source.create(config, name).list()["image"].to_pylist()
        ]
        assert sorted(found) == sorted(stems)


def test_ids_of_a_folder_are_not_written_to_a_list_of_paths(
    split: Split, folder: None, tiny: dict[str, Any]
) -> None:
    tiny["ingest"]["sources"]["unlabeled"]["source"] = {"name": "list", "file": "lists/u.txt"}
    done = split("--labeled", 2)
    assert done.returncode == 1
    assert "unlabeled.source: images can be drawn only from a source `folder`" in done.stderr
