"""docs/config.md, the JSON schemas and `maskmill config --explain` are what the sections say."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from maskmill import config_docs, config_schema
from maskmill.config_models import sections
from pipeline.config import yaml_reader
from pipeline.config.config_keys import components_of, keys_of, shape
from pipeline.config.config_merge import without_empty
from pipeline.config.config_section import Section
from tests.repository import ROOT, shipped

Maskmill = Callable[..., CompletedProcess[str]]
CONFIGS = [*shipped("configs/*.yaml"), *shipped("configs/datasets/*.yaml")]
VOCABULARIES = shipped("configs/vocabularies/*.yaml")
FILES = {"config": CONFIGS, "vocabulary": VOCABULARIES}


def test_the_reference_is_what_the_sections_say() -> None:
    written = (ROOT / "docs/config.md").read_text(encoding="utf-8")
    assert written == config_docs.reference()


@pytest.mark.parametrize("kind", FILES)
def test_the_schema_is_what_the_sections_say(kind: str) -> None:
    written = (ROOT / f"configs/{kind}.schema.json").read_text(encoding="utf-8")
    assert written == config_schema.text(kind)


def all_sections() -> dict[str, type[Section]]:
    """Every section, with those inside others and those of components, by name."""
    found: dict[str, type[Section]] = {}
    todo = [*sections().values()]
    while todo:
        section = todo.pop()
        if section.__name__ in found:
            continue
        found[section.__name__] = section
        for key in keys_of(section):
            inside = key.shape
            while inside.items is not None:
                inside = shape(inside.items)
            if inside.family is not None:
                todo += [kind.Config for kind in components_of(inside.family).values()]
            elif inside.section is not None:
                todo.append(inside.section)
    return found


@pytest.mark.parametrize("name", all_sections())
def test_every_key_has_a_meaning(name: str) -> None:
    for key in keys_of(all_sections()[name]):
        assert len(key.meaning) > 8, f"{name}.{key.name}"
        assert key.type != "another value", f"{name}.{key.name}"


def accepts(schema: dict[str, Any], value: Any, whole: dict[str, Any]) -> bool:
    """Whether a value suits a JSON schema, of the keywords that ours have."""
    if "$ref" in schema:
        return accepts(whole["definitions"][schema["$ref"].rpartition("/")[2]], value, whole)
    if "anyOf" in schema:
        return any(accepts(each, value, whole) for each in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    kinds = {
        "null": value is None,
        "boolean": isinstance(value, bool),
        "string": isinstance(value, str),
        "integer": isinstance(value, int) and not isinstance(value, bool),
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "array": isinstance(value, list),
        "object": isinstance(value, dict),
    }
    least, most = schema.get("minimum"), schema.get("maximum")
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(kinds[kind] for kind in types):
        return False
    if isinstance(value, list):
        sized = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        return sized and all(accepts(schema["items"], item, whole) for item in value)
    if isinstance(value, dict):
        known = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        return all(
            accepts(known.get(str(key), others), item, whole)
            if str(key) in known or isinstance(others, dict)
            else others
            for key, item in value.items()
        )
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (least is None or least <= value) and (most is None or value <= most)
    return True


@pytest.mark.parametrize("path", [*CONFIGS, *VOCABULARIES], ids=lambda path: path.stem)
def test_shipped_files_name_their_schema_and_suit_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    kind = "vocabulary" if path in VOCABULARIES else "config"
    first = text.splitlines()[0]
    named = first.removeprefix("# yaml-language-server: $schema=")
    file = (path.parent / named).resolve()
    assert file == ROOT / f"configs/{kind}.schema.json"
    schema = json.loads(file.read_text(encoding="utf-8"))
    assert accepts(schema, without_empty(yaml_reader.parse(text)), schema)


WRONG: tuple[tuple[str, Any], ...] = (
    ("trian", {}),
    ("train.crop_pxx", 64),
    ("train.crop_px", "64"),
    ("train.crop_px", 8),
    ("train.optimizer", "adam"),
    ("train.variants.plus-web.crop_pxx", 64),
    ("ingest.sources.web.role", "test2"),
    ("ingest.sources.web.source.image", "a"),
    ("pseudolabel.labelers.sam_clip.name", "sam_clap"),
    ("pseudolabel.labelers.sam_clip.thresholds", 0.5),
)


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_the_schema_refuses_what_a_run_refuses(key: str, value: Any) -> None:
    schema = json.loads(config_schema.text("config"))
    values = without_empty(yaml_reader.parse((ROOT / "configs/sandbox.yaml").read_text()))
    assert accepts(schema, values, schema)
    wrong: Any = deepcopy(values)
    *steps, last = key.split(".")
    inner = wrong
    for step in steps:
        inner = inner[step]
    inner[last] = value
    assert not accepts(schema, wrong, schema)


def explain(maskmill: Maskmill, key: str, *options: object) -> list[str]:
    done = maskmill("config", "--explain", key, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_key_is_explained_with_the_place_that_sets_it(maskmill: Maskmill) -> None:
    assert explain(maskmill, "train.crop_px") == [
        "train.crop_px",
        "  Side of the training crops.",
        "  type: a whole number from 16 to 8192",
        "  unit: pixels",
        "  default: 321",
        "  here: 64 (configs/sandbox.yaml: train.crop_px)",
    ]
    assert explain(maskmill, "train.crop_px", "--set", "train.crop_px=32")[-1] == (
        "  here: 32 (--set train.crop_px=32)"
    )
    voc = ("--config", "configs/datasets/voc.yaml")
    assert explain(maskmill, "train.crop_px", *voc)[-1].endswith(
        "321 (configs/datasets/voc.yaml: train.crop_px (from the preset unimatch))"
    )
    assert explain(maskmill, "evaluate.flip")[-1] == "  here: false (default)"
    stale = "  changes no result: another value makes nothing stale"
    assert stale in explain(maskmill, "train.workers")
    lines = explain(maskmill, "pseudolabel.labelers.sam_clip.power")
    assert lines[-1] == "  here: 1.0 (configs/sandbox.yaml: pseudolabel.labelers.sam_clip.power)"
    assert any(line.endswith("(of sam_clip)") for line in lines)


def test_an_unknown_key_is_one_line(maskmill: Maskmill) -> None:
    done = maskmill("config", "--explain", "train.crop_pxx")
    assert done.returncode == 1
    assert done.stderr == "error: train.crop_pxx: no such key; did you mean train.crop_px?\n"
    done = maskmill("config", "--explain", "pseudolabel.labelers.sam_clip.zzz")
    assert "no such key; use one of: " in done.stderr


def test_a_config_is_printed_with_what_it_extends(maskmill: Maskmill) -> None:
    done = maskmill("config", "--config", "configs/sandbox-table.yaml", "--set", "run=other")
    assert done.returncode == 0, done.stderr
    values = yaml_reader.parse(done.stdout)
    assert values["run"] == "other"
    assert values["sandbox"]["ood_masks"] is True
    assert values["sandbox"]["labeled"] == 8
