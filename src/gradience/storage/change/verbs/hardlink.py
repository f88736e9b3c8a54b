"""Hardlink: a name leads to the inode of an equal file, in one step; the old one goes after that.

The names and notes that said they are equal are only candidates: every byte is compared here, on
open descriptors, and the very inode that was compared gets the name. Whoever has the old one open
or mapped keeps it.
"""

import contextlib
import errno
import os
from collections.abc import Iterator

from gradience.files import attributes, contents
from gradience.files.below import NO_EXCHANGE, Removed
from gradience.storage.change import fingerprint
from gradience.storage.change.records import Action, path_of
from gradience.storage.change.site import Site
from gradience.storage.change.verbs.verb import SetAside

_NO_INODES = (
    "this mount cannot swap names, nor does it tell hard links from copies: it stays a copy"
)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class _Hardlink(SetAside):
    done = "linked"
    needs_journal = True

    def check(self, action: Action, site: Site) -> str:
        """Whether one inode can serve both names: same disk, owner, mode and attributes."""
        with pair(action, site) as (original, copy):
            return unlike(original, copy)

    def do(self, action: Action, site: Site) -> Removed:
        """Compare, and swap the name with a link to the original."""
        with pair(action, site) as (original, copy):
            size = os.fstat(copy).st_size
            if not contents.same(original, copy, size, site.on_bytes):
                raise OSError(errno.EILSEQ, "its bytes differ")
            if why := unlike(original, copy):
                raise OSError(errno.EXDEV, why)
            aside = site.make_aside(action.name)
            site.below.link_open(original, aside)
            try:
                site.below.exchange(action.name, aside)
            except OSError as error:
                site.below.remove(aside, Removed())
                if error.errno not in NO_EXCHANGE:
                    raise
                _replace(action, site, original, aside)
        return Removed()

    def where(self, action: Action, site: Site) -> str:
        """Aside, once the names were swapped."""
        aside = site.aside(action.name)
        if not site.below.exists(aside):
            return ""
        old = site.below.status(aside).st_ino == action.fingerprint.inode
        return aside if old else ""  # after a restart the disk may have another number

    def undo(self, action: Action, site: Site) -> Removed:
        """Swap back; a link that was not swapped yet goes."""
        aside = site.aside(action.name)
        if self.where(action, site):
            try:
                site.below.exchange(action.name, aside)
            except OSError as error:
                if error.errno not in NO_EXCHANGE:
                    raise
                site.below.replace(aside, action.name)
        for name in (aside, _new(site)):
            with contextlib.suppress(FileNotFoundError):
                site.below.remove(name, Removed())
        return Removed()


def _new(site: Site) -> str:
    """Where the link is made before it replaces the old name."""
    return f"{site.own}/new"


def _replace(action: Action, site: Site, original: int, aside: str) -> None:
    """What a swap comes to on FUSE and NFS, which have none: a second name for the old, aside, and
    then the link over the first one, in one step.
    """
    new = _new(site)
    site.below.link_open(original, new)
    try:
        site.below.link(action.name, aside)
        if not fingerprint.same_inode(site.below.status(aside), action.fingerprint):
            raise OSError(errno.ENOTSUP, _NO_INODES)
        site.below.replace(new, action.name)
    except OSError:
        for name in (aside, new):
            site.below.unlink(name)
        raise


@contextlib.contextmanager
def pair(action: Action, site: Site) -> Iterator[tuple[int, int]]:
    """The original that an action names, which may lie anywhere, and the copy; open to be read."""
    with contextlib.ExitStack() as opened:
        original = os.open(path_of(action.target), _READ)
        opened.callback(os.close, original)
        copy = site.below.open(action.name)
        opened.callback(os.close, copy)
        yield original, copy


def unlike(original: int, copy: int) -> str:
    """Why one inode cannot serve both names; "" if it can."""
    one, other = os.fstat(original), os.fstat(copy)
    if one.st_dev != other.st_dev:
        return "it lies on another disk than its original"
    if (one.st_uid, one.st_gid) != (other.st_uid, other.st_gid):
        return "it belongs to another user or group than its original"
    if one.st_mode != other.st_mode:
        modes = f"{other.st_mode & 0o7777:04o}, not {one.st_mode & 0o7777:04o}"
        return f"it has another mode than its original ({modes})"
    if attributes.extended(original) != attributes.extended(copy):
        return "it has other extended attributes than its original"
    return ""


HARDLINK = _Hardlink()
