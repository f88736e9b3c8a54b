"""The reader of a run's log: what is whole, from where it stopped before.

A line that a crash cut off is skipped and counted. So is one of an event that only a newer release
knows; a newer schema is refused by name.
"""

from pathlib import Path

import msgspec

from gradience.errors import ArtifactError
from gradience.telemetry.records import SCHEMA, Event

_CHUNK_BYTES = 2**24


class _Head(msgspec.Struct):
    schema: str
    event: str


_EVENT = msgspec.json.Decoder(Event)
_HEAD = msgspec.json.Decoder(_Head)
_KNOWN = frozenset(str(kind.__struct_config__.tag) for kind in Event.__args__)


class Reader:
    """Reads a log that may still be written to.

    Attributes
    ----------
    torn : int
        Lines so far that were not whole.
    unknown : int
        Lines of events that this release does not know.
    pending : bool
        The end of the file is a line without an end: it is being written, or was cut off.
    """

    def __init__(self, path: Path) -> None:
        self.torn = 0
        self.unknown = 0
        self.pending = False
        self._path = path
        self._offset = 0
        self._read = 0

    def news(self) -> list[Event]:
        """The events of the lines that were completed since the last call.

        Raises
        ------
        ArtifactError
            If the file cannot be read, is no such log, or is one of a newer schema.
        """
        found: list[Event] = []
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, 2)
                if size < self._offset:
                    self._offset = 0  # another file stands in its place
                file.seek(self._offset)
                left = b""
                while chunk := file.read(_CHUNK_BYTES):
                    *lines, left = (left + chunk).split(b"\n")
                    self._offset += sum(len(line) + 1 for line in lines)
                    found += [event for line in lines if (event := self._event(line)) is not None]
        except OSError as error:
            raise ArtifactError(
                f"{self._path} cannot be read: {error.strerror or error}",
                remedy="Name the run.jsonl of a run, or the directory that holds it.",
            ) from error
        self.pending = bool(left)
        self._read += len(found)
        if self.torn and not self._read:
            raise ArtifactError(
                f"{self._path} is no log of a run: no line is a {SCHEMA} event",
                remedy="Name the run.jsonl that GradienceCallback writes into output_dir.",
            )
        return found

    def _event(self, line: bytes) -> Event | None:
        if not line.strip():
            return None
        try:
            event: Event = _EVENT.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._count(line)
            return None
        if event.schema != SCHEMA:
            self._refuse(event.schema)
        return event

    def _count(self, line: bytes) -> None:
        try:
            head = _HEAD.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.torn += 1
            return
        if head.schema != SCHEMA:
            self._refuse(head.schema)
        if head.event in _KNOWN:
            self.torn += 1
        else:
            self.unknown += 1

    def _refuse(self, schema: str) -> None:
        raise ArtifactError(
            f"{self._path} has a line of schema {schema!r}, not {SCHEMA!r}",
            remedy="If a newer gradience wrote it: `pip install -U gradience`.",
        )


def log_at(path: Path, name: str) -> Path:
    """The log that a path means: itself, or the one of that name in a directory.

    Raises
    ------
    ArtifactError
        If a directory holds none.
    """
    if not path.is_dir():
        return path
    if (path / name).is_file():
        return path / name
    below = sorted(path.glob(f"*/{name}"))
    raise ArtifactError(
        f"{path} holds no {name}",
        remedy=f"Did you mean {below[-1]}?" if below else "Name the output_dir of a run.",
    )
