"""Which blobs the snapshots of a hub repository link to, asked again and again while it changes."""

import os
import stat
import time
from collections.abc import Collection
from dataclasses import dataclass

from gradience.files.below import Below
from gradience.storage.change.records import text_of

_SETTLED_NS = 2_000_000_000
"""A directory that changed more recently is read again each time: the next link may get the same
time stamp (the clock of a file system ticks in milliseconds, that of some in seconds)."""
QUIET_SECONDS = 60.0
"""From the directory for a link to the link itself, a client that waits for no lock and no byte."""


def quiet_for(min_age: float) -> float:
    """Seconds for which a repository must not have been written to before blobs of it may go."""
    return min(min_age, QUIET_SECONDS)


def too_new(name: str, age: float, quiet: float) -> str:
    """Why blobs of a repository stay for now.

    Examples
    --------
    >>> too_new("snapshots/8f", 12.0, 60.0)
    'snapshots/8f was written 12 s ago, so a download may be under way; wait 48 s'
    >>> too_new("snapshots/8f", -90.0, 60.0).partition(",")[0]
    'snapshots/8f has a time that is yet to come'
    """
    if age < -quiet:  # copied from a machine whose clock is ahead, say: waiting does not help
        return (
            f"{name} has a time that is yet to come, so a download may be under way; touch it, and "
            f"wait {quiet:.0f} s"
        )
    return (
        f"{name} was written {max(0.0, age):.0f} s ago, so a download may be under way; "
        f"wait {quiet - age:.0f} s"
    )


@dataclass(slots=True)
class _Listing:
    stamp: tuple[int, int]
    read_at: int
    blobs: dict[str, str]
    dirs: tuple[str, ...]


class SnapshotLinks:
    """The links of one repository; a directory is read again when its time of change says so."""

    def __init__(self, below: Below, repo: str) -> None:
        self._below = below
        self._repo = repo
        self._known: dict[str, _Listing] = {}

    def to(self, blob: str) -> str:
        """A link in a snapshot that leads to a blob; "" if there is none.

        Raises
        ------
        OSError
            If a snapshot cannot be read: then nobody can say.
        """
        stack = [f"{self._repo}/snapshots"]
        while stack:
            listing = self._listing(stack.pop())
            if listing is None:
                continue
            if blob in listing.blobs:
                return listing.blobs[blob]
            stack += listing.dirs
        return ""

    def written_within(self, seconds: float, but: Collection[str], going: Collection[str]) -> str:
        """Why a snapshot in which a name was made or removed so lately keeps blobs; "" if none.

        The client makes the directory for a link before it looks whether it has the blob.

        Parameters
        ----------
        but : collection of str
            Directories that we changed ourselves.
        going : collection of str
            Snapshots that are to go.
        """
        now = time.time_ns()
        limit = now - int(seconds * 1e9)
        top = self._listing(f"{self._repo}/snapshots")
        stack = list(top.dirs) if top is not None else []
        while stack:
            name = stack.pop()
            listing = self._listing(name) if name not in going else None
            if listing is not None:
                if listing.stamp[1] > limit and name not in but:
                    age = (now - listing.stamp[1]) / 1e9
                    return too_new(text_of(name.removeprefix(f"{self._repo}/")), age, seconds)
                stack += listing.dirs
        return ""

    def _listing(self, name: str) -> _Listing | None:
        try:
            status = self._below.status(name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISDIR(status.st_mode):
            return None
        stamp = status.st_ino, status.st_mtime_ns
        known = self._known.get(name)
        if known is None or known.stamp != stamp or known.read_at - stamp[1] < _SETTLED_NS:
            known = self._read(name, stamp)
            self._known[name] = known
        return known

    def _read(self, name: str, stamp: tuple[int, int]) -> _Listing:
        read_at = time.time_ns()
        blobs: dict[str, str] = {}
        dirs = []
        for child, status in self._below.entries(name):
            path = f"{name}/{child}"
            if stat.S_ISDIR(status.st_mode):
                dirs.append(path)
            elif stat.S_ISLNK(status.st_mode):
                # By the last part alone: too many links are taken for links to a blob, never too
                # few, whichever way the link is written.
                blobs[os.path.basename(self._below.link_target(path))] = path  # noqa: PTH119
        return _Listing(stamp, read_at, blobs, tuple(dirs))
