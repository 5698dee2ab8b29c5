from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config.class_entry import ClassEntry
from pipeline.config.config import parse_section
from pipeline.config.vocabulary import IGNORE, Vocabulary
from pipeline.errors import ConfigError, DataError

NAMES = ("background", "road", "car")
Build = Callable[..., Vocabulary]


@pytest.fixture
def build() -> Build:
    def build(names: tuple[str, ...] = NAMES, **keys: Any) -> Vocabulary:
        colors = ("#000000", "#0a0b0c", "#FF0000", "#00ff00")
        classes = [{"name": n, "color": c} for n, c in zip(names, colors, strict=False)]
        values = {"name": "test", "classes": classes, **keys}
        return parse_section(Vocabulary, values, path=Path("vocabulary.yaml"))

    return build


def test_ids_are_positions_and_the_rest_is_black(build: Build) -> None:
    vocabulary = build()
    assert vocabulary.num_classes == 3
    assert vocabulary.class_names == NAMES
    palette = vocabulary.palette
    assert palette.shape == (256, 3)
    assert palette.dtype == np.uint8
    assert palette[:3].tolist() == [[0, 0, 0], [10, 11, 12], [255, 0, 0]]
    assert not palette[3:].any()


def test_background_is_a_class_or_ignored(build: Build) -> None:
    assert build().background_id == IGNORE
    assert build(background="road").background_id == 1


def test_concepts_default_to_the_name_and_can_be_none_at_all() -> None:
    def asked(**keys: Any) -> tuple[tuple[str, ...], ...]:
        return ClassEntry.model_validate({"name": "car", "color": "#000000", **keys}).asked

    assert asked() == (("car",),)
    assert asked(concepts=["auto", "van"]) == (("auto",), ("van",))
    assert asked(concepts=["auto", ["van", "lorry"]]) == (("auto",), ("van", "lorry"))
    assert asked(concepts=[]) == ()


SCHEMES: dict[str, Any] = {
    "voc": {0: "background", 15: "car", 255: "ignore"},
    "coco": {3: "car", 149: "road", 0: "ignore", "*": "background"},
    "wide": {40_000: "road", 65535: "ignore"},
    "colors": {"#80ff00": "road", "#0000FF": "car", "#000000": "ignore"},
}


@pytest.mark.parametrize(
    ("scheme", "labels", "mask", "unknown"),
    [
        (None, [[0, 1, 2, 255]], [[0, 1, 2, 255]], []),
        (None, [[0, 3, 254]], [[0, 255, 255]], ["3", "254"]),
        ("voc", [[0, 15, 255, 15]], [[0, 2, 255, 2]], []),
        ("voc", [[1, 15, 7, 7]], [[255, 2, 255, 255]], ["1", "7"]),
        ("coco", [[3, 149, 0, 200, 1]], [[2, 1, 255, 0, 0]], []),
        ("wide", [[40_000, 65535]], [[1, 255]], []),
        ("wide", [[40_000, 70_000, -1]], [[1, 255, 255]], ["-1", "70000"]),
    ],
)
def test_pixel_values_become_class_ids(
    build: Build,
    scheme: str | None,
    labels: list[list[int]],
    mask: list[list[int]],
    unknown: list[str],
) -> None:
    vocabulary = build(label_schemes=SCHEMES)
    for dtype in (np.uint8, np.uint16, np.dtype(">u2"), np.int32):
        if np.iinfo(dtype).min <= np.min(labels) and np.max(labels) <= np.iinfo(dtype).max:
            found, strangers = vocabulary.to_mask(np.array(labels, dtype), scheme)
            assert found.dtype == np.uint8
            assert found.tolist() == mask
            assert strangers == unknown


def test_colors_become_class_ids(build: Build) -> None:
    vocabulary = build(label_schemes=SCHEMES)
    colors = np.array([[[128, 255, 0], [0, 0, 255]], [[0, 0, 0], [1, 2, 3]]], np.uint8)
    mask, unknown = vocabulary.to_mask(colors, "colors")
    assert mask.tolist() == [[1, 2], [255, 255]]
    assert unknown == ["#010203"]


