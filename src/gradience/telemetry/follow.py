"""A log, looked at once or again and again."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gradience.telemetry.monitor import Log
from gradience.telemetry.read import Reader, log_at
from gradience.telemetry.records import NAME, Event, RunSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a run is at, and the lines since the last look."""

    summary: RunSummary
    events: tuple[Event, ...]


class Followed:
    """A log by its path, or by the directory that holds it.

    Raises
    ------
    ArtifactError
        If there is none.
    """

    def __init__(self, path: Path, run_id: str = "") -> None:
        self.path = log_at(path, NAME)
        self._reader = Reader(self.path)
        self._log = Log(run_id)

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The runs seen so far."""
        return self._log.run_ids

    def look(self, *, now: datetime, ended: bool = True) -> Look | None:
        """Read what is new; None where the run has no line yet.

        Parameters
        ----------
        now : datetime
            Aware.
        ended : bool
            Nobody looks again: half a line at the end counts as torn.

        Raises
        ------
        ArtifactError
            As `Reader.news`.
        """
        events = self._reader.news()
        self._log.see(events)
        torn = self._reader.torn + (ended and self._reader.pending)
        summary = self._log.summary(
            str(self.path), now=now, torn=torn, unknown=self._reader.unknown
        )
        return None if summary is None else Look(summary=summary, events=tuple(events))
