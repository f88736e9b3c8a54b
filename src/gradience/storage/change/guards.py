"""The protocols of those who use the same names: whose lock to hold, and what to look at under it.

A guard holds the other side's lock while an act is done, and says why the act must not be done. It
is asked a second time, before a thing that was set aside is removed for good: the hub's client
checks for a blob before it takes the lock, so a link to it can appear a moment later, and then the
blob is put back. Read from the source of huggingface_hub 2.4: file_download.py,
utils/_shared_blobs.py.
"""

import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator
from typing import Protocol

from gradience.registry import Registry
from gradience.storage.change.links import SnapshotLinks, quiet_for
from gradience.storage.change.records import Action, text_of
from gradience.storage.change.site import Site

_HERE = "gradience.storage.change.guards"
_STORE_BLOB = re.compile(r"blobs/(?P<shelf>[0-9a-f]{2})/(?P<hash>[0-9a-f]{64})(\.refs)?")
_USER = re.compile(r"(?:model|dataset|space)s--[^/]+/blobs/[^/]+")
_OLD_SECONDS = 86400.0
"""Where locks tell nothing, what was not written for a day is taken for abandoned."""


class Guard(Protocol):
    """What protects one kind of name.

    Attributes
    ----------
    grace : float
        Seconds after the lock was given back in which somebody who waited for it may still make use
        of what is gone: `wanted` is asked after that.
    """

    grace: float

    def early(self, action: Action, site: Site) -> str:
        """Why the whole group must stay, "" if it may go; asked before anything of it is done.

        What holds for one name holds for all in its directory.
        """
        ...

    def hold(self, action: Action, site: Site) -> contextlib.AbstractContextManager[str]:
        """Hold the lock; yield why the act must not be done, "" if it may."""
        ...

    def wanted(self, action: Action, site: Site) -> str:
        """Why what was set aside must be put back, "" if nobody asks for it."""
        ...


GUARDS: Registry[Guard] = Registry(
    "guard",
    {
        "": f"{_HERE}:FREE",
        "hub_blob": f"{_HERE}:HUB_BLOB",
        "hub_part": f"{_HERE}:HUB_PART",
        "lock_beside": f"{_HERE}:LOCK_BESIDE",
        "hub_store_blob": f"{_HERE}:HUB_STORE_BLOB",
        "hub_store_lock": f"{_HERE}:HUB_STORE_LOCK",
    },
)


class _NeverEarly:
    """Only the name itself tells."""

    def early(self, action: Action, site: Site) -> str:
        """Nothing speaks against the group."""
        return ""


class _Free(_NeverEarly):
    """Nobody else has a say."""

    grace = 0.0

    @contextlib.contextmanager
    def hold(self, action: Action, site: Site) -> Iterator[str]:
        """Hold nothing."""
        yield ""

    def wanted(self, action: Action, site: Site) -> str:
        """Nobody."""
        return ""


class _HubBlob:
    """A blob of a repository: `<repo>/blobs/<etag>`, under `.locks/<repo>/<etag>.lock`."""

    # filelock asks for a lock every 50 ms; the client then links to the blob without a second look.
    grace = 0.25

    def early(self, action: Action, site: Site) -> str:
        """A snapshot that stays was written a moment ago."""
        return self._written(site.snapshot_links(action.name.partition("/blobs/")[0]), site)

    @contextlib.contextmanager
    def hold(self, action: Action, site: Site) -> Iterator[str]:
        """Hold the lock of its download; no snapshot may link to it."""
        repo, _, etag = action.name.partition("/blobs/")
        with site.below.lock(f".locks/{repo}/{etag}.lock") as ours:
            yield _busy(ours, action, site) or self.wanted(action, site)

    def wanted(self, action: Action, site: Site) -> str:
        """A snapshot that links to it, or was written a moment ago."""
        repo, _, blob = action.name.partition("/blobs/")
        links = site.snapshot_links(repo)
        if link := links.to(blob):
            return f"{text_of(link.removeprefix(f'{repo}/'))} links to it"
        return self._written(links, site)

    def _written(self, links: SnapshotLinks, site: Site) -> str:
        return links.written_within(quiet_for(site.min_age), site.touched, site.going)


