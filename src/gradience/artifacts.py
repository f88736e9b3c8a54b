"""The files written for others to read: an envelope with schema, writer and date around content.

An added optional key keeps `v1`; a removed, renamed or re-defined key makes `v2`. Reading tolerates
keys from a newer minor release and refuses a newer schema by name.
"""

from datetime import datetime
from typing import Any, TypeVar

import msgspec

from gradience import __version__
from gradience.errors import ArtifactError

T = TypeVar("T")

REMEDY = "Write it again; if it is a cache file, delete it."


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What every artifact says of itself before its content."""

    schema: str
    written_by: str
    written_at: str
    content: Any


def encode(schema: str, content: Any, *, now: datetime, indent: int = 2) -> bytes:
    """An artifact as UTF-8 JSON.

    Parameters
    ----------
    schema : str
        Such as `gradience.audit/v1`.
    content : msgspec struct or plain data
        Must hold no NaN and no infinity; JSON has neither.
    now : datetime
        Aware; written in ISO 8601.
    indent : int
        0 for one line.
    """
    envelope = Envelope(
        schema=schema,
        written_by=f"gradience {__version__}",
        written_at=now.isoformat(timespec="seconds"),
        content=content,
    )
    data = msgspec.json.encode(envelope)
    return msgspec.json.format(data, indent=indent) + b"\n" if indent else data


def decode(
    data: bytes,
    schema: str,
    content: type[T],
    *,
    source: str,
    remedy: str = REMEDY,
) -> T:
    """The content of an artifact, checked against its type.

    `remedy` is for what is no such artifact, or a damaged one.

    Raises
    ------
    ArtifactError
        If it is not JSON, of another schema, from the future, or its content is of another shape;
        `source` names the file in the message.
    """
    try:
        envelope = msgspec.json.decode(data, type=Envelope)
        _check_schema(envelope.schema, schema, source)
        return msgspec.convert(envelope.content, type=content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(
            f"{source} is not a readable {schema} file: {error}",
            remedy=remedy,
        ) from error


def _check_schema(found: str, wanted: str, source: str) -> None:
    if found == wanted:
        return
    name, _, version = found.partition("/v")
    wanted_name, _, wanted_version = wanted.partition("/v")
    newer = name == wanted_name and version.isdigit() and int(version) > int(wanted_version)
    raise ArtifactError(
        f"{source} has schema {found!r}, not {wanted!r}",
        remedy="It was written by a newer gradience: upgrade with `pip install -U gradience`."
        if newer
        else f"Give a {wanted} file.",
    )
