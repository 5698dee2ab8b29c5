from typing import Any

import pytest

from pipeline.config.config_merge import EMPTY, merged, without_empty


@pytest.mark.parametrize(
    ("base", "own", "expected"),
    [
        ({"a": 1, "b": 2}, {"b": 3}, {"a": 1, "b": 3}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": EMPTY}, {"a": {"b": 1}}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": 1}, {"a": EMPTY}, {"a": 1}),
        ({"a": [1]}, {"a": EMPTY, "b": EMPTY}, {"a": [1], "b": EMPTY}),
        ({"a": {"name": "x", "b": 1}}, {"a": {"name": EMPTY}}, {"a": {"name": "x", "b": 1}}),
        ({"a": 1}, {"a": None}, {"a": None}),
        ({"a": {"b": 1}}, EMPTY, {"a": {"b": 1}}),
        ({"a": {"b": 1}}, {"a": 2}, {"a": 2}),
        ({"a": "x"}, {"a": {"name": "x", "b": 1}}, {"a": {"name": "x", "b": 1}}),
        ({"a": {"name": "x", "b": 1}}, {"a": {"b": 2}}, {"a": {"name": "x", "b": 2}}),
        ({"a": {"name": "x", "b": 1}}, {"a": {"name": "y"}}, {"a": {"name": "y"}}),
        ({"a": 1}, ["a"], ["a"]),
    ],
)
def test_own_values_are_laid_over_the_base(base: dict[str, Any], own: Any, expected: Any) -> None:
    assert merged(base, own) == expected


def test_the_own_order_comes_first() -> None:
    assert list(merged({"a": {}, "b": {}}, {"c": {}, "b": EMPTY})) == ["c", "b", "a"]


def test_what_is_empty_is_none_to_a_reader() -> None:
    assert without_empty({"a": EMPTY, "b": [EMPTY, {"c": EMPTY}]}) == {
        "a": None,
        "b": [None, {"c": None}],
    }
