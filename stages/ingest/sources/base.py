"""What every source is: a listing of files, made without opening an image."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from pipeline.config.components import Component
from pipeline.config.config_section import Section
from pipeline.files import tar
from pipeline.records import arrays

IMAGE_ENDINGS = frozenset(
    [
        ".avif",
        ".bmp",
        ".gif",
        ".jfif",
        ".jpeg",
        ".jpg",
        ".jp2",
        ".png",
        ".ppm",
        ".pgm",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
"""Names of files that are taken for images; what they really are, their bytes tell."""
_BATCH = 2**16
"""Images whose texts are made a column at once; of so many they are far from Arrow's 2 GiB."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class Listed(NamedTuple):
    """An image of a source.

    Attributes:
        image: Its address: a path, or a place in a tar archive (`pipeline.files.tar`).
        mask: Address of the label file that belongs to it, if any.
        caption: What the source says of it.
        url: Where the source got it.
        problem: Why it must not be read, where the listing shows that already.
        stamp: Of the file that it is in, to see changes without reading; None without a file.
        mask_stamp: Of the label file.
    """

    image: str
    mask: str | None = None
    caption: str | None = None
    url: str | None = None
    problem: str | None = None
    stamp: str | None = None
    mask_stamp: str | None = None


LISTING = pa.schema([(name, pa.string()) for name in Listed._fields])
"""Columns of a listing: a million images are a table, not as many objects."""


def listing(images: Iterable[Listed]) -> pa.Table:
    """Images as a table of the schema `LISTING`.

    What is no text is escaped; in a name it is a problem. No two images get one place by that.
    """
    listed = [*images]
    taken = {tar.without_position(one.image) for one in listed if "\\u" in one.image}
    plain = [_with_text_alone(one, taken) for one in listed]
    batches = (plain[start : start + _BATCH] for start in range(0, len(plain), _BATCH))
    columns = ([arrays.texts(column) for column in zip(*batch, strict=True)] for batch in batches)
    tables = [pa.table(each, schema=LISTING) for each in columns]
    return pa.concat_tables(tables or [arrays.empty(LISTING)])


def _with_text_alone(listed: Listed, taken: set[str]) -> Listed:
    """The same, without the surrogates that stand for bytes which are no UTF-8.

    Args:
        listed: The image.
        taken: Places that are names of other images.
    """
    try:
        "".join(filter(None, listed)).encode()
    except UnicodeEncodeError:
        texts = (text and text.encode(errors="backslashreplace").decode() for text in listed)
        escaped = Listed(*texts)  # type: ignore[arg-type] # the image stays a text
        if (escaped.image, escaped.mask) == (listed.image, listed.mask):
            return escaped
        image = listed.image
        if escaped.image != image:
            forms = (_escaped(image, "0" * zeros) for zeros in count())
            image = next(form for form in forms if tar.without_position(form) not in taken)
        return escaped._replace(image=image, problem="its name is not UTF-8 text")
    return listed


def _escaped(name: str, zeros: str) -> str:
    r"""A name as text: surrogates as \udcff, or with zeros as \u0dcff; a backslash as two.

    Names that differ get texts that do. Only a name that is text itself may read like one of them,
    for such names stay what they are; then there are the zeros.
    """
    doubled = name.replace("\\", r"\\")
    return _SURROGATE.sub(lambda found: rf"\u{zeros}{ord(found[0]):x}", doubled)


def text_columns(table: pa.Table, names: Iterable[str]) -> pa.Table:
    """Columns of a table that somebody else wrote, as text; those that it has.

    Raises:
        ArrowException: One of them is there twice, holds no text, or text that is not UTF-8.
    """
    texts: dict[str, pa.ChunkedArray] = {}
    for name in names:
        if (times := table.column_names.count(name)) > 1:
            raise pa.ArrowInvalid(f"it has the column `{name}` twice")
        if times:
            texts[name] = table[name].cast(pa.string())
            try:
                texts[name].validate(full=True)  # Parquet files may hold any bytes as text
            except pa.ArrowInvalid as error:
                what = f"its column `{name}` holds text that is not UTF-8"
                raise pa.ArrowInvalid(what) from error
    return pa.table(texts)


class Source(Component, ABC):
    """Lists images.

    Args:
        config: The source's own keys, an instance of its `Config`.
        data: Folder that its relative image paths start from.
        beside: Folder of the config file, that its relative list paths start from.
        cache: Folder for what it would rather not work out again; may be missing or read-only.
        where: Config file and key of the source, for errors.

    Attributes:
        remarks: What `list` found that a user should know and no row tells, in lines.
    """

    def __init__(
        self, config: Section, *, data: Path, beside: Path, cache: Path, where: str
    ) -> None:
        self.config = config
        self.data = data
        self.beside = beside
        self.cache = cache
        self.where = where
        self.remarks: list[str] = []

    @property
    @abstractmethod
    def places(self) -> Mapping[str, Path]:
        """The folders and files that the config names, by what it calls them: {"a/images": ...}."""

    @property
    def list_file(self) -> Path | None:
        """The text file that says which images are its own, there or not, if it has one."""
        return None

    @abstractmethod
    def list(self) -> pa.Table:
        """The source's files in a stable order, none of them twice: a table as `LISTING`.

        Raises:
            DataError: Something the config names is missing, empty, or does not fit together.
        """
