"""The base of every config section, and the facts that a section adds to a fingerprint."""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Self, TypeAlias, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from pipeline.config.origins import Place, Written
from pipeline.config.plain_words import (
    Words,
    expected,
    field_at,
    in_plain_words,
    is_union,
    wrong_value,
)

Facts: TypeAlias = dict[str, JsonValue]
"""The inputs of an output: dotted key to plain value. Equal facts mean equal output."""

Name = Annotated[
    str,
    Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$"),
    Words("a name of a-z, 0-9, '_', '.' and '-' that begins with a letter or digit"),
]
"""Names that become folders: of runs, sources, labelers and training variants."""


class RunOnly:
    """Marks a field, by ``Annotated``, that changes how work is done but never its result.

    Such fields (batch size, workers, device) stay out of fingerprints: they make nothing stale.
    """


class UnlessDefault:
    """Marks a field, by ``Annotated``, that is a fact only where it differs from its default.

    A key that is added later must not make stale what was made without it.
    """


class Section(BaseModel):
    """Base of every config section: unknown keys are errors, values cannot change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    @model_validator(mode="wrap")
    @classmethod
    def _knows_every_key(cls, values: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        """Says of unknown keys which ones there are."""

        def fix(detail: ErrorDetails) -> PydanticCustomError | None:
            if detail["type"] not in ("extra_forbidden", "invalid_key"):
                return None
            key = str(detail["loc"][-1])
            close = difflib.get_close_matches(key, cls.model_fields, n=1)
            all_keys = ", ".join(sorted(cls.model_fields))
            known = f"use one of: {all_keys}" if all_keys else "there are none; leave it out"
            text = f"did you mean {close[0]!r}?" if close else known
            return PydanticCustomError("unknown_key", "{fix}", {"key": key, "fix": text})

        try:
            return check(values)
        except ValidationError as error:
            raise in_plain_words(error, fix) from error

    @field_validator("*", mode="wrap")
    @classmethod
    def _is_of_its_type(
        cls, value: Any, check: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        """Says in plain words what the field takes; refuses a boolean in place of a number."""
        assert info.field_name is not None
        field = cls.model_fields[info.field_name]
        own = (field.annotation, field.metadata)
        try:
            checked = check(value)
        except ValidationError as error:
            if is_union(field.annotation):
                raise ValueError(f"write {expected(*own)}") from error

            def fix(detail: ErrorDetails) -> PydanticCustomError | None:
                if detail["type"] == "missing":
                    return None
                return wrong_value(f"write {expected(*field_at(own, detail['loc']))}")

            raise in_plain_words(error, fix) from error
        if _became_a_number(value, checked, bool):
            raise ValueError("write a number, not true or false")
        if _became_a_number(value, checked, str, "_"):
            raise ValueError("write the number without `_`")
        return checked

    @classmethod
    def written_at(cls, values: Any, place: Place) -> Written:
        """Finds where a user wrote what is at a place of the checked section.

        A section that rearranges its values before they are checked overrides this.

        Args:
            values: The plain values of the section, as written.
            place: Of a value in the section, or of a missing one.
        """
        inner = cls._section_at(place[0]) if place else None
        if inner is None or not isinstance(values, dict):
            return Written(place)
        found = inner.written_at(values.get(place[0]), place[1:])
        return found._replace(place=(place[0], *found.place))

    @classmethod
    def written_fields(cls) -> Mapping[str, FieldInfo]:
        """The keys that a file may hold; a section that rearranges its values overrides this."""
        return cls.model_fields

    @classmethod
    def written_in(cls) -> tuple[type["Section"], ...]:
        """Other sections whose keys are among `written_fields`."""
        return ()

    @classmethod
    def is_repeated(cls, key: str) -> bool:
        """Whether the keys inside this one are those of the section itself."""
        return False

    def places(self, place: Place) -> list[Place]:
        """The places of the checked section that a written place sets."""
        return [place]

    @classmethod
    def _section_at(cls, key: str | int) -> "type[Section] | None":
        """The type of a field that is one section, or none."""
        field = cls.model_fields.get(str(key))
        kinds = () if field is None else (field.annotation, *get_args(field.annotation))
        sections = (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section))
        return next(sections, None)

    def facts(self, prefix: str) -> Facts:
        """The section as flat facts ``prefix.key``, but see `RunOnly` and `UnlessDefault`."""
        plain = self.model_dump(mode="json")
        facts: Facts = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if RunOnly in field.metadata:
                continue
            if UnlessDefault in field.metadata and value == field.default:
                continue
            facts |= _facts(value, plain[name], f"{prefix}.{name}")
        return facts


def _became_a_number(value: object, checked: object, kind: type[object], holding: str = "") -> bool:
    """Whether a value of a kind, maybe inside a list or mapping, was converted to a number.

    Args:
        value: The value as written.
        checked: The value after the conversion.
        kind: A type: bool, which becomes 0 or 1, or str.
        holding: Only values whose text holds this.
    """
    if isinstance(value, dict) and isinstance(checked, dict):
        pairs = zip(value.values(), checked.values(), strict=False)
    elif isinstance(value, list) and isinstance(checked, tuple):
        pairs = zip(value, checked, strict=False)
    else:
        is_number = type(checked) in (int, float)
        return is_number and isinstance(value, kind) and holding in str(value)
    return any(_became_a_number(*pair, kind, holding) for pair in pairs)


def _facts(value: object, plain: JsonValue, key: str) -> Facts:
    """Facts of one field: those of the sections in it, and all other values unchanged."""
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
