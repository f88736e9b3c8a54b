"""The disk of a run, looked at now and then beside the training, with the time until it is full."""

import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from gradience.errors import GradienceError
from gradience.storage.guard.words import growth
from gradience.storage.watch.records import MountView
from gradience.storage.watch.run import Watch

EVERY_SECONDS = 30.0
_WINDOW_SECONDS = 900.0
_HORIZON_SECONDS = 3600.0
_PATIENCE_SECONDS = 2.0


class Watcher:
    """Watches a directory's file system in a thread of its own.

    Parameters
    ----------
    place : Path
    environ, home
        For the limits of the platform.
    every : float
        Seconds between two looks.
    """

    def __init__(
        self, place: Path, environ: Mapping[str, str], home: Path, *, every: float = EVERY_SECONDS
    ) -> None:
        self.latest: MountView | None = None
        self._place = place
        self._environ = environ
        self._home = home
        self._every = every
        self._ended = threading.Event()
        self._said_seconds = float("inf")
        self._thread = threading.Thread(target=self._run, name="gradience-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End; a look that hangs on a dead file server is left behind."""
        self._ended.set()
        self._thread.join(_PATIENCE_SECONDS)

    def news(self) -> str:
        """A sentence when the disk will be full within the hour, and again at half the time."""
        seen = self.latest
        if seen is None or seen.seconds_to_full is None or seen.bytes_per_second is None:
            return ""
        seconds = seen.seconds_to_full
        if seconds > _HORIZON_SECONDS or seconds > self._said_seconds / 2:
            return ""
        self._said_seconds = seconds
        return growth(seen.path, seconds, seen.bytes_per_second, seen.free_bytes)

    def _run(self) -> None:
        try:
            watch = Watch(
                {"run": self._place},
                environ=self._environ,
                home=self._home,
                clock=time.monotonic,
                window=_WINDOW_SECONDS,
            )
            while not self._ended.wait(self._every):
                tick = watch.tick(now=datetime.now(UTC), patience=_PATIENCE_SECONDS)
                self.latest = tick.mounts[0] if tick.mounts else None
        except GradienceError:
            return  # the directory cannot be looked at: the saves will say so
