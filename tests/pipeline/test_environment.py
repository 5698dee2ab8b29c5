"""Environment variables in the values of a config."""

from pathlib import Path

import pytest

from pipeline.config.environment import filled
from pipeline.errors import ConfigError

PATH = Path("run.yaml")


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HOME": "/home/me", "X": "x", "EMPTY": "", "ODD": "${X}"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GONE", raising=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${HOME}/a", "/home/me/a"),
        ("${GONE:-b}/a", "b/a"),
        ("${EMPTY:-b}", "b"),
        ("${GONE:-}", ""),
        ("${GONE:-${X}}", "x"),
        ("${GONE:-${ALSO:-${X}y}}z", "xyz"),
        ("${HOME:-${GONE}}", "/home/me"),  # what is not needed need not be set
        ("$${HOME}", "${HOME}"),
        ("a$${HOME:-b}c", "a${HOME:-b}c"),
        ("$$${X}", "$${X}"),
        ("${X}${X}", "xx"),
        ("${ODD}", "${X}"),  # a value is not filled again
        ("$HOME {X} }${X}{", "$HOME {X} }x{"),
        ("cost: 5$", "cost: 5$"),
    ],
)
def test_variables_are_filled_in(text: str, expected: str) -> None:
    assert filled({"a": [text]}, PATH) == {"a": [expected]}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("${GONE}", "the environment variable GONE is not set; set it: export GONE=..."),
        ("${GONE:-${ALSO}}", "the environment variable ALSO is not set"),
        ("${X", "a variable without its closing brace; write ${NAME} or ${NAME:-default}"),
        ("${GONE:-${X}", "a variable without its closing brace"),
        ("${}", "'' is no name of a variable"),
        ("${X Y}", "'X Y' is no name of a variable"),
        ("${X-y}", "'X-y' is no name of a variable"),
        ("${1:-a}", "'1' is no name of a variable"),
    ],
)
def test_what_is_no_variable_is_refused(text: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        filled({"a": text}, PATH)
    assert str(caught.value).startswith(f"run.yaml: {text}: {what}")
