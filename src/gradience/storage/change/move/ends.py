"""The two places of a move, held open and locked, and what an unfinished move leaves at each.

Beside the new place lies `.NAME.gradience-move/`: the plan, one byte that says how far it came, and
the copy while it is made. Beside the old place lies `.NAME.gradience-moved`: the link before the
swap, the old directory after it. Names that follow from the two places, so that the same command
finds them again after a kill, on whatever disk the journal of another cache may lie.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

import msgspec

from gradience import artifacts
from gradience.errors import ArtifactError, StorageError, UsageError
from gradience.files.below import Below, Removed
from gradience.storage.change.move.tree import look
from gradience.storage.change.records import PLAN_SCHEMA, Action, Plan, Tree, path_of, text_of
from gradience.storage.change.site import Site
from gradience.storage.change.whose import Stranger, stranger
from gradience.system.users import user_name

COPYING, PLACED, SWAPPED, REMOVING = b"c", b"p", b"s", b"r"
"""How far: the copy is made; it has its place; the link has the old place; the old bytes go."""
_LONGEST = 255
"""Bytes that a name may have, on nearly every file system."""
_MERGES = "merges"
"""A file beside the state: what is at the new place is no copy of ours, and never taken away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A move or a merge that was cut off.

    Attributes
    ----------
    place : str
        Where its plan lies.
    verb : str
        `move` or `merge`.
    old, new : str
        From where to where.
    placed : bool
        The new place may have its copy already, so that no second plan can be made.
    swapped : bool
        The old directory lies aside, or is gone.
    """

    place: str
    verb: str
    old: str
    new: str
    placed: bool
    swapped: bool

    @property
    def words(self) -> str:
        """What was found."""
        return f"{text_of(self.place)} is of an unfinished {self.verb} of {text_of(self.old)}"

    @property
    def command(self) -> str:
        """The command that goes on with it."""
        return f"gradience cache {self.verb} {quote(self.old)} {quote(self.new)}"

    @property
    def remedy(self) -> str:
        """How it is ended, or taken back where nothing was swapped yet."""
        back = "" if self.swapped else ", or --abandon with it"
        return f"Give that command again first{back}: {self.command}"


def own_of(name: str) -> str:
    """Beside a new place: plan, state, copy."""
    return f".{name}.gradience-move"


def aside_of(name: str) -> str:
    """Beside an old place: the link before the swap, the old directory after it."""
    return f".{name}.gradience-moved"


@dataclass(slots=True)
class Ends:
    """Where a directory is, and where it goes.

    Attributes
    ----------
    source, target : Below
        The directories above the old place and above the new one.
    top, name : str
        The old and the new name in them.
    inner : ExitStack
        The locks inside of the old directory.
    """

    source: Below
    top: str
    target: Below
    name: str
    inner: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def old(self) -> str:
        """The old place."""
        return os.path.join(self.source.root, self.top)  # noqa: PTH118 - perhaps no UTF-8

    @property
    def new(self) -> str:
        """The new place, and what the link at the old one says."""
        return os.path.join(self.target.root, self.name)  # noqa: PTH118 - perhaps no UTF-8

    @property
    def aside(self) -> str:
        """Beside the old place: the link before the swap, the old directory after it."""
        return aside_of(self.top)

    @property
    def own(self) -> str:
        """Beside the new place: plan, state, copy."""
        return own_of(self.name)

    @property
    def copy(self) -> str:
        """Where the copy is made."""
        return f"{self.own}/copy"

    def is_dir(self, below: Below, name: str) -> bool:
        """Whether a directory, not a link to one, has that name."""
        return below.exists(name) and stat.S_ISDIR(below.status(name).st_mode)

    def says(self, below: Below, name: str) -> str:
        """What the link of that name says; "" where there is none."""
        if below.exists(name) and stat.S_ISLNK(below.status(name).st_mode):
            return below.link_target(name)
        return ""

    def leads(self) -> bool:
        """Whether the old place is a link to the new one already."""
        said = self.says(self.source, self.top)
        path = os.path.join(self.source.root, said)  # noqa: PTH118
        return bool(said) and (said == self.new or os.path.realpath(path) == self.new)

    def has_link(self) -> bool:
        """Whether the link that a swap puts at the old place is there, and nothing else."""
        return self.says(self.source, self.top) == self.new

    def lacking(self) -> bool:
        """Whether the new place is free: nothing, an empty directory, or a link to the old one.

        Raises
        ------
        StorageError
            If it cannot be looked into: another disk is mounted there, say.
        """
        if not self.target.exists(self.name):
            return True
        if not self.is_dir(self.target, self.name):
            return self._stale_link()
        try:
            return not self.target.entries(self.name)
        except OSError as error:
            inside = text_of(f"{self.new}/{self.top}")
            mounted = error.errno == errno.EXDEV
            raise StorageError(
                f"{text_of(self.new)} cannot be the new place: {error.strerror}",
                remedy=f"Name a directory in it: {inside}" if mounted else "Name another place.",
            ) from error

    def make_way(self) -> None:
        """Remove what may stand at a free place; the kernel refuses a directory with content."""
        if self.is_dir(self.target, self.name):
            if not self.target.remove_empty(self.name):
                raise OSError(errno.ENOTEMPTY, "something is in it by now", self.new)
        elif self._stale_link():
            self.target.remove(self.name, Removed())

    def _stale_link(self) -> bool:
        """Whether an earlier move left a link at the new place, that leads to the old one."""
        said = self.says(self.target, self.name)
        return bool(said) and (said == self.new or os.path.realpath(self.new) == self.old)

    def hold_own(self) -> None:
        """Keep plan, state and copy open, if they are there; only we can have written them.

        Raises
        ------
        StorageError
            If another user could have.
        """
        if not self.target.exists(self.own):
            return
        try:
            other = stranger(self.target, self.target.hold(self.own), self.own)
        except PermissionError:
            other = Stranger(user=user_name(self.target.status(self.own).st_uid))
        if other is not None:
            place = f"{text_of(self.target.root)}/{self.own}"
            raise StorageError(
                f"{place} is no unfinished move of ours: {other.why}",
                remedy="Remove it, if that is allowed, or name another place.",
            )
        self.check_journal()

    def check_journal(self) -> None:
        """Refuse what is unfinished between other places: it would be forgotten half-way.

        Raises
        ------
        StorageError
        """
        to_the_old = Ends(self.source, self.top, self.source, self.top).unfinished()
        for found in (self.unfinished(), to_the_old):
            if found is not None and (found.old, found.new) != (self.old, self.new):
                raise StorageError(found.words, remedy=found.remedy)
        for below, name in ((self.source, self.top), (self.target, self.name)):
            left = aside_of(name)
            if below.exists(left) and self.state() is None:
                raise StorageError(
                    f"{text_of(below.root)}/{text_of(left)} is of an unfinished move of "
                    f"{text_of(below.root)}/{text_of(name)}",
                    remedy="Give that command again first; or, if something else stands there by "
                    "now, see what differs, and remove it.",
                )

    def begin_own(self, *, merges: bool) -> None:
        """Make the directory for them, closed to others, where an earlier try left none."""
        with contextlib.suppress(FileExistsError):
            self.target.make_dir(self.own, 0o700)
        self.hold_own()
        mark = f"{self.own}/{_MERGES}"
        if merges and not self.merges:
            self.target.write(mark, b"")
        elif self.merges and not merges:
            self.target.remove(mark, Removed())

    @property
    def merges(self) -> bool:
        """Whether what is unfinished brings the directory into one with content of its own."""
        return self.target.exists(f"{self.own}/{_MERGES}")

    def state(self) -> bytes | None:
        """How far an unfinished move came; None where there is none."""
        try:
            return self.target.read(f"{self.own}/state", 1)
        except OSError:
            return None

    def reach(self, state: bytes) -> None:
        """Write down how far it came, so that a power cut does not lose it."""
        name = f"{self.own}/state"
        if not self.target.exists(name):
            self.target.write(name, state)
        else:
            self.target.overwrite(name, state)

    def note_copy(self) -> None:
        """Remember what the whole copy looks like, before it is given its name."""
        _, tree = look(self.target, self.copy)
        with contextlib.suppress(FileNotFoundError):
            self.target.remove(f"{self.own}/copied.json", Removed())
        self.target.write(f"{self.own}/copied.json", msgspec.json.encode(tree))

    def copy_untouched(self) -> bool:
        """Whether nobody has written at the new place since; nothing there is nothing written."""
        if not self.target.exists(self.name):
            return True
        try:
            _, found = look(self.target, self.name)
            noted = msgspec.json.decode(self.target.read(f"{self.own}/copied.json"), type=Tree)
        except (OSError, msgspec.MsgspecError):
            return False
        return found == noted

    def planned(self) -> Action | None:
        """What an unfinished move was to do, as its plan has it."""
        name = f"{self.own}/plan.json"
        try:
            data = self.target.read(name, 1 << 24)
            plan = artifacts.decode(data, PLAN_SCHEMA, Plan, source=name)
        except (OSError, ArtifactError):
            return None
        return plan.actions[0] if plan.actions else None

    def unfinished(self) -> "Unfinished | None":
        """What the plan beside the new place was to do; None where it was not begun, or is over."""
        action, state = self.planned(), self.state()
        if action is None or state is None:
            return None
        old = Path(path_of(action.where))
        aside = old.with_name(aside_of(old.name))
        return Unfinished(
            place=f"{self.target.root}/{self.own}",
            verb=action.verb,
            old=str(old),
            new=path_of(action.target),
            placed=action.verb == "move" and state != COPYING,
            swapped=state in (SWAPPED, REMOVING) or (aside.is_dir() and not aside.is_symlink()),
        )

    def forget(self) -> None:
        """The move is over, or taken back: remove plan, state and what is left of a copy."""
        # The state first: what else is there without it says nothing, and may stay.
        self.target.unlink(f"{self.own}/state")
        with contextlib.suppress(OSError):
            self.target.remove(self.own, Removed())


@contextlib.contextmanager
def opened(old: str, new: str) -> Iterator[Ends]:
    """Both ends, held open.

    Where directories above a place are still to be made, or are gone, the nearest one that is there
    stands for them: enough to plan with.

    Raises
    ------
    UsageError
        If one lies in the other, or has too long a name.
    StorageError
        If one of them cannot be opened.
    """
    if os.path.commonpath((old, new)) in (old, new):
        raise not_apart(old, new)
    _check_names(old, new)
    with contextlib.ExitStack() as stack:
        source, target = (stack.enter_context(_below(_above(place))) for place in (old, new))
        top, name = (os.path.relpath(place, _above(place)) for place in (old, new))
        yield Ends(source, top, target, name)


def not_apart(old: str, new: str) -> UsageError:
    """The error for a directory that would be moved into itself."""
    return UsageError(
        f"{text_of(new)} and {text_of(old)} are one, or one lies in the other",
        remedy="Name another place, outside of it.",
    )


def _check_names(*places: str) -> None:
    most = _LONGEST - len(f"{own_of('')}.lock")
    for place in places:
        if len(os.fsencode(os.path.basename(place))) > most:  # noqa: PTH119 - perhaps no UTF-8
            raise UsageError(
                f"{text_of(place)} has a name that is too long for those that are made beside it",
                remedy=f"Rename it, or name a place, so that it has at most {most} bytes.",
            )


def _above(place: str) -> str:
    above = os.path.dirname(place)  # noqa: PTH120 - perhaps no UTF-8
    while not os.path.lexists(above):
        above = os.path.dirname(above)  # noqa: PTH120
    return above


def _below(path: str) -> Below:
    try:
        return Below(path)
    except OSError as error:
        raise StorageError(
            f"{text_of(path)} cannot be opened: {error.strerror}",
            remedy="Name a directory that is there, and that this user may read.",
        ) from error


@contextlib.contextmanager
def locked(ends: Ends) -> Iterator[None]:
    """Keep other commands that change out, at both ends.

    Raises
    ------
    StorageError
        If one of them is at work there.
    """
    with contextlib.ExitStack() as stack:
        # Who waits for the lock file sees that it was removed, and takes a new one.
        held = [stack.enter_context(ends.target.lock(f"{ends.own}.lock", spent=lambda: True))]
        # To be let go before the old directory is removed: a file that is open keeps a name on NFS
        # and FUSE when it is unlinked, and its directory cannot go.
        inner = stack.enter_context(ends.inner)
        for place in (ends.top, ends.aside):
            if ends.is_dir(ends.source, place):
                below = inner.enter_context(Below(f"{ends.source.root}/{place}"))
                held.append(inner.enter_context(Site(below, "").locked()))
        if not ends.lacking() and ends.is_dir(ends.target, ends.name):
            below = stack.enter_context(Below(ends.new))
            held.append(stack.enter_context(Site(below, "").locked()))
        if False in held:
            raise StorageError(
                f"another process changes {text_of(ends.old)} or {text_of(ends.new)} now",
                remedy="Wait until that `gradience cache` command has ended.",
            )
        ends.hold_own()
        yield
