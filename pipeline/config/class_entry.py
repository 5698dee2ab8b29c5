"""A class of a vocabulary: its name, colour and concepts."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from pipeline.config.config_section import Section
from pipeline.config.plain_words import Words


def _says_something(text: str) -> str:
    if not text.strip():
        raise ValueError("write a word")
    return text


def _as_synonyms(concept: object) -> object:
    if not isinstance(concept, str | list | tuple):
        raise ValueError("write a name in quotes, or a list of names")
    return (concept,) if isinstance(concept, str) else concept


Text = Annotated[str, AfterValidator(_says_something)]
"""A name, for people or for a text model; not blank."""

Concept = Annotated[
    tuple[Text, ...],
    Field(min_length=1),
    BeforeValidator(_as_synonyms),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""One thing to look for: a name, or several whose embeddings are averaged for each template. In a
file a string, or a list of strings."""


class ClassEntry(Section):
    """One class; its id is its position in the vocabulary's list, from 0."""

    name: Text
    """The name people and label schemes use."""
    color: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$"), Words("a colour #rrggbb in quotes")]
    """Display colour, #rrggbb."""
    concepts: tuple[Concept, ...] | None = None
    """Concepts for text models, which `aggregation` combines into one score. Default: the name."""

    @property
    def asked(self) -> tuple[Concept, ...]:
        """Concepts for text models; may be empty."""
        return ((self.name,),) if self.concepts is None else self.concepts
