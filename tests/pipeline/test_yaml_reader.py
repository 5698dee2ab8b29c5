import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.config.config import load, parse_section
from pipeline.config.config_merge import EMPTY
from pipeline.config.vocabulary import Vocabulary
from pipeline.config.yaml_files import parse_value, read_layer, read_yaml
from pipeline.config.yaml_reader import MAX_BYTES, MAX_DEPTH, YamlError, parse
from pipeline.errors import ConfigError, MaskmillError
from stages.graph import GRAPH

SECTIONS = {stage.name: stage.Config for stage in GRAPH}
SHIPPED = sorted([*Path("configs").rglob("*.yaml"), *Path("stages").rglob("*.yaml")])


class Quoted(yaml.SafeDumper):
    """Writes every text in quotes: PyYAML leaves some bare that are numbers in YAML 1.2."""


Quoted.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)
# All but U+0000 and halves of characters.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
KEYS = TEXTS.filter(lambda text: text.lstrip("+-") == "" or not text.lstrip("+-").isdecimal())
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_written_is_read(value: Any) -> None:
    """Also as JSON, which is YAML."""
    assert parse(yaml.dump(value, Dumper=Quoted)) == value
    assert parse(json.dumps(value).replace("\x7f", "\\u007f")) == value


@given(st.binary() | st.text(alphabet="[]{}:,&*a<>|-?!%#'\"\\ \n\t019~@`").map(str.encode))
@settings(max_examples=300)
@example(b"a: \0")
@example(b"\xef\xbb\xbfa: 1")
@example(b'"\\UFFFFFFFF": 1')
@example(b"? - ? - ? -")
@example(b"- !!python/object:os.system x")
def test_any_bytes_are_a_mapping_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    refused = refusal(lambda: read_layer(path, fix="correct it"))
    assert refused is None or refused.startswith(f"{path}: ")
    refused = refusal(lambda: parse_value(content.decode("latin-1"), where="--set a=b"))
    assert refused is None or refused.startswith("--set a=b: ")


def refusal(read: Callable[[], object]) -> str | None:
    """The one line by which a text is refused; None if it is not."""
    try:
        read()
    except MaskmillError as error:
        return str(error) if "\n" not in str(error) else "several lines"
    return None


@pytest.mark.parametrize("path", SHIPPED, ids=str)
def test_shipped_files_mean_what_they_meant(path: Path) -> None:
    """PyYAML reads the same from them, except that its words `on` and `off` are no booleans."""

    def as_words(value: Any) -> Any:
        if isinstance(value, dict):
            return {"on" if key is True else key: as_words(item) for key, item in value.items()}
        return [as_words(item) for item in value] if isinstance(value, list) else value

    text = path.read_text()
    assert as_words(yaml.safe_load(text)) == json_like(parse(text))


def json_like(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: json_like(item) for key, item in value.items()}
    if isinstance(value, list):
        return [json_like(item) for item in value]
    return None if value is EMPTY else value


SCALARS = {
    "1:30": "1:30",
    "010": 10,
    "-007": -7,
    "0o17": 15,
    "0x1f": 31,
    "1_000": "1_000",
    "0b11": "0b11",
    "1e-3": 0.001,
    "1E5": 1e5,
    ".5": 0.5,
    "-.inf": -math.inf,
    "yes": "yes",
    "off": "off",
    "True": True,
    "tRue": "tRue",
    "~": None,
    "Null": None,
    "2024-01-31": "2024-01-31",
    "2024-13-01": "2024-13-01",
    "12:30:45": "12:30:45",
    "'1'": "1",
    '"\\ud83d\\ude00"': "\U0001f600",
    "=": "=",
    "<<": "<<",
    "": EMPTY,
}


@pytest.mark.parametrize("text", SCALARS)
def test_a_scalar_is_what_the_core_schema_says(text: str) -> None:
    value, expected = parse(f"[{text}]")[0] if text else parse("a: ")["a"], SCALARS[text]
    assert value == expected
    assert type(value) is type(expected)


def test_keys_are_integers_or_text_as_written() -> None:
    assert parse("{1: a, on: b, true: c, 1.5: d, ~: e}") == {
        1: "a",
        "on": "b",
        "true": "c",
        "1.5": "d",
        "~": "e",
    }


def test_an_alias_is_a_copy_and_merging_gives_way_to_written_keys() -> None:
    values = parse("a: &a {x: 1, y: [2]}\nb: *a\nc: {<<: *a, x: 3}\nd: {<<: [{z: 1}, *a], z: 5}")
    assert values["b"] == values["a"]
    assert values["b"]["y"] is not values["a"]["y"]
    assert values["c"] == {"x": 3, "y": [2]}
    assert values["d"] == {"z": 5, "x": 1, "y": [2]}


