"""Published files from a real server that cuts, refuses and lies."""

import hashlib
import threading
from pathlib import Path

import pytest

from pipeline.console import Console
from pipeline.errors import WeightsError
from pipeline.files.download import Published, fetch
from tests.file_server import FileServer

Server = tuple[FileServer, str]
CONTENT = bytes(range(251)) * 20_000  # 5 MB
WHERE = "propose.model: vit_b"


@pytest.fixture(autouse=True)
def _own_cache(machine_cache: Path) -> None:
    """Each test its own."""


@pytest.fixture
def published(file_server: Server) -> Published:
    server, address = file_server
    return Published(f"{address}/sam/sam.pth", server.add("/sam/sam.pth", CONTENT))


def get(published: Published) -> Path:
    return fetch(published, Console(), WHERE)


def left(machine_cache: Path) -> dict[str, int]:
    """Files beside the lock, and their sizes."""
    files = (machine_cache / "weights").iterdir()
    return {path.name: path.stat().st_size for path in files if not path.name.endswith(".lock")}


def refusal(published: Published) -> str:
    with pytest.raises(WeightsError) as raised:
        get(published)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_file_is_fetched_once_and_shows_its_progress(
    published: Published,
    file_server: Server,
    machine_cache: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = get(published)
    assert path == machine_cache / "weights/sam.pth"
    assert path.read_bytes() == CONTENT
    assert capsys.readouterr().err.splitlines()[-1] == "download sam.pth: 5/5 MB"
    assert get(published) == path
    assert file_server[0].requests == ["GET /sam/sam.pth"]
    assert left(machine_cache) == {"sam.pth": len(CONTENT)}


@pytest.mark.parametrize("cuts", [[3_000_000], [1, 2_000_000, 1_000_000]])
def test_a_cut_connection_is_gone_on_with(
    published: Published, file_server: Server, machine_cache: Path, cuts: list[int]
) -> None:
    server, _ = file_server
    server.cuts += cuts
    assert get(published).read_bytes() == CONTENT
    starts = [sum(cuts[: number + 1]) for number in range(len(cuts))]
    ranges = [f"GET /sam/sam.pth bytes={start}-" for start in starts]
    assert server.requests == ["GET /sam/sam.pth", *ranges]
    assert left(machine_cache) == {"sam.pth": len(CONTENT)}


def test_what_came_is_kept_for_the_next_command(
    published: Published, file_server: Server, machine_cache: Path
) -> None:
    server, _ = file_server
    server.cuts += [4_000_000, 0]
    assert refusal(published) == (
        f"{WHERE}: sam.pth cannot be downloaded: the connection was lost; run again to "
        f"resume the download; or fetch {published.url} and put it at {published.path}"
    )
    assert left(machine_cache) == {".sam.pth.part": 4_000_000}
    assert get(published).read_bytes() == CONTENT
    assert server.requests[-1] == "GET /sam/sam.pth bytes=4000000-"


def test_a_server_that_gives_no_parts_is_asked_for_all(
    published: Published, file_server: Server, machine_cache: Path
) -> None:
    server, _ = file_server
    server.has_ranges = False
    server.cuts += [1_000_000, 2_000_000]
    assert get(published).read_bytes() == CONTENT
    published.path.unlink()
    server.cuts += [2_000_000, 2_000_000]  # it never comes further
    assert "the connection was lost" in refusal(published)
    assert left(machine_cache) == {".sam.pth.part": 2_000_000}


def test_all_of_it_that_was_not_named_yet_is_not_fetched_again(
    published: Published, machine_cache: Path
) -> None:
    get(published).rename(machine_cache / "weights/.sam.pth.part")
    assert get(published).read_bytes() == CONTENT


def test_other_bytes_than_were_published_are_refused(
    published: Published, file_server: Server, machine_cache: Path
) -> None:
    server, address = file_server
    other = server.add("/sam/sam.pth", b"a page that says no")
    assert refusal(published) == (
        f"{WHERE}: {address}/sam/sam.pth has SHA-256 {other[:12]}, not the published "
        f"{published.sha256[:12]}; run again to download it from the start; or fetch "
        f"{published.url} and put it at {published.path}"
    )
    assert left(machine_cache) == {}


def test_a_wrong_beginning_is_not_gone_on_with_for_ever(
    published: Published, machine_cache: Path
) -> None:
    (machine_cache / "weights").mkdir(parents=True)
    (machine_cache / "weights/.sam.pth.part").write_bytes(b"of another file")
    assert "not the published" in refusal(published)
    assert left(machine_cache) == {}
    assert get(published).read_bytes() == CONTENT


def test_a_file_that_changed_in_its_place_is_refused(published: Published) -> None:
    path = get(published)
    path.write_bytes(CONTENT[:-1])
    assert refusal(published) == (
        f"{path}: this is not the published sam.pth: its SHA-256 differs; delete it, then run again"
    )


def test_a_file_put_there_by_hand_is_taken(published: Published, file_server: Server) -> None:
    published.path.parent.mkdir(parents=True)
    published.path.write_bytes(CONTENT)
    assert get(published) == published.path
    assert file_server[0].requests == []


@pytest.mark.parametrize("kind", ["no server", "no file"])
def test_offline_it_says_which_file_to_put_where(
    published: Published, file_server: Server, machine_cache: Path, kind: str
) -> None:
    server, _ = file_server
    server.files.clear()
    reason = "the server says 404 Not Found"
    if kind == "no server":
        published = Published("http://127.0.0.1:9/sam.pth", published.sha256)
        reason = "[Errno 111] Connection refused"
    assert refusal(published) == (
        f"{WHERE}: sam.pth cannot be downloaded: {reason}; on a machine with a connection, "
        f"fetch {published.url} and put it at {machine_cache}/weights/sam.pth"
    )
    assert left(machine_cache) == {}


def test_several_at_once_that_want_a_file_fetch_it_once(
    published: Published, file_server: Server
) -> None:
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(get(published).read_bytes())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [hashlib.sha256(content).hexdigest() for content in found] == [published.sha256] * 4
    assert file_server[0].requests == ["GET /sam/sam.pth"]
