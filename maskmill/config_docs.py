"""Writes docs/config.md, all keys of a config: python -m maskmill.config_docs > docs/config.md."""

from collections.abc import Iterator

from maskmill.config_models import sections
from pipeline.config.components import Family
from pipeline.config.config import RunConfig
from pipeline.config.config_keys import Key, Shape, components_of, keys_of, shape
from pipeline.config.config_section import Section
from pipeline.config.vocabulary import Vocabulary

_INTRODUCTION = """\
# Config reference

Every key of a config, with its type, default, meaning and unit. This page is written by
`python -m maskmill.config_docs > docs/config.md`. `maskmill config --explain train.crop_px` says
the same of one key, and where a config sets it. Editors with a YAML language server complete keys
if the config's first line is `# yaml-language-server: $schema=config.schema.json`, with the path of
[configs/config.schema.json](../configs/config.schema.json), which `maskmill configs copy` copies.

## Paths

- A relative path in a config starts at the folder of the config file: `data`, `vocabulary`, lists,
  weights, folders of models.
- Images, masks, roots and shards of sources start at `data`.
- `workspace` starts at the current folder: a run writes `manifests/` and `artifacts/` where it is
  started.
- A relative path in `--set` starts at the current folder, as the shell completes it.
- A path may be absolute, begin with `~` and hold `..`. `data`, `workspace`, the folders of sources
  and the weights of `segmenter` may be addresses `s3://bucket/prefix`.
- A path that exists only by the other rule is used, with a warning that says what to write. (In
  former versions `data` and weights started at the current folder.) Images are known by their
  bytes, so that a corrected path makes no images or labels stale.

`${NAME}` and `${NAME:-default}` are environment variables. `extends: other.yaml` names a file in
the same folder; a config then holds only what differs from it. An empty value keeps what is
extended, `null` takes it back.

In the tables `<name>` is a name of your choice, and `0` a position in a list. A key whose default
is "required" must be written. Keys marked ° change how work is done but no result: they make
nothing stale.
"""


def reference() -> str:
    """The whole page."""
    parts = [_INTRODUCTION, "## The run\n", *_table(RunConfig, "")]
    for name, section in sections().items():
        parts += [f"\n## {name}\n", f"{_first_line(section)}\n", *_table(section, f"{name}.")]
        for place, family in _families(section, name):
            parts += _family(place, family)
    parts += ["\n## Vocabularies\n", "A file that `vocabulary` names.\n", *_table(Vocabulary, "")]
    return "\n".join(parts) + "\n"


def _table(section: type[Section], prefix: str) -> list[str]:
    rows = [_row(place, key) for place, key in _keys(section, prefix)]
    head = ["| key | type | default | unit | meaning |", "| --- | --- | --- | --- | --- |"]
    return [*head, *rows] if rows else ["No keys."]


def _keys(section: type[Section], prefix: str) -> Iterator[tuple[str, Key]]:
    """The keys of a section and of sections inside it, each with its dotted key."""
    for key in keys_of(section):
        place = f"{prefix}{key.name}"
        yield place, key
        inside, inner = _innermost(place, key.shape)
        if inner.section is not None and not section.is_repeated(key.name):
            yield from _keys(inner.section, f"{inside}.")


def _innermost(place: str, found: Shape) -> tuple[str, Shape]:
    while found.items is not None:
        place = f"{place}.{'0' if found.is_list else '<name>'}"
        found = shape(found.items)
    return place, found


def _families(section: type[Section], name: str) -> Iterator[tuple[str, Family]]:
    """The families that keys choose from, each once, with the key."""
    for place, key in _keys(section, f"{name}."):
        inside, inner = _innermost(place, key.shape)
        if inner.family is not None:
            yield inside, inner.family


def _family(place: str, family: Family) -> list[str]:
    lines = []
    for name, component in components_of(family).items():
        lines += [f"\n### {place}: {name}\n", f"{_first_line(component)}\n"]
        own = [_row(inner, key) for inner, key in _keys(component.Config, "")]
        lines += _table(component.Config, "") if own else ["It has no keys."]
    return lines


def _row(place: str, key: Key) -> str:
    mark = "" if key.changes_results else "°"
    default = key.default if key.default == "required" else f"`{key.default}`"
    cells = (f"`{place}`{mark}", key.type, default, key.unit or "-", key.meaning)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _first_line(documented: type) -> str:
    return (documented.__doc__ or "").strip().partition("\n\n")[0].replace("\n    ", " ")


if __name__ == "__main__":
    print(reference(), end="")
