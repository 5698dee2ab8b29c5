"""Writes the JSON schemas that editors complete configs and vocabularies from.

python -m maskmill.config_schema config > configs/config.schema.json
python -m maskmill.config_schema vocabulary > configs/vocabulary.schema.json
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import WithJsonSchema

from maskmill.config_models import whole_config
from pipeline.config.components import Family
from pipeline.config.config_keys import Key, components_of, keys_of
from pipeline.config.config_section import Section
from pipeline.config.plain_words import limits, unwrapped
from pipeline.config.vocabulary import Vocabulary

_DIALECT = "http://json-schema.org/draft-07/schema#"
_PLAIN: Mapping[object, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    Path: "string",
    NoneType: "null",
}
_LIMITS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
}
_SIZES: Mapping[type, tuple[str, str]] = {
    str: ("minLength", "maxLength"),
    tuple: ("minItems", "maxItems"),
    dict: ("minProperties", "maxProperties"),
}


def schema(model: type[Section], title: str) -> dict[str, Any]:
    """The schema of a file. No key is required: a file may extend another, or use a preset."""
    definitions: dict[str, Any] = {}
    found = _Schemas(definitions).section(model)
    whole = definitions.pop(model.__name__)
    assert found == {"$ref": f"#/definitions/{model.__name__}"}
    if model.__name__ == "ConfigFile":
        text = "A config in the same folder that this one differs from."
        whole["properties"]["extends"] = {"type": "string", "description": text}
    return {"$schema": _DIALECT, "title": title, **whole, "definitions": definitions}


class _Schemas:
    """Schemas of sections, each defined once."""

    def __init__(self, definitions: dict[str, Any]) -> None:
        self._definitions = definitions

    def section(self, model: type[Section]) -> dict[str, Any]:
        name = model.__name__
        if name not in self._definitions:
            self._definitions[name] = {}
            self._definitions[name] = self._object(model)
        return {"$ref": f"#/definitions/{name}"}

    def _object(self, model: type[Section]) -> dict[str, Any]:
        properties = {key.name: self._property(key) for key in keys_of(model)}
        return {"type": "object", "additionalProperties": False, "properties": properties}

    def _property(self, key: Key) -> dict[str, Any]:
        """A key; empty values keep what is extended, or are the default."""
        own = self._value(key.field.annotation, key.field.metadata)
        options = own["anyOf"] if [*own] == ["anyOf"] else [own]
        options = [each for each in options if each != {"type": "null"}]
        unit = f" Unit: {key.unit}." if key.unit else ""
        return {
            "description": f"{key.meaning}{unit} Default: {key.default}.",
            "anyOf": [*options, {"type": "null"}],
        }

    def _value(self, annotation: object, metadata: Sequence[object] = ()) -> dict[str, Any]:
        annotation, metadata = unwrapped(annotation, metadata)
        for mark in metadata:
            if isinstance(mark, Family):
                return self._choice(mark)
            if isinstance(mark, WithJsonSchema) and mark.json_schema is not None:
                return dict(mark.json_schema)
        origin, arguments = get_origin(annotation), get_args(annotation)
        bounds = limits(metadata)
        if origin in (Union, UnionType):
            return {"anyOf": [self._value(each) for each in arguments]}
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin is tuple and arguments[1:] != (...,):
            sizes = {"minItems": len(arguments), "maxItems": len(arguments)}
            return {"type": "array", "items": self._value(arguments[0]), **sizes}
        if origin is tuple:
            return {"type": "array", "items": self._value(arguments[0]), **_sizes(tuple, bounds)}
        if origin is dict:
            values = self._value(arguments[1])
            empty = {"anyOf": [values, {"type": "null"}]}
            return {"type": "object", "additionalProperties": empty, **_sizes(dict, bounds)}
        if isinstance(annotation, type) and issubclass(annotation, Section):
            return self.section(annotation)
        if isinstance(annotation, type) and is_dataclass(annotation):
            hints = get_type_hints(annotation, include_extras=True)
            values = {field.name: self._value(hints[field.name]) for field in fields(annotation)}
            return {"type": "object", "additionalProperties": False, "properties": values}
        found: dict[str, Any] = {"type": _PLAIN[annotation]}
        found |= {_LIMITS[name]: value for name, value in bounds.items() if name in _LIMITS}
        return found | (_sizes(str, bounds) if annotation is str else {})

    def _choice(self, family: Family) -> dict[str, Any]:
        if family.package not in self._definitions:
            self._definitions[family.package] = {}
            self._definitions[family.package] = self._components(family)
        return {"$ref": f"#/definitions/{family.package}"}

    def _components(self, family: Family) -> dict[str, Any]:
        """A name, or a mapping with the name; without one it changes what is extended."""
        components = components_of(family)
        texts = {name: (kind.__doc__ or "").partition("\n")[0] for name, kind in components.items()}
        options = []
        for name, component in components.items():
            own = self._object(component.Config)
            own["properties"] = {
                "name": {"const": name, "description": texts[name]},
                **own["properties"],
            }
            options.append(own)
        return {"anyOf": [{"enum": [*components]}, *options]}


def _sizes(kind: type, bounds: Mapping[str, Any]) -> dict[str, Any]:
    names = zip(("min_length", "max_length"), _SIZES[kind], strict=True)
    return {name: bounds[own] for own, name in names if own in bounds}


def text(kind: str) -> str:
    """The text of a schema's file: of a config or of a vocabulary."""
    models: dict[str, tuple[type[Section], str]] = {
        "config": (whole_config(), "A run of Maskmill"),
        "vocabulary": (Vocabulary, "A class list of Maskmill"),
    }
    return json.dumps(schema(*models[kind]), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(sys.argv[1]), end="")
