import os
from pathlib import Path

from stages.ingest.stamps import stamp


def test_a_stamp_changes_with_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    first = stamp(str(path))
    os.utime(path, ns=(1, 1))
    second = stamp(str(path))
    path.write_text("longer")
    os.utime(path, ns=(1, 1))
    assert len({first, second, stamp(str(path))}) == 3
    assert stamp(str(tmp_path / "none")) is None
    assert stamp("a\0b") is None
    assert stamp(None) is None
