"""How full the disks are, how fast the caches grow, and when it will be too late.

Headroom is asked in full now and then, because quota tools are slow; in between, what was used
since is subtracted. The forecast is `forecast.py`'s.
"""

import os
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from gradience import system
from gradience.storage.environment.readers import Host, resolve
from gradience.storage.room.headroom import Headroom, headroom
from gradience.storage.watch.forecast import (
    WINDOW_SECONDS,
    Forecast,
    Sample,
    Trend,
    forecast,
)
from gradience.storage.watch.records import CacheView, MountView, Tick
from gradience.storage.watch.sizer import Counting, Measured, Size, Sizer
from gradience.system.base import space_of

# Places of `variables.resolve` that fill while models are downloaded and trained.
_PLACES = (
    "hub",
    "xet",
    "datasets",
    "modules",
    "torch",
    "inductor",
    "triton",
    "wandb_cache",
    "wandb_staging",
    "gradience",
)
_REFRESH_SECONDS = 60.0
# Two directories of one such mount can have different limits: the tighter one is watched.
_DIRECTORY_LIMITS = ("btrfs", "ceph", "ext4", "fuse.ceph", "fuse.ceph-fuse", "xfs")
_STEADY_INODES_PER_SECOND = 1.0
_COUNT_SECONDS = 5.0
# Limits that fill as the file system fills, whoever writes; others are charged to us alone.
_SHARED_LIMITS = ("file system", "memory", "memory limit")


def default_caches(environ: Mapping[str, str], home: Path, host: Host) -> dict[str, Path]:
    """The caches of this environment that fill, by name; the nearest of several names of one path.

    Those that are not there yet are listed too: a first download fills them.
    """
    places = resolve(environ, home, host=host)
    found: dict[str, Path] = {}
    for name in _PLACES:
        if name in places:
            path = places[name].path
            if path not in found.values():
                found[name] = path
    return found


@dataclass(slots=True)
class _Cache:
    name: str
    path: Path
    counting: Counting
    mount: str
    samples: deque[Sample] = field(default_factory=deque)
    last: Measured | None = None

    @property
    def size(self) -> Size | None:
        """The last size that is known."""
        return self.last.size if self.last else None


@dataclass(slots=True)
class _Mount:
    place: Path
    room: Headroom
    asked_at: float
    used_when_asked: int | None = None
    samples: deque[Sample] = field(default_factory=deque)
    inode_samples: deque[Sample] = field(default_factory=deque)


