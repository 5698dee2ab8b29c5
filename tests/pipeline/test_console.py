import re

import pytest

from pipeline.console import Console

Captured = pytest.CaptureFixture[str]


def test_results_go_to_stdout_and_the_rest_to_stderr(capsys: Captured) -> None:
    console = Console()
    console.line("a result")
    console.note("a note")
    console.warn("a warning")
    console.error("an error")
    captured = capsys.readouterr()
    assert captured.out == "a result\n"
    assert captured.err == "a note\nwarning: a warning\nerror: an error\n"


def test_long_lines_are_not_broken_in_a_pipe(capsys: Captured) -> None:
    Console().line("word " * 100)
    assert capsys.readouterr().out == "word " * 100 + "\n"


def test_wide_tables_are_not_cut_in_a_pipe(capsys: Captured) -> None:
    names = [f"a-long-column-name-{number}" for number in range(12)]
    Console().table("results", names, [[f"value-{name}" for name in names]])
    out = capsys.readouterr().out
    assert all(name in out and f"value-{name}" in out for name in names)
    assert "…" not in out


def test_markup_and_control_characters_are_text(capsys: Captured) -> None:
    console = Console()
    hostile = "[red]a:car:[/red]\x1b[2Jb\nc\udce9"
    console.line(hostile)
    console.error(hostile)
    console.table("t", ["name"], [[hostile]])
    captured = capsys.readouterr()
    shown = r"[red]a:car:[/red]\x1b[2Jb\nc\udce9"
    assert captured.out.startswith(f"{shown}\n")
    assert captured.out.count(shown) == 2
    assert captured.err == f"error: {shown}\n"


def test_progress_is_a_line_every_tenth_in_a_pipe(capsys: Captured) -> None:
    with Console().progress("label", 40, "images") as progress:
        for done in range(40):
            progress.advance(detail=f"loss {done}" if done > 30 else "")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "label: 4/40 images"
    assert lines[-1] == "label: 40/40 images loss 39"


@pytest.mark.parametrize(("total", "lines"), [(0, 0), (1, 1), (3, 3)])
def test_progress_of_few_or_none(total: int, lines: int, capsys: Captured) -> None:
    with Console().progress("label", total, "images") as progress:
        for _ in range(total):
            progress.advance()
    assert len(capsys.readouterr().err.splitlines()) == lines


CARD = ("a labeler of a long name", "9999", "12345", "100.0", "-0.25", "123456.7", "33.5", "92.0")


@pytest.mark.parametrize("width", [30, 40, 80, 120])
def test_tables_keep_their_first_column_and_whole_numbers_on_a_narrow_terminal(
    width: int, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    header = ("labeler", *(f"column{number}" for number in range(1, len(CARD))))
    Console().table("card", header, [CARD, CARD])
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= width
    tables = sum("labeler" in line and "column" in line for line in lines)
    assert tables == sum("┏" in line for line in lines)
    for text in (*header[1:], *CARD[1:]):
        assert any(f" {text} " in line for line in lines), text
    assert "…" not in "".join(lines)
    assert (tables == 1) == (width == 120)
