"""The base class of sources: a source lists files without opening an image."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import ClassVar, NamedTuple

import pyarrow as pa

from pipeline.config.components import Component
from pipeline.config.config_section import Section
from pipeline.config.vocabulary import Vocabulary
from pipeline.files import tar
from pipeline.images.limits import Limits
from pipeline.records import arrays
from pipeline.redaction import without_secrets

_BATCH = 2**16
"""Images a column chunk; the texts of so many stay far below Arrow's limit of 2 GiB."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class Listed(NamedTuple):
    """An image of a source.

    Attributes:
        image: Its address: a path, or a position in a tar archive (`pipeline.files.tar`).
        mask: Address of its label file, if any.
        caption: The source's text for it.
        url: Address that the source got it from.
        problem: Why it must not be read, if the listing shows that already.
        stamp: Stamp of the file that holds it, which shows changes; None if there is no file.
        mask_stamp: Stamp of the label file.
    """

    image: str
    mask: str | None = None
    caption: str | None = None
    url: str | None = None
    problem: str | None = None
    stamp: str | None = None
    mask_stamp: str | None = None


LISTING = pa.schema([(name, pa.string()) for name in Listed._fields])
"""Columns of a listing. A table, as a million objects would take too much memory."""


def listing(images: Iterable[Listed]) -> pa.Table:
    """Turns images into a table of the schema `LISTING`.

    Bytes that are not UTF-8 are escaped; in a name they are a problem. Escaping never gives two
    images the same address.
    """
    listed = [
        one._replace(
            url=one.url and without_secrets(one.url),
            caption=one.caption and without_secrets(one.caption),
        )
        for one in images
    ]
    taken = {tar.without_position(one.image) for one in listed if "\\u" in one.image}
    plain = [_escaped_listed(one, taken) for one in listed]
    batches = (plain[start : start + _BATCH] for start in range(0, len(plain), _BATCH))
    columns = ([arrays.texts(column) for column in zip(*batch, strict=True)] for batch in batches)
    tables = [pa.table(each, schema=LISTING) for each in columns]
    return pa.concat_tables(tables or [arrays.empty(LISTING)])


def _escaped_listed(listed: Listed, taken: set[str]) -> Listed:
    """Escapes the surrogates that stand for bytes which are not UTF-8.

    Args:
        listed: The image.
        taken: Addresses of other images.
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
            forms = (_escaped_name(listed.image, "0" * zeros) for zeros in count())
            image = next(form for form in forms if tar.without_position(form) not in taken)
        return escaped._replace(image=image, problem="its name is not UTF-8 text")
    return listed


def _escaped_name(name: str, zeros: str) -> str:
    r"""A name as text: surrogates as \udcff, or with zeros as \u0dcff; a backslash as two.

    Different names get different texts. Only a name that needs no escaping can be equal to an
    escaped one, as it stays unchanged; the zeros avoid that.
    """
    doubled = name.replace("\\", r"\\")
    return _SURROGATE.sub(lambda found: rf"\u{zeros}{ord(found[0]):x}", doubled)


def text_columns(table: pa.Table, names: Iterable[str]) -> pa.Table:
    """Reads the columns of these names that a user's table has, as text.

    Raises:
        ArrowException: The table has a column twice, or one that is not UTF-8 text.
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


@dataclass(frozen=True)
class Drawing:
    """How label files are drawn from annotations.

    Attributes:
        vocabulary: The classes.
        folder: Folder of the label files; may be missing.
        limits: What an image may cost.
        as_stored: Whether images are not turned by their EXIF orientation.
    """

    vocabulary: Vocabulary
    folder: Path
    limits: Limits
    as_stored: bool


class Source(Component, ABC):
    """Lists images.

    Args:
        config: The source's own keys, an instance of its `Config`.
        data: Folder that its relative image paths start from.
        cache: Folder for cached results; may be missing or read-only.
        where: Config file and key of the source, for errors.
        only_masked: Whether a folder's images without a label file are passed over.
        drawing: How label files are drawn, for a source that draws some.

    Attributes:
        draws: Whether its label files are drawn from annotations; they hold class ids then.
        remarks: Lines for the user about what `list` found and no row shows.
        undrawn: How many label files that `list` found wait for `draw`.
    """

    draws: ClassVar[bool] = False

    def __init__(
        self,
        config: Section,
        *,
        data: Path,
        cache: Path,
        where: str,
        only_masked: bool = False,
        drawing: Drawing | None = None,
    ) -> None:
        self.config = config
        self.data = data
        self.cache = cache
        self.where = where
        self.only_masked = only_masked
        self.drawing = drawing
        self.remarks: list[str] = []
        self.undrawn = 0

    @property
    @abstractmethod
    def paths(self) -> Mapping[str, Path]:
        """Folders, by their spelling in the config, and files that it names: {"a/images": ...}.

        The folder of the images comes first.
        """

    @property
    def list_file(self) -> Path | None:
        """The text file that names the images of the source, if it has one; it may be missing."""
        return None

    @abstractmethod
    def list(self) -> pa.Table:
        """Lists the source's images, each once and in a stable order.

        Every file that it sees is an image, belongs to one, or is counted in a remark.

        Returns:
            A table of the schema `LISTING`.

        Raises:
            DataError: Something that the config names is missing, empty or contradictory.
        """

    def draw(self, advance: Callable[[], None]) -> None:
        """Draws the label files that are missing; `list` was called before.

        Args:
            advance: Called after each one.

        Raises:
            DataError: The annotations cannot be read any more.
            OSError: A file cannot be written.
        """