def test_unknown_labels_are_reported_as_the_file_spells_them(build: Build) -> None:
    vocabulary = build(label_schemes=SCHEMES)
    colors = np.array([[[128, 255, 0]]], np.uint8)
    assert vocabulary.to_mask(colors, None)[1] == ["#80ff00"]
    assert vocabulary.to_mask(np.array([[7]], np.uint8), "colors")[1] == ["7"]


def test_an_image_without_pixels_is_no_special_case(build: Build) -> None:
    mask, unknown = build().to_mask(np.zeros((0, 4), np.uint8), None)
    assert mask.shape == (0, 4)
    assert unknown == []


def test_facts_show_what_depends_on_what(build: Build) -> None:
    one = build(label_schemes=SCHEMES)
    other = build(label_schemes=SCHEMES, background_concepts=["sky"], name="renamed")
    assert one.class_facts() == other.class_facts() == {"vocabulary.classes": list(NAMES)}
    assert one.prompt_facts() != other.prompt_facts()
    assert one.scheme_facts("voc") == other.scheme_facts("voc")
    assert one.scheme_facts("voc") == {
        "vocabulary.label_schemes.voc": {"0": 0, "15": 2, "255": IGNORE}
    }
    assert one.scheme_facts(None) == {"vocabulary.class_ids": {"0": 0, "1": 1, "2": 2, "255": 255}}


@pytest.mark.parametrize(
    ("keys", "printed"),
    [
        ({"background_concepts": ["sky", "Car "]}, "'Car ' belongs to car and back"),
        ({"background": "road", "background_concepts": ["road", "car"]}, "belongs to car and road"),
        ({"background_concepts": [["sky", "sea"], "road"]}, "'road' belongs to"),
    ],
)
def test_what_two_classes_ask_for_is_refused_where_a_text_model_is_asked(
    build: Build, keys: dict[str, Any], printed: str
) -> None:
    with pytest.raises(ConfigError, match=f"vocabulary test: .*{printed}.*; give it to only one"):
        build(**keys).prompt_facts()


@pytest.mark.parametrize(
    ("aggregation", "concepts"), [("concept-max", [["bank", "river"]]), ("concept-avg", ["bank"])]
)
def test_a_name_may_help_to_ask_for_several_classes(
    build: Build, aggregation: str, concepts: list[Any]
) -> None:
    classes = [
        {"name": "shore", "color": "#000000", "concepts": [*concepts, "shore"]},
        {"name": "money", "color": "#000000", "concepts": [["bank", "money"], "coin"]},
    ]
    assert build(classes=classes, aggregation=aggregation).prompt_facts()


def test_prompt_facts_are_as_a_file_writes_them(build: Build) -> None:
    classes = [
        {"name": "car", "color": "#000000", "concepts": ["car", ["van", "lorry"]]},
        {"name": "sky", "color": "#000000"},
    ]
    facts = build(classes=classes, background_concepts=["sea"], templates=["a {}"]).prompt_facts()
    assert facts == {
        "vocabulary.classes": ["car", "sky"],
        "vocabulary.concepts.car": ["car", ["van", "lorry"]],
        "vocabulary.concepts.sky": ["sky"],
        "vocabulary.background": None,
        "vocabulary.background_concepts": ["sea"],
        "vocabulary.aggregation": "concept-max",
        "vocabulary.templates": ["a {}"],
    }
    named = build(classes=classes, prompts="mean-80").prompt_facts()
    assert named["vocabulary.prompts"] == "mean-80"
    assert "vocabulary.templates" not in named


def test_a_vocabulary_survives_the_way_to_a_worker(build: Build) -> None:
    classes = [{"name": "car", "color": "#000000", "concepts": ["car", ["van", "lorry"]]}]
    for keys in ({"prompts": "mean-80"}, {"templates": ["a {}"]}):
        vocabulary = build(classes=classes, **keys)
        assert Vocabulary.model_validate_json(vocabulary.model_dump_json()) == vocabulary


def test_without_any_concept_there_is_nothing_to_ask(build: Build) -> None:
    classes = [{"name": "car", "color": "#000000", "concepts": []}]
    with pytest.raises(ConfigError) as error:
        build(classes=classes, background_concepts=["sky"]).prompt_facts()
    assert str(error.value) == (
        "vocabulary test: no class has a concept to look for; give at least one class a concept"
    )
    assert build(classes=classes, background="car", background_concepts=["sky"]).prompt_facts()


