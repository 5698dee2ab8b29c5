"""The errors that docs/troubleshooting.md explains are those of the code."""

import ast
import re

import pytest

from tests.repository import ROOT, present

PAGE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
QUOTED = [text for row in ROWS for text in re.findall("`([^`]+)`", row)]


def texts_of_code() -> str:
    """All texts in the code, with nothing in the place of values."""
    found = []
    for package in ("pipeline", "stages", "maskmill"):
        for path in present(f"{package}/**/*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.append("".join(str(getattr(each, "value", "")) for each in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


TEXTS = texts_of_code()


@pytest.mark.parametrize("text", QUOTED)
def test_an_error_that_is_explained_exists(text: str) -> None:
    assert text in TEXTS
