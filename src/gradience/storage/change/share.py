"""One cache for the users of a group, or for several projects.

A group needs: its own group on every name, directories in which it may write and whose new names
inherit it (setgid), files it may read, and write where their owner may. Files of a login are kept
apart: they are their owner's alone, whatever the directory around them.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from gradience import paths
from gradience.errors import StorageError, UsageError
from gradience.files.below import Below
from gradience.storage.change import fingerprint
from gradience.storage.change.records import Action, Item, Kept, Plan, text_of
from gradience.storage.change.verbs import mode

LOGIN = ("token", "stored_tokens")
BACK = "share (back)"
"""The title of the plan that takes sharing back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group of users."""

    name: str
    number: int


def shared(old: int, *, is_dir: bool, login: bool) -> int:
    """The permissions that a name of a shared cache has; pure.

    Examples
    --------
    >>> oct(shared(0o755, is_dir=True, login=False)), oct(shared(0o444, is_dir=False, login=False))
    ('0o2775', '0o444')
    """
    if login:
        return 0o600
    if is_dir:
        return old | 0o2770
    return old | 0o040 | ((old & 0o300) >> 3)


def plan_group(root: str, group: Group, *, change: str, now: float) -> Plan:
    """The plan that shares a directory with a group; `back` makes the one that takes it back.

    Raises
    ------
    StorageError
        If the directory cannot be read.
    """
    above, top = os.path.split(root)
    actions: list[Action] = []
    kept: list[Kept] = []
    try:
        with Below(above) as below:
            found = list(_names(below, top))
            inside = Counter(_inode(status) for _, status in found)
            for name, status in found:
                action = _action(below, top, name, status, group)
                if action is None:
                    continue
                if os.geteuid() not in (0, status.st_uid):
                    kept.append(_foreign(f"{above}/{name}", status))
                elif stat.S_ISREG(status.st_mode) and status.st_nlink > inside[_inode(status)]:
                    kept.append(_elsewhere(f"{above}/{name}"))
                else:
                    actions.append(action)
    except OSError as error:
        raise StorageError(
            f"{text_of(root)} cannot be shared: {error.strerror}",
            remedy="Run it as the owner of that directory.",
        ) from error
    return Plan(
        id=change,
        title="share",
        made=now,
        items=(
            Item(
                name=text_of(root),
                kind="directory",
                what=f"group {group.name}",
                reasons=("setgid and group-writable directories, files the group may use",),
            ),
        )
        if actions
        else (),
        actions=tuple(actions),
        kept=tuple(kept),
        notes=tuple(_notes(root, group)),
    )


def plan_links(root: str, links: Sequence[str], *, change: str, now: float) -> Plan:
    """The plan that makes names links to one cache.

    Raises
    ------
    UsageError
        If one of them holds something, or has no directory above it.
    """
    items: list[Item] = []
    actions: list[Action] = []
    for link in links:
        above, name = os.path.split(link)
        if os.path.realpath(link) == root:
            continue
        _check_link(link, above, root)
        number = len(items)
        items.append(
            Item(
                name=text_of(link),
                kind="link",
                what="link",
                reasons=(f"to {text_of(root)}; `rm` of the link takes it back",),
            )
        )
        actions += _link_acts(os.path.realpath(above), name, root, number)
    return Plan(id=change, title="share", made=now, items=tuple(items), actions=tuple(actions))


def _link_acts(above: str, name: str, root: str, number: int) -> Iterator[Action]:
    """The link; an empty directory of its name goes before, and comes back where that fails."""
    top, project = os.path.split(above)
    link = Action(
        verb="link",
        root=text_of(top),
        path=text_of(project),
        fingerprint=fingerprint.of_status(os.lstat(above)),
        item=number,
        unit=number,
        group=number,
        target=f"{text_of(name)}>{text_of(root)}",
    )
    empty = os.path.join(above, name)  # noqa: PTH118
    if os.path.lexists(empty):
        yield msgspec.structs.replace(
            link,
            verb="prune",
            path=text_of(f"{project}/{name}"),
            fingerprint=fingerprint.with_rights(os.lstat(empty)),
            target="",
        )
    yield link


def _check_link(link: str, above: str, root: str) -> None:
    if not os.path.isdir(above):  # noqa: PTH112
        raise UsageError(f"{text_of(above)} is no directory", remedy="Make it first.")
    if os.path.islink(link):  # noqa: PTH114
        raise UsageError(
            f"{text_of(link)} is a link to {text_of(os.readlink(link))}",  # noqa: PTH115
            remedy="Remove it first, if it is not wanted.",
        )
    if os.path.lexists(link) and (not os.path.isdir(link) or os.listdir(link)):  # noqa: PTH112, PTH208
        raise UsageError(
            f"{text_of(link)} holds something",
            remedy=f"Bring it into the shared cache: gradience cache merge {text_of(link)} "
            f"{text_of(root)}",
        )


def _names(below: Below, top: str) -> Iterator[tuple[str, os.stat_result]]:
    """Every directory and regular file, the directory itself first.

    Trash and what else lies in a directory of our own stays closed: it is its user's alone.
    """
    found = [(top, below.status(top))]

    def seen(path: bytes, status: os.stat_result) -> None:
        found.append((os.fsdecode(path), status))

    below.walk(top, seen)
    for name, status in found:
        known = stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)
        if known and paths.SET_ASIDE not in name.split("/")[:-1]:
            yield name, status


def _action(
    below: Below, top: str, name: str, status: os.stat_result, group: Group
) -> Action | None:
    """What a name needs; None if it has it."""
    login = name in {f"{top}/{file}" for file in LOGIN}
    old = status.st_gid, stat.S_IMODE(status.st_mode)
    permissions = shared(old[1], is_dir=stat.S_ISDIR(status.st_mode), login=login)
    new = (old[0] if login else group.number, permissions)
    if old == new:
        return None
    return Action(
        verb="mode",
        root=text_of(below.root),
        path=text_of(name),
        fingerprint=fingerprint.of_status(status),
        item=0,
        unit=0,
        group=0,
        target=mode.target(old, new),
    )


def back(plan: Plan) -> Plan:
    """The same acts the other way round, the last first: a directory opens before it closes."""
    actions = []
    for action in reversed(plan.actions):
        old, new = mode.rights(action.target)
        actions.append(msgspec.structs.replace(action, target=mode.target(new, old)))
    return msgspec.structs.replace(
        plan, id=f"{plan.id}-back", title=BACK, actions=tuple(actions), notes=(), kept=()
    )


def is_back(action: Action) -> bool:
    """Whether an act of a plan from a file takes sharing back, and nothing else.

    It does if sharing would give what it takes away: so it can open nothing that was closed before.
    """
    if action.verb != "mode":
        return False
    try:
        (_, now), (_, old) = mode.rights(action.target)
    except OSError:
        return False
    logins = (False, True) if action.path.rpartition("/")[2] in LOGIN else (False,)
    return now in {shared(old, is_dir=d, login=login) for d in (False, True) for login in logins}


def plan_back(planned: Plan, *, now: float) -> Plan:
    """The plan that takes sharing back, as one from a file asks for it."""
    actions = tuple(action for action in planned.actions if is_back(action))
    item = Item(
        name=os.path.commonpath([action.where for action in actions]) if actions else "",
        kind="directory",
        what="back",
        reasons=("the groups and modes from before it was shared",),
    )
    actions = tuple(msgspec.structs.replace(a, item=0, unit=0, group=0) for a in actions)
    return Plan(
        id=planned.id,
        title=BACK,
        made=now,
        items=(item,) if actions else (),
        actions=actions,
    )


def _foreign(path: str, status: os.stat_result) -> Kept:
    return Kept(
        name=text_of(path),
        kind="file",
        what="name",
        code="refused",
        why=f"it belongs to user {status.st_uid}: only that user, or root, can share it",
    )


def _inode(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _elsewhere(path: str) -> Kept:
    """A file that has a name outside too: somebody may have put it here to have it opened."""
    return Kept(
        name=text_of(path),
        kind="file",
        what="name",
        code="linked",
        why="it has another name outside of that directory, which would be shared too",
    )


def _notes(root: str, group: Group) -> Iterable[str]:
    yield "Set `umask 002` before programs start: what they add is the group's to use then."
    if any(os.path.lexists(f"{root}/{name}") for name in LOGIN):
        yield (
            f"A login lies in {text_of(root)}: it stays its owner's alone. The others give theirs "
            "a place of their own: export HF_TOKEN_PATH=~/.cache/huggingface/token"
        )
    above = os.path.dirname(root)  # noqa: PTH120
    while above != "/":
        status = os.stat(above)  # noqa: PTH116
        enters = 0o010 if status.st_gid == group.number else 0o001
        if not status.st_mode & enters:
            yield (
                f"Users of {group.name} may not enter {text_of(above)} (mode "
                f"{stat.S_IMODE(status.st_mode):04o}): move the cache to a place they may, with "
                "gradience cache move."
            )
        above = os.path.dirname(above)  # noqa: PTH120
