"""The disks of a program, looked at in a thread of its own: a dead file server hangs nobody else.

Two questions each time: how much can be written by every limit that is known, and would the disk
take what must stay free? The second finds quotas that nothing reports.
"""

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gradience.errors import GradienceError
from gradience.storage.guard.records import Need
from gradience.storage.guard.room import room_at
from gradience.storage.room.headroom import Confidence, Headroom, Verdict, probe
from gradience.storage.watch.forecast import Forecast, Sample, forecast

_WINDOW_SECONDS = 60.0
_AHEAD_LOOKS = 2.0
_PLENTY = 2
_FEWEST_SAMPLES = 4  # one file that appears is no pace


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One disk at one time.

    Attributes
    ----------
    seconds : float
        On the monotonic clock.
    free_bytes, free_files : int or None
        None where nothing says so.
    low : bool
        It would not take what must stay free, and what is written until the next looks.
    told : Forecast
        How fast it fills.
    """

    seconds: float
    free_bytes: int | None
    free_files: int | None
    low: bool
    told: Forecast


class Looker:
    """Looks at one directory's disk again and again.

    Parameters
    ----------
    place : Path
    stop : Need
        What must stay free.
    every : float
        Seconds.
    """

    def __init__(
        self,
        place: Path,
        stop: Need,
        *,
        environ: Mapping[str, str],
        home: Path,
        every: float,
    ) -> None:
        self.place = place
        self.stop = stop
        self.latest: Look | None = None
        self.lowest_free: int | None = None
        self.asked = False  # once the program was asked, no room is taken for a question
        self._environ = environ
        self._home = home
        self._every = every
        self._samples: deque[Sample] = deque(maxlen=600)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gradience-look", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def forget(self) -> None:
        """Begin anew: the reserve, which was taken just now, is no growth."""
        self._samples.clear()
        self.lowest_free = None

    def end(self) -> None:
        """Look no more; a look that hangs is left behind."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def look(self) -> Look:
        """Look once.

        Raises
        ------
        StorageError
            If the place cannot be looked at.
        """
        now = time.monotonic()
        room = room_at(self.place, self._environ, self._home)
        if room.bytes is not None:
            self._samples.append(Sample(seconds=now, used=-room.bytes))
            self.lowest_free = min(room.bytes, self.lowest_free or room.bytes)
        told = forecast(self._samples, room.bytes, window=_WINDOW_SECONDS)
        known = len(self._samples) >= _FEWEST_SAMPLES
        rate = max(0.0, told.per_second or 0.0) if known else 0.0
        need = Need(
            bytes=self.stop.bytes + round(rate * self._every * _AHEAD_LOOKS),
            inodes=self.stop.inodes,
        )
        self.latest = Look(
            seconds=now,
            free_bytes=room.bytes,
            free_files=room.inodes,
            low=not self.asked and self._is_low(room, need),
            told=told,
        )
        return self.latest

    def _is_low(self, room: Headroom, need: Need) -> bool:
        """By the limits; the disk itself is asked only where that takes room from nobody."""
        if room.inodes is not None and room.inodes < need.inodes:
            return True
        binding = room.binding
        if (
            binding is not None
            and binding.bytes is not None
            and binding.bytes < _PLENTY * need.bytes
        ):
            lags = binding.confidence is Confidence.REPORTED  # as that of btrfs, after a deletion
            short = binding.bytes < need.bytes
            return short and not (lags and self._verdict(need.bytes) is Verdict.FITS)
        return self._verdict(need.bytes) is Verdict.REFUSED

    def _verdict(self, nbytes: int) -> Verdict:
        return probe(self.place, nbytes).verdict

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            try:
                self.look()
            except GradienceError:
                continue  # gone for a moment, or for good: the last look stands