BOMB = "\n".join(f"k{n}: &k{n} [{','.join([f'*k{n - 1}' if n else '1'] * 9)}]" for n in range(9))
REFUSED = {
    "a: 1\nb: 2\na: 3": (3, "the key a is written twice, in lines 1 and 3"),
    "x:\n  a: {b: 1,\n   b: 1}": (3, "the key b is written twice, in lines 2 and 3"),
    '1: a\n"1": b': (2, "the keys 1 in line 1 and '1' in line 2 are the same"),
    "1: a\n\n01: b": (3, "the keys 1 in line 1 and 01 in line 3 are the same"),
    "0x1: a\n'+1': b": (2, "the keys 0x1 in line 1 and '+1' in line 2 are the same"),
    "a: 1\n'a': 1": (2, "the keys a in line 1 and 'a' in line 2 are the same"),
    "a: &b {}\n<<: *b\n<<: *b": (3, "the key << is written twice, in lines 2 and 3"),
    "x: &a [*a]": (1, "*a stands for what it is a part of"),
    "x: &a {y: {z: *a}}": (1, "*a stands for what it is a part of"),
    "x: *b": (1, "*b is not defined before"),
    "x:\n  " + "[" * 20_000: (2, f"nested deeper than {MAX_DEPTH} levels"),
    "- " * 20_000: (1, f"nested deeper than {MAX_DEPTH} levels"),
    BOMB: (6, "more than 100,000 values, with those that aliases repeat"),
    "a: 1\nb: \0": (2, "the character U+0000 is not allowed"),
    "a: \x1b[31m": (1, "the character U+001B is not allowed"),
    'a: "\\0"': (1, "the character U+0000 is not allowed"),
    '"\\0": a': (1, "the character U+0000 is not allowed"),
    'a: "\\ud800"': (1, "half a character (U+D800 to U+DFFF) is not allowed"),
    'a: "\\U00110000"': (1, "not valid YAML: no such character"),
    "a: 1\n---\nb: 1": (2, "a second document begins here"),
    "a: !!set {b}": (1, "the tag 'tag:yaml.org,2002:set' is not supported"),
    "a: !mine b": (1, "the tag '!mine' is not supported"),
    "[a]: b": (1, "a mapping or list cannot be a key"),
    "a: " + "9" * 5000: (1, "a number of 5,000 digits"),
    "a: 1e999": (1, "the number 1e999 is too large"),
    "a:\n\tb: 1": (2, "not valid YAML: found character '\\t' that cannot start any token"),
    "a" * (MAX_BYTES + 1): (1, "longer than 1,048,576 characters"),
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:20])
def test_a_text_that_is_not_read_names_the_line(text: str) -> None:
    with pytest.raises(YamlError) as error:
        parse(text)
    assert (error.value.line, error.value.what) == REFUSED[text]


def test_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("run: a\nrun: b\n")
    with pytest.raises(ConfigError) as error:
        load(path, SECTIONS)
    assert str(error.value) == (
        f"{path}: line 2: the key run is written twice, in lines 1 and 2; keep one of them"
    )


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match="larger than 1,048,576 bytes"):
        read_yaml(Path("/dev/zero"), fix="")


@pytest.mark.parametrize(
    ("keys", "two"),
    [
        ({"7": "car", "07": "ignore"}, "'7' and '07'"),
        ({"#FF0000": "car", "#ff0000": "ignore"}, "'#FF0000' and '#ff0000'"),
    ],
)
def test_a_scheme_has_each_value_once(keys: dict[str, str], two: str) -> None:
    values = {"name": "a", "classes": [{"name": "car", "color": "#000000"}]}
    path = Path("vocabulary.yaml")
    with pytest.raises(ConfigError, match=f"label_schemes.voc has {two}, which are the same"):
        parse_section(Vocabulary, {**values, "label_schemes": {"voc": keys}}, path=path)


def test_one_spelling_of_a_value_is_one_fact() -> None:
    values = {"name": "a", "classes": [{"name": "car", "color": "#000000"}]}
    vocabulary = parse_section(
        Vocabulary, {**values, "label_schemes": {"voc": {"007": "car"}}}, path=Path("v.yaml")
    )
    assert vocabulary.scheme_facts("voc") == {"vocabulary.label_schemes.voc": {"7": 0}}
