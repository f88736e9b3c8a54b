"""One directory while it is changed: the directory itself, and a place in it to set things aside.

Deleting is two steps. First a name is moved into `<root>/.gradience/<id>/things/`: one rename,
after which nobody can open it any more, and which can be taken back. What was open before is looked
for only then, so nothing can slip in between. Then it is removed, or kept as trash. The name there
is the whole path it came from, with `/` as `%2F`: it says where a thing belongs, journal or not,
and costs no directories. A directory that is to be removed loses that name first, in one step: what
is no longer whole belongs nowhere, so nothing of it can be brought back.
"""

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from gradience import paths
from gradience.errors import StorageError
from gradience.files import soft_lock
from gradience.files.below import Below, Removed
from gradience.storage.change.links import SnapshotLinks
from gradience.storage.change.records import text_of
from gradience.storage.change.whose import PROBE, Stranger, stranger
from gradience.storage.checkpoints.names import BALLAST, REPLACED, SAVING
from gradience.system.users import user_name

OWN = paths.SET_ASIDE
THINGS = "things"
_MORE = "%%"  # ends a part of a long name
_GOING = "%-"  # begins the name of what is being removed, and of no thing
_TAG = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n"
    b"# Things that gradience set aside; `gradience cache undo` brings trash back.\n"
    b"# https://bford.info/cachedir/\n"
)
_BOOKKEEPING = {"lock", "CACHEDIR.TAG"}
RESERVED = {"lock", BALLAST, SAVING, REPLACED}
"""No names of changes: our lock, and what a training run keeps there if the root is its output."""
_HIDDEN = (".fuse_hidden", ".nfs")
_LOOKS, _LOOK_SECONDS = 10, 0.05
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclass(slots=True)
class Site:
    """A root that is being changed.

    Attributes
    ----------
    below : Below
    id : str
        Of the plan.
    in_place : bool
        Nothing is set aside: things are removed where they are, which needs no free byte.
    min_age : float
        Of the plan.
    going : set of str
        What this change is to move away or remove.
    touched : set of str
        Directories in which this change made or removed a name: their times tell of nobody else.
    links : mapping
        Links of the snapshots of repositories that were looked at, by the repository's name.
    on_bytes : callable, optional
        Told how many bytes a verb has read, for a bar.
    """

    below: Below
    id: str
    in_place: bool = False
    min_age: float = 0.0
    going: Collection[str] = ()
    touched: set[str] = field(default_factory=set)
    links: dict[str, SnapshotLinks] = field(default_factory=dict)
    on_bytes: Callable[[int], None] | None = None

    @property
    def own(self) -> str:
        """The directory of this change."""
        return f"{OWN}/{self.id}"

    def aside(self, name: str) -> str:
        """Where a thing of that name is set aside."""
        quoted = name.replace("%", "%25").replace("/", "%2F")
        longest = 230 if quoted.isascii() else 57  # a name may have 255 bytes
        pieces = [quoted[at : at + longest] for at in range(0, len(quoted), longest)]
        return "/".join((self.own, THINGS, *(p + _MORE for p in pieces[:-1]), pieces[-1]))

    def set_aside_names(self) -> list[str]:
        """Where everything that lies aside came from."""
        found = []
        stack = [(f"{self.own}/{THINGS}", "")]
        while stack:
            place, so_far = stack.pop()
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                for piece, _ in self.below.entries(place):
                    if piece.endswith(_MORE):
                        stack.append((f"{place}/{piece}", so_far + piece.removesuffix(_MORE)))
                    elif not piece.startswith(_GOING):
                        quoted = so_far + piece
                        found.append(quoted.replace("%2F", "/").replace("%25", "%"))
        return found

    def open_own(self) -> None:
        """Make the directory of this change, with the tag that tells backups to leave it out.

        Nobody else may enter it, in a cache of several users too.

        Raises
        ------
        FileExistsError
            If there is one.
        PermissionError
            If it was exchanged for another user's before we had it open.
        """
        self.below.make_dirs(OWN)
        self.below.make_dir(self.own, 0o700)
        if (other := self.hold()) is not None:
            raise PermissionError(errno.EPERM, other.why, self.own)
        self.below.make_dir(f"{self.own}/{THINGS}", 0o700)
        with contextlib.suppress(FileExistsError):
            self.below.write(f"{OWN}/CACHEDIR.TAG", _TAG)

    def hold(self) -> Stranger | None:
        """Keep the directory of this change open, and say who else may have written what is in it.

        Raises
        ------
        FileNotFoundError, NotADirectoryError
            If there is none.
        """
        try:
            found = stranger(self.below, self.below.hold(self.own), OWN)
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError:  # we may not enter it, or something is mounted there
            return Stranger(user=user_name(self.below.status(self.own).st_uid))
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            things = self.below.hold(f"{self.own}/{THINGS}")
            found = found or stranger(self.below, things, OWN)
        return found

    def set_aside(self, name: str) -> None:
        """Move a thing out of the way."""
        self.below.move(name, self.make_aside(name))
        self.touched.add(name.rpartition("/")[0])

    def make_aside(self, name: str) -> str:
        """Where a thing of that name is set aside, with the directory for it."""
        target = self.aside(name)
        if "/" in target.removeprefix(f"{self.own}/{THINGS}/"):
            self.below.make_dirs(target.rpartition("/")[0])
        return target

    def bring_back(self, name: str) -> None:
        """Move a thing back; nothing happens where it is not set aside.

        Raises
        ------
        FileExistsError
            If something has its name by now.
        """
        if not self.below.exists(self.aside(name)):
            return
        self.below.make_dirs(name.rpartition("/")[0])
        self.below.move(self.aside(name), name)
        self.touched.add(name.rpartition("/")[0])

    def remove_aside(self, name: str, removed: Removed) -> None:
        """Remove a thing that is set aside, for good; once begun, no part of it comes back."""
        place = self.aside(name)
        if stat.S_ISDIR(self.below.status(place).st_mode):
            going = f"{self.own}/{THINGS}/{_GOING}{os.urandom(8).hex()}"
            # A full disk may refuse even that; to remove it makes room all the same.
            with contextlib.suppress(OSError):
                self.below.move(place, going)
                place = going
        self.below.remove(place, removed)

    def snapshot_links(self, repo: str) -> SnapshotLinks:
        """Which blobs the snapshots of a repository link to, now."""
        if repo not in self.links:
            self.links[repo] = SnapshotLinks(self.below, repo)
        return self.links[repo]

    def close_own(self) -> bool:
        """Remove the place for things that are set aside, unless some are left; whether so."""
        things = f"{self.own}/{THINGS}"
        left = bool(self.set_aside_names())
        if self.below.exists(things) and self._nothing_goes(things) and not left:
            self.below.remove(things, Removed())
        return left

    def _nothing_goes(self, things: str) -> bool:
        """Whether nothing is left of what was begun to be removed.

        One by one: on its way, a part of a deep tree has a name of its own at the top of that tree,
        and among the things it would be taken for one.
        """
        going = [piece for piece, _ in self.below.entries(things) if piece.startswith(_GOING)]
        try:
            for piece in going:
                self.below.remove(f"{things}/{piece}", Removed())
        except OSError:  # as whoever began that was told
            return False
        return True

    @contextlib.contextmanager
    def locked(self) -> Iterator[bool | None]:
        """Hold the lock of this root, so that two cleaners do not meet; see `Below.lock`.

        Our directory goes with the last change of it: its names under the lock, itself once the
        lock file is closed, for NFS and FUSE keep a file that is open under another name there.
        """
        with self.below.lock(f"{OWN}/lock", mode=0o666, spent=self._forget) as ours:
            yield ours
        for _ in range(_LOOKS):
            with contextlib.suppress(OSError):
                if self.below.remove_empty(OWN) or not self._only_hidden():
                    return
            time.sleep(_LOOK_SECONDS)

    def _only_hidden(self) -> bool:
        """Whether all that is left is what NFS or FUSE removes in a moment, now that it is closed.

        So too where nothing is left: that moment was just now.

        Raises
        ------
        OSError
            If there is no such directory.
        """
        return all(name.startswith(_HIDDEN) for name, _ in self.below.entries(OWN))

    def taken(self) -> StorageError:
        """The error where another command has this root's lock, with what its file says of it."""
        root = text_of(self.below.root)
        who, remedy = "another process", "Wait until that `gradience cache` command has ended."
        with contextlib.suppress(OSError):
            found = soft_lock.holder(self.below.read(f"{OWN}/lock", 1024))
            if found is not None:
                who = found.words
                remedy += f" If none runs there, remove {root}/{OWN}/lock: this mount has no flock."
        return StorageError(f"{who} changes {root} now", remedy=remedy)

    def _forget(self) -> bool:
        """Whether nothing is left here but bookkeeping; all of that but the lock goes."""
        with contextlib.suppress(OSError):
            names = {name for name, _ in self.below.entries(OWN)}
            if all(name in _BOOKKEEPING or name.startswith(PROBE) for name in names):
                for name in names - {"lock"}:
                    self.below.remove(f"{OWN}/{name}", Removed())
                return True
        return False


def changes(below: Below) -> list[str]:
    """Ids of the changes that left something in a root."""
    with contextlib.suppress(OSError):
        return sorted(
            name
            for name, status in below.entries(OWN)
            if stat.S_ISDIR(status.st_mode) and name not in RESERVED
        )
    return []
