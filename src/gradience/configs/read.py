"""A config as a record, or one error that lists what is wrong with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from gradience.configs.decode import decode
from gradience.configs.document import Document, read_document
from gradience.configs.problems import refuse
from gradience.errors import UsageError

T = TypeVar("T", bound=msgspec.Struct)


def read_mapping(path: Path, *, remedy: str) -> Document:
    """The document in a file, which holds keys and values.

    Raises
    ------
    UsageError
        If it cannot be read, or holds something else.
    """
    document = read_document(path, remedy=remedy)
    if not isinstance(document.data, Mapping):
        raise UsageError(f"{path} holds no mapping of keys to values", remedy=remedy)
    return document


def as_record(document: Document, kind: type[T], *, source: str, remedy: str) -> T:
    """A document as a record of this kind.

    Raises
    ------
    UsageError
        Lists every key that is not known, with the nearest one, and every value of a wrong kind.
    """
    decoded = decode(document.data, kind)
    refuse(decoded.problems, source, document.lines, remedy=remedy)
    record: T = decoded.parts["$"]
    return record