class _HubPart(_NeverEarly):
    """A part of a download: `<repo>/blobs/<etag>[.<8 hex>].incomplete`."""

    grace = 0.0

    @contextlib.contextmanager
    def hold(self, action: Action, site: Site) -> Iterator[str]:
        """Hold the lock of its download."""
        repo, _, part = action.name.partition("/blobs/")
        etag = part.partition(".")[0]
        with site.below.lock(f".locks/{repo}/{etag}.lock") as ours:
            yield _busy(ours, action, site)

    def wanted(self, action: Action, site: Site) -> str:
        """Nobody: its writer holds the lock, and has the file open."""
        return ""


class _LockBeside(_NeverEarly):
    """A file that is written under `<name>.lock`, as `datasets` does."""

    grace = 0.0

    @contextlib.contextmanager
    def hold(self, action: Action, site: Site) -> Iterator[str]:
        """Hold that lock."""
        stem = action.name.removesuffix(".json").removesuffix(".incomplete")
        with site.below.lock(f"{stem}.lock") as ours:
            yield _busy(ours, action, site)

    def wanted(self, action: Action, site: Site) -> str:
        """Nobody: who writes it holds the lock."""
        return ""


class _HubStoreBlob(_NeverEarly):
    """A shared blob, or its list: `blobs/<2 hex>/<hash>[.refs]`, under `<hash>.lock`."""

    grace = 0.0

    @contextlib.contextmanager
    def hold(self, action: Action, site: Site) -> Iterator[str]:
        """Hold its lock; its list must be readable, and none of the links in it hold."""
        match = _STORE_BLOB.fullmatch(action.name)
        if match is None:
            yield "it is no shared blob"
            return
        payload = f"blobs/{match['shelf']}/{match['hash']}"
        with site.below.lock(f"{payload}.lock", mode=0o666) as ours:
            yield _busy(ours, action, site) or _user(payload, site)

    def wanted(self, action: Action, site: Site) -> str:
        """A repository's blob that leads to it."""
        payload = action.name.removesuffix(".refs")
        return _user(payload, site, listed=site.aside(f"{payload}.refs"))


class _HubStoreLock(_NeverEarly):
    """A shared blob that stays, under `<hash>.lock`, whoever uses it."""

    grace = 0.0

    @contextlib.contextmanager
    def hold(self, action: Action, site: Site) -> Iterator[str]:
        """Hold its lock."""
        with site.below.lock(f"{action.name}.lock", mode=0o666) as ours:
            yield _busy(ours, action, site)

    def wanted(self, action: Action, site: Site) -> str:
        """Nobody misses a copy that was replaced."""
        return ""


def _user(payload: str, site: Site, listed: str = "") -> str:
    """A blob that leads to a shared blob, as the hub's own sweep looks for it; "" if there is none.

    A list that is missing or cannot be read proves nothing, so the hub never deletes such a blob.
    """
    names = [name for name in (f"{payload}.refs", listed) if name and site.below.exists(name)]
    if not names:
        return "it has no list of its users"
    for name in names:
        try:
            lines = site.below.read(name, 1 << 24).decode().splitlines()
        except (OSError, UnicodeDecodeError):
            return "the list of its users cannot be read"
        for line in lines:
            if _USER.fullmatch(line) and _leads_to(line, payload, site):
                return f"{text_of(line)} leads to it"
    return ""


def _leads_to(blob: str, payload: str, site: Site) -> bool:
    try:
        if not stat.S_ISLNK(site.below.status(blob).st_mode):
            return False
        target = site.below.link_target(blob)
    except (FileNotFoundError, NotADirectoryError):
        return False
    above = os.path.join(site.below.root, os.path.dirname(blob))  # noqa: PTH118, PTH120 - text only
    return os.path.normpath(os.path.join(above, target)) == (  # noqa: PTH118 - text only
        f"{site.below.root}/{payload}"
    )


def _busy(ours: bool | None, action: Action, site: Site) -> str:
    """Why a lock that we could not have forbids the act."""
    if ours:
        return ""
    if ours is False:
        return "a download holds its lock"
    age = time.time() - site.below.status(action.name).st_mtime
    if age < _OLD_SECONDS and not site.in_place:
        return "its lock cannot be had here, and it was written less than a day ago"
    return ""


FREE, HUB_BLOB, HUB_PART, HUB_STORE_BLOB = _Free(), _HubBlob(), _HubPart(), _HubStoreBlob()
LOCK_BESIDE, HUB_STORE_LOCK = _LockBeside(), _HubStoreLock()
