"""The trash: what changes set aside and kept, brought back or emptied."""

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from gradience.errors import StorageError, UsageError
from gradience.files.below import Below, Removed
from gradience.storage.change import journal
from gradience.storage.change.journal import Left
from gradience.storage.change.records import Plan, text_of
from gradience.storage.change.recover import blobs_first
from gradience.storage.change.site import OWN, Site, changes
from gradience.storage.change.verbs import VERBS
from gradience.storage.change.whose import Stranger


@dataclass(frozen=True, slots=True, kw_only=True)
class Trash:
    """What one change set aside below one root.

    Attributes
    ----------
    root, id : str
    plan : Plan or None
        None where it is lost: the names tell where things belong all the same.
    names : tuple of str
        Where the things came from, relative to the root; of a stranger's, as far as can be seen.
    stranger : Stranger or None
        Who else may have put it there: then it is neither brought back nor emptied.
    """

    root: str
    id: str
    plan: Plan | None
    names: tuple[str, ...]
    stranger: Stranger | None = None


@dataclass(slots=True, kw_only=True)
class Returned:
    """What an undo did: how many things came back or went, and why others did not."""

    things: int = 0
    freed: int = 0
    stayed: tuple[str, ...] = ()


def find(roots: Iterable[str]) -> list[Trash]:
    """The trash in these roots, the newest first; not what a change under way has set aside."""
    found = []
    for root in dict.fromkeys(roots):
        with contextlib.suppress(OSError), Below(root) as below:
            for change in changes(below):
                with (
                    contextlib.suppress(FileNotFoundError, NotADirectoryError),
                    journal.left(below, change) as (site, left),
                ):
                    if left.states is None and (one := _found(site, left)) is not None:
                        found.append(one)
    return sorted(found, key=lambda trash: trash.id, reverse=True)


def _found(site: Site, left: Left) -> Trash | None:
    names: tuple[str, ...] = ()
    with contextlib.suppress(PermissionError):
        names = tuple(site.set_aside_names())
        if not names:
            return None
    return Trash(
        root=site.below.root, id=site.id, plan=left.plan, names=names, stranger=left.stranger
    )


def bring_back(trash: Trash) -> Returned:
    """Move everything back to where it was; what has its name by now stays in the trash.

    Raises
    ------
    StorageError
        If the root cannot be opened, or another process changes it.
    """
    with _opened(trash) as site:
        done = Returned()
        stayed = []
        _make_again(trash, site)
        for name in _in_order(trash):
            try:
                site.bring_back(name)
            except FileExistsError:
                stayed.append(f"{text_of(name)}: something has that name by now")
            except OSError as error:
                stayed.append(f"{text_of(name)}: {error.strerror}")
            else:
                done.things += 1
        done.stayed = tuple(stayed)
        journal.close(site, keep=site.close_own())
        return done


def empty(trash: Trash) -> Returned:
    """Remove it for good, and count what that frees.

    Raises
    ------
    StorageError
        If the root cannot be opened, or another process changes it.
    """
    with _opened(trash) as site:
        removed, things = Removed(), 0
        stayed = []
        for name in trash.names:
            try:
                site.remove_aside(name, removed)
            except OSError as error:
                stayed.append(f"{text_of(name)}: {error.strerror}")
            else:
                things += 1
        journal.close(site, keep=site.close_own())
        return Returned(things=things, freed=removed.bytes, stayed=tuple(stayed))


def choose(found: Sequence[Trash], change: str | None) -> list[Trash]:
    """The trash of one change, by default the last of ours.

    Raises
    ------
    UsageError
        If there is none of that name, or a stranger's.
    """
    ours = [trash for trash in found if trash.stranger is None]
    if change is None:
        return [trash for trash in ours if trash.id == ours[0].id]
    chosen = [trash for trash in found if trash.id == change]
    for trash in chosen:
        if trash.stranger is not None:
            raise _left_to(trash.stranger, trash)
    if not chosen:
        raise UsageError(
            f"there is no trash named {change}",
            remedy="`gradience cache undo --list` shows what there is.",
        )
    return chosen


def dangling(trash: Trash) -> list[str]:
    """Links among the things of a trash that lead nowhere now that they are back."""
    found = []
    with Below(trash.root) as below:

        def seen(path: bytes, status: os.stat_result) -> None:
            place = os.path.join(os.fsencode(below.root), path)  # noqa: PTH118 - bytes
            if stat.S_ISLNK(status.st_mode) and not os.path.exists(place):  # noqa: PTH110
                found.append(text_of(os.fsdecode(path)))

        for name in trash.names:
            with contextlib.suppress(OSError):
                status = below.status(name)
                if stat.S_ISDIR(status.st_mode):
                    below.walk(name, seen)
                else:
                    seen(os.fsencode(name), status)
    return found


def _make_again(trash: Trash, site: Site) -> None:
    """Make the directories that went because they were empty, with owner and mode of old."""
    for action in reversed(trash.plan.actions if trash.plan else ()):
        if action.verb == "prune":
            with contextlib.suppress(OSError):  # then what was in it says why it stays
                VERBS[action.verb].undo(action, site)


def _in_order(trash: Trash) -> list[str]:
    """The last that went first: blobs before the snapshots that link to them, refs at the end."""
    planned = [action.name for action in trash.plan.actions] if trash.plan else []
    place = {name: -number for number, name in enumerate(planned)}
    return sorted(trash.names, key=lambda n: (n in place, place.get(n, 0), *blobs_first(n)))


def _left_to(other: Stranger, trash: Trash) -> UsageError:
    place = f"{text_of(trash.root)}/{OWN}/{trash.id}"
    return UsageError(
        f"{place} is left as it is: {other.why}",
        remedy=other.remedy(place, f"gradience cache undo {trash.id}"),
    )


@contextlib.contextmanager
def _opened(trash: Trash) -> Iterator[Site]:
    try:
        below = Below(trash.root)
    except OSError as error:
        raise StorageError(
            f"{text_of(trash.root)} cannot be opened: {error.strerror}",
            remedy="Run it as the owner of that directory.",
        ) from error
    with below:
        site = Site(below, trash.id)
        with site.locked() as ours:
            if ours is False:
                raise site.taken()
            try:
                other = site.hold()
            except (FileNotFoundError, NotADirectoryError) as error:
                raise StorageError(
                    f"{text_of(trash.root)}/{site.own} is gone by now",
                    remedy="`gradience cache undo --list` shows what there is.",
                ) from error
            if other is not None:
                raise _left_to(other, trash)
            yield site
