"""Components by file name: the folder is the registry.

A family (labelers, perturbations, ...) is a package. Each file in it defines one subclass of the
family's base class, and the file name is the name of the component in a config. `base.py` and files
whose names begin with `_`, which hold shared code, are not components. Component files import torch
only inside methods, so that a config can be checked without it.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import iter_modules
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BeforeValidator, PlainSerializer
from pydantic_core import PydanticCustomError

from pipeline.config.config_section import Facts, Section


class Component:
    """Something that a config can name. Its first argument is an instance of its `Config`.

    Attributes:
        Config: The component's own keys; by default it has none.
        version: Raised when the same config gives other results than before.
    """

    Config: ClassVar[type[Section]] = Section
    version: ClassVar[int] = 1

    @classmethod
    def file_name(cls) -> str:
        """The component's name: the name of its file."""
        return cls.__module__.rpartition(".")[2]


C = TypeVar("C", bound=Component)


@dataclass(frozen=True)
class Choice(Generic[C]):
    """A component that a config chose, with its checked keys.

    Attributes:
        name: The component's file name.
        component: Its class.
        config: An instance of the class's `Config`.
    """

    name: str
    component: type[C]
    config: Section

    def create(self, *args: Any, **kwargs: Any) -> C:
        """Builds the component from its keys and the other arguments of its base class."""
        factory: Callable[..., C] = self.component
        return factory(self.config, *args, **kwargs)

    def facts(self, prefix: str) -> Facts:
        """Name, version and keys of the component."""
        return {
            f"{prefix}.name": self.name,
            f"{prefix}.version": self.component.version,
            **self.config.facts(prefix),
        }

    def plain(self) -> dict[str, Any]:
        """The choice as in a config, with defaults filled in."""
        return {"name": self.name, **self.config.model_dump(mode="json")}


@dataclass(frozen=True)
class Family:
    """Marks a config field that chooses a component.

    Attributes:
        package: Dotted name of the family's package.
        base: Its base class.
    """

    package: str
    base: type[Component]


def chosen_from(
    family: str, base: type[Component]
) -> tuple[BeforeValidator, PlainSerializer, Family]:
    """Marks a config field as a choice from a family.

    The field is written as the component's name, or as a mapping of `name` and the component's
    keys: ``source: Annotated[Choice[Source], *chosen_from("stages.ingest.sources", Source)]``.
    """

    def choose(value: object) -> object:
        if isinstance(value, Choice):
            return value
        keys = {"name": value} if isinstance(value, str) else value
        if not isinstance(keys, dict) or "name" not in keys:
            known = ", ".join(names(family))
            raise ValueError(f"write a name, or a mapping with the key `name`; one of: {known}")
        component = find(family, keys["name"], base)
        own_keys = {key: item for key, item in keys.items() if key != "name"}
        return Choice(keys["name"], component, component.Config.model_validate(own_keys))

    return BeforeValidator(choose), PlainSerializer(Choice.plain), Family(family, base)


def names(family: str) -> list[str]:
    """Names of a family's components, e.g. ``names("stages.pseudolabel.labelers")``."""
    package = importlib.import_module(family)
    return sorted(
        module.name
        for module in iter_modules(package.__path__)
        if module.name != "base" and not module.name.startswith("_")
    )


def find(family: str, name: str, base: type[C]) -> type[C]:
    """Imports one component's file, and no other, and returns its class.

    Args:
        family: Dotted name of the family's package.
        name: The component: a file name without its ending.
        base: The family's base class.

    Raises:
        ValueError: The family has no such component; lists the known ones.
    """
    known = names(family)
    if name not in known:
        fix = f"use one of: {', '.join(known)}"
        raise PydanticCustomError("unknown_component", "{fix}", {"name": repr(name), "fix": fix})
    module = importlib.import_module(f"{family}.{name}")
    found = [
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, base) and item.__module__ == module.__name__
    ]
    assert len(found) == 1, f"{module.__name__} must define one subclass of {base.__name__}"
    return found[0]
