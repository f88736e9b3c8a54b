"""The writer of a run's log: it appends, and never harms the run.

Each line is one write to a file opened to append, so a process killed at any point, and a disk that
fills up, lose at most the line that was being written. A line that cannot be written is counted:
the first is spoken of at once, since a wrong path loses them all, and their number at the end.
"""

import logging
import os
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from gradience import files
from gradience.errors import StorageError
from gradience.telemetry.records import SCHEMA, Event
from gradience.telemetry.redact import redacted

_log = logging.getLogger("gradience.telemetry")
_TAIL_BYTES = 2**20


class RunLog:
    """A log of one run.

    Parameters
    ----------
    path : Path
        The file; lines are added to what it holds.
    run_id : str, optional
        A new one by default.
    allow_text : collection of str
        Keys whose texts may be longer than 256 characters.
    clock : callable
        The time, aware.

    Examples
    --------
    >>> RunLog(Path("run.jsonl")).add(Metrics, kind="mine", values={"x": 1})  # doctest: +SKIP
    """

    def __init__(
        self,
        path: Path,
        *,
        run_id: str = "",
        allow_text: Collection[str] = (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.path = path
        self.run_id = run_id or os.urandom(6).hex()
        self.lost = 0
        self._why = ""
        self._allow = frozenset(allow_text)
        self._clock = clock

    def add(self, kind: type[Event], /, *, step: int | None = None, **facts: Any) -> Event:
        """Write a line, and return it; where the disk refuses, it is counted in `lost`.

        Facts are redacted and made plain first.
        """
        fields = {name: redacted(value, allow=self._allow) for name, value in facts.items()}
        event = msgspec.convert(
            {
                "schema": SCHEMA,
                "event": kind.__struct_config__.tag,
                "ts": self._clock(),
                "run_id": self.run_id,
                "step": step,
                **fields,
            },
            type=kind,
        )
        try:
            files.append_line(self.path, msgspec.json.encode(event))
        except StorageError as error:
            self._why = str(error)
            if not self.lost:
                _log.warning("a line of the run's log was lost: %s", self._why)
            self.lost += 1
        return event

    def close(self) -> None:
        """Make what was written durable, and say what was lost."""
        try:
            files.sync(self.path)
        except StorageError as error:
            self._why = self._why or str(error)
        if self._why:
            _log.warning("%d lines of the run's log were lost: %s", self.lost, self._why)


def last_run_id(path: Path) -> str:
    """The run that wrote the last whole line of a log; "" where there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            tail = file.read()
    except OSError:
        return ""
    for line in reversed(tail.splitlines()):
        try:
            found: str = msgspec.json.decode(line, type=_Named).run_id
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        return found
    return ""


class _Named(msgspec.Struct):
    run_id: str
