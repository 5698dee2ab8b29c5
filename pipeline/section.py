"""The base of every config section, and what a section contributes to a fingerprint."""

import difflib
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic_core import PydanticCustomError

Facts: TypeAlias = dict[str, JsonValue]
"""What an output depends on: dotted key to plain value. Equal facts, equal output."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
"""Names that become folders: of runs, sources, labelers and training variants."""


class RunOnly:
    """Marks a field, by ``Annotated``, that changes how work is done but never what comes of it.

    Such fields (batch size, workers, device) stay out of fingerprints: they make nothing stale.
    """


class Section(BaseModel):
    """Base of every config section: unknown keys are errors, values cannot change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _knows_every_key(cls, values: Any) -> Any:
        for key in values if isinstance(values, dict) else ():
            if key not in cls.model_fields:
                close = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                all_keys = ", ".join(sorted(cls.model_fields))
                known = f"use one of: {all_keys}" if all_keys else "there are none; leave it out"
                fix = f"did you mean {close[0]!r}?" if close else known
                raise PydanticCustomError("unknown_key", "{fix}", {"key": str(key), "fix": fix})
        return values

    def facts(self, prefix: str) -> Facts:
        """The section as flat facts ``prefix.key``, without fields marked `RunOnly`."""
        plain = self.model_dump(mode="json")
        facts: Facts = {}
        for name, field in type(self).model_fields.items():
            if not any(mark is RunOnly for mark in field.metadata):
                facts |= _facts(getattr(self, name), plain[name], f"{prefix}.{name}")
        return facts


def _facts(value: object, plain: JsonValue, key: str) -> Facts:
    """Facts of one field: sections inside are asked themselves, all else is taken as it is."""
    if hasattr(value, "facts"):
        found: Facts = value.facts(key)
        return found
    if isinstance(value, dict) and isinstance(plain, dict):
        items = [(str(name), value[name], plain[str(name)]) for name in value]
    elif isinstance(value, tuple) and isinstance(plain, list):
        if not any(hasattr(item, "facts") for item in value):
            return {key: plain}
        items = [(str(i), item, plain[i]) for i, item in enumerate(value)]
    else:
        return {key: plain}
    facts: Facts = {}
    for name, item, item_plain in items:
        facts |= _facts(item, item_plain, f"{key}.{name}")
    return facts
