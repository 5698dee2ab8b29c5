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