def test_a_scheme_that_is_no_longer_there_is_named(build: Build) -> None:
    expected = (
        "vocabulary 'test': no label scheme 'old'; "
        "add it, or run ingest with a config that names another"
    )
    for read in (
        lambda: build().scheme_facts("old"),
        lambda: build().to_mask(np.zeros((1, 1), np.uint8), "old"),
    ):
        with pytest.raises(DataError) as error:
            read()
        assert str(error.value) == expected


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (
            {"names": ("road", "car", "road")},
            "these keys are wrong; give each class its own name; two are called 'road'",
        ),
        (
            {"names": ("road", "ignore")},
            "these keys are wrong; rename the class 'ignore': in label schemes this name means 255",
        ),
        (
            {"background": "sky"},
            "these keys are wrong; background 'sky' is not a class; "
            "use one of: background, road, car",
        ),
        (
            {"templates": ["a photo"]},
            "these keys are wrong; template 'a photo' must have {} once, for the concept",
        ),
        ({"templates": []}, "templates: [] is wrong; "),
        (
            {"templates": ["a {}"], "prompts": "single"},
            "these keys are wrong; leave out `templates` or `prompts`: "
            "single has its own templates",
        ),
        (
            {"prompts": "mean80"},
            "prompts: 'mean80' is wrong; write 'single', 'single-dot', 'mean-80', ",
        ),
        ({"aggregation": "max"}, "aggregation: 'max' is wrong; "),
        ({"background_concepts": ["sky", []]}, "background_concepts.1: [] is wrong; "),
        ({"background_concepts": [["sky", ""]]}, "background_concepts.0.1: '' is wrong; "),
        ({"background_concepts": [" "]}, "background_concepts.0.0: ' ' is wrong; write a word"),
        (
            {"background_concepts": [5]},
            "background_concepts.0: 5 is wrong; write a name in quotes, or a list of names",
        ),
        (
            {"background_concepts": "sky"},
            "background_concepts: 'sky' is wrong; write a list",
        ),
        ({"classes": []}, "classes: [] is wrong; write a list with 1 to 255 items"),
        ({"name": ""}, "name: '' is wrong; write a word"),
        (
            {"classes": [{"name": " ", "color": "#000000"}]},
            "classes.0.name: ' ' is wrong; write a word",
        ),
        (
            {"classes": [{"name": "a", "color": "red"}]},
            "classes.0.color: 'red' is wrong; ",
        ),
        (
            {"classes": [{"name": "a", "color": "#000000", "concept": ["b"]}]},
            "classes.0.concept: unknown key; did you mean 'concepts'?",
        ),
        (
            {"label_schemes": {"voc": {1: "bicycle"}}},
            "these keys are wrong; label_schemes.voc.1 names 'bicycle', which is not a class; "
            "use one of: background, road, car, ignore",
        ),
        (
            {"label_schemes": {"voc": {"road": "car"}}},
            "these keys are wrong; label_schemes.voc has the key 'road'; "
            "write a pixel value from 0 to 65535, a colour #rrggbb, or '*'",
        ),
        (
            {"label_schemes": {"voc": {-1: "car"}}},
            "these keys are wrong; label_schemes.voc has the key '-1'; ",
        ),
        (
            {"label_schemes": {"voc": {65536: "car"}}},
            "these keys are wrong; label_schemes.voc has the key '65536'; ",
        ),
        (
            {"label_schemes": {"voc": {"#ff00": "car"}}},
            "these keys are wrong; label_schemes.voc has the key '#ff00'; ",
        ),
    ],
)
def test_a_vocabulary_must_agree_with_itself(build: Build, keys: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(**keys)
    assert str(error.value).startswith(f"vocabulary.yaml: {text}")


def test_more_classes_than_a_byte_can_distinguish_are_refused(build: Build) -> None:
    classes = [{"name": f"class {i}", "color": "#000000"} for i in range(256)]
    assert build(classes=classes[:255]).num_classes == 255
    with pytest.raises(ConfigError, match="write a list with 1 to 255 items"):
        build(classes=classes)