class Watch:
    """Directories and the mounts that hold them, looked at again and again.

    Parameters
    ----------
    directories : mapping of str to Path
        By name; they need not exist.
    environ, home
        For the limits of the platform.
    clock : callable
        Seconds, on a clock that does not jump.
    window : float
        Seconds that the forecast looks back.

    Raises
    ------
    StorageError
        If a directory cannot be looked at.
    """

    def __init__(
        self,
        directories: Mapping[str, Path],
        *,
        environ: Mapping[str, str],
        home: Path,
        clock: Callable[[], float],
        window: float = WINDOW_SECONDS,
    ) -> None:
        self._clock = clock
        self._ask: Callable[[Path, float], Headroom] = lambda place, count_seconds: headroom(
            place, environ=environ, home=home, count_seconds=count_seconds
        )
        self._window = window
        self._mounts: dict[str, _Mount] = {}
        self._started: float | None = None
        self._caches = [self._cache(name, path) for name, path in directories.items()]

    def _cache(self, name: str, path: Path) -> _Cache:
        found = system.mount_of(path)
        mount = os.fspath(found.path)
        known = self._mounts.get(mount)
        if known is None or found.fs_type in _DIRECTORY_LIMITS:
            room = self._ask(path, 0.0)
            if known is None or _order(room) < _order(known.room):
                self._mounts[mount] = _Mount(place=room.path, room=room, asked_at=float("-inf"))
        return _Cache(
            name=name, path=path, counting=Counting(Sizer(path), self._clock), mount=mount
        )

    def tick(self, *, now: datetime, patience: float | None) -> Tick:
        """Look at everything once.

        Parameters
        ----------
        now : datetime
            Aware; written into the record.
        patience : float, optional
            Seconds to wait for the sizes of large trees; None waits for all. A tree that takes
            longer shows its last size.
        """
        seconds = self._clock()
        self._started = seconds if self._started is None else self._started
        until = None if patience is None else seconds + patience
        for cache in self._caches:
            self._count(cache, until)
        return Tick(
            at=now.isoformat(timespec="seconds"),
            elapsed_seconds=round(seconds - self._started, 3),
            mounts=tuple(self._mount_view(path, m) for path, m in self._mounts.items()),
            caches=tuple(self._cache_view(cache) for cache in self._caches),
        )

    def _count(self, cache: _Cache, until: float | None) -> None:
        patience = None if until is None else max(0.0, until - self._clock())
        measured = cache.counting.latest(patience)
        if measured is None or measured is cache.last:
            return
        cache.last = measured
        if measured.size is not None:
            self._keep(cache.samples, Sample(seconds=measured.seconds, used=measured.size.bytes))

    def _keep(self, samples: deque[Sample], sample: Sample) -> None:
        samples.append(sample)
        while sample.seconds - samples[0].seconds > self._window:
            samples.popleft()

    def _mount_view(self, path: str, mount: _Mount) -> MountView:
        seconds = self._clock()
        if self._is_due(mount, seconds):
            mount.room = self._ask(mount.place, _COUNT_SECONDS)
            mount.asked_at = seconds
            mount.used_when_asked = None
        used = self._used(path, mount.room)
        if mount.used_when_asked is None:
            mount.used_when_asked = used
        free = _left(mount, used)
        if used is not None:
            self._keep(mount.samples, Sample(seconds=seconds, used=used))
        told = forecast(mount.samples, free, window=self._window)
        inodes = _inodes_left(mount)
        if inodes is not None:
            self._keep(mount.inode_samples, Sample(seconds=seconds, used=-inodes))
        files = forecast(
            mount.inode_samples, inodes, window=self._window, steady=_STEADY_INODES_PER_SECOND
        )
        binding = mount.room.binding
        return MountView(
            path=_text(path),
            fs_type=mount.room.mount.fs_type,
            limit=f"{binding.source}, {binding.confidence}" if binding else "unknown",
            trend=told.trend,
            free_bytes=free,
            total_bytes=mount.room.mount.total_bytes,
            free_inodes=inodes,
            bytes_per_second=told.per_second,
            seconds_to_full=told.seconds_to_full,
            seconds_to_no_inodes=files.seconds_to_full,
        )

    def _is_due(self, mount: _Mount, seconds: float) -> bool:
        """Whether to ask for the room again: at first, and now and then if that is quick."""
        if mount.asked_at == float("-inf"):
            return True
        counted = mount.room.binding is not None and mount.room.binding.counted
        return not counted and seconds - mount.asked_at >= _REFRESH_SECONDS

    def _used(self, path: str, room: Headroom) -> int | None:
        """Bytes in use, counted as the binding limit counts them."""
        if room.binding is None or room.binding.source in _SHARED_LIMITS:
            space = space_of(room.path, room.mount)
            return None if space is None else (space.f_blocks - space.f_bfree) * space.f_frsize
        caches = [c for c in self._caches if c.mount == path]
        if any(c.last is None for c in caches):
            return None  # half a sum would look like growth when the rest comes in
        return sum(c.size.bytes for c in caches if c.size is not None)

    def _cache_view(self, cache: _Cache) -> CacheView:
        size = cache.size
        told = (
            Forecast(trend=Trend.UNKNOWN)
            if size is None
            else forecast(cache.samples, None, window=self._window)
        )
        return CacheView(
            name=_text(cache.name),
            path=_text(os.fspath(cache.path)),
            mount=_text(cache.mount),
            state="counting" if cache.last is None else "there" if size else "absent",
            trend=told.trend,
            bytes=size.bytes if size else None,
            files=size.files if size else None,
            unfinished_bytes=size.unfinished_bytes if size else 0,
            bytes_per_second=told.per_second,
        )


def _left(mount: _Mount, used: int | None) -> int | None:
    """The room when it was asked for, less what was used since, and no more than is free now."""
    room = mount.room.bytes
    if room is None or used is None or mount.used_when_asked is None:
        return room
    return max(0, room - (used - mount.used_when_asked))


def _inodes_left(mount: _Mount) -> int | None:
    if mount.room.binding_inodes is None or mount.room.binding_inodes.source != "file system":
        return mount.room.inodes
    space = space_of(mount.room.path, mount.room.mount)
    return mount.room.inodes if space is None else space.f_favail


def _order(room: Headroom) -> float:
    return float("inf") if room.bytes is None else room.bytes


def _text(path: str) -> str:
    """A path as text that can be printed: bytes that are no UTF-8 become escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
