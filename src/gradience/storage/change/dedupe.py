"""The plan of a deduplication: which copy stays, how each other one comes to use its blocks, or why
it stays as it is.

A reflink changes nothing that anybody can see, so it is taken wherever the file system has it. A
hard link makes two names one file: only for files that are never written to in place, of one owner,
mode and set of attributes. No layout of these caches has a list of users outside of it, so a link
into another one would dangle when that is cleaned: none is made, and what lies on another disk is
named.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gradience.files import sharing
from gradience.storage.change import fingerprint
from gradience.storage.change.copies import Copy
from gradience.storage.change.records import Action, Item, Kept, Plan, text_of
from gradience.storage.change.verbs.hardlink import unlike
from gradience.system.holders import Holders

_BLOCK = 512
Why = tuple[str, str]  # a key of records.KEPT, and a sentence


@dataclass(slots=True)
class _Draft:
    """A plan being written."""

    items: list[Item]
    actions: list[Action]
    kept: list[Kept]


def plan_dedupe(
    found: Iterable[list[Copy]],
    *,
    change: str,
    now: float,
    holders: Holders,
    can_share: Callable[[str], bool] = sharing.can_share,
) -> Plan:
    """The plan that lets copies share what they hold.

    Parameters
    ----------
    found : iterable of list of Copy
        Of `copies.groups`: the first of each is kept.
    can_share : callable
        Whether the files of a directory can share blocks.
    """
    able: dict[int, bool] = {}
    draft = _Draft([], [], [])
    for group in found:
        for device in dict.fromkeys(copy.status.st_dev for copy in group):
            here = [copy for copy in group if copy.status.st_dev == device]
            if device not in able:
                able[device] = can_share(os.path.dirname(here[0].place.path))  # noqa: PTH120
            if here[0] is not group[0]:
                why = f"its equal, {text_of(group[0].label)}, lies on another disk"
                _keep(draft, here[0], ("other_disk", why))
            for copy in here[1:]:
                _one(draft, here[0], copy, holders, reflink=able[device])
    # A site is opened once per root, so the acts below one follow one another.
    order = sorted(range(len(draft.actions)), key=lambda i: draft.actions[i].root)
    return Plan(
        id=change,
        title="dedupe",
        made=now,
        items=tuple(draft.items),
        actions=tuple(draft.actions[i] for i in order),
        kept=tuple(draft.kept),
        notes=("Every byte is compared before a copy is dropped.",) if draft.actions else (),
        frees_bytes=sum(action.frees_bytes for action in draft.actions),
    )


def _one(draft: _Draft, original: Copy, copy: Copy, holders: Holders, *, reflink: bool) -> None:
    """Put one copy on the list, or note why it stays."""
    place = copy.place
    holder = holders.of(copy.status, place.path)
    if holder is not None:
        _keep(draft, copy, ("in_use", holder.sentence))
        return
    try:
        known, why = _compared(original, copy, reflink=reflink)
    except OSError as error:
        known, why = False, ("refused", error.strerror or str(error))
    if known:
        return
    if why is not None:
        _keep(draft, copy, why)
        return
    number = len(draft.items)
    how = "reflink" if reflink else "hardlink"
    draft.items.append(
        Item(
            name=text_of(copy.label),
            kind=place.kind,
            what=how,
            reasons=(f"its {copy.digest.partition(':')[0]} is that of {text_of(original.label)}",),
        )
    )
    alone = reflink or copy.status.st_nlink == 1
    draft.actions.append(
        Action(
            verb=how,
            root=text_of(place.root),
            path=text_of(place.path.removeprefix(f"{place.root}/")),
            fingerprint=fingerprint.of_status(copy.status),
            item=number,
            unit=number,
            group=number,
            frees_bytes=copy.status.st_blocks * _BLOCK if alone else 0,
            guard=place.guard,
            target=text_of(original.place.path),
        )
    )


def _compared(original: Copy, copy: Copy, *, reflink: bool) -> tuple[bool, Why | None]:
    """Whether they share their blocks already, and what speaks against it if not."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    one = os.open(original.place.path, flags)
    try:
        other = os.open(copy.place.path, flags)
        try:
            if reflink:
                return sharing.shared(one, other), None
            if original.place.in_place or copy.place.in_place:
                return False, (
                    "in_place",
                    f"as a hard link of {text_of(original.label)}, a change to one would "
                    "change the other; this file system has no reflinks",
                )
            if why := unlike(one, other):
                return False, ("unlike", f"{why}, {text_of(original.label)}")
            return False, None
        finally:
            os.close(other)
    finally:
        os.close(one)


def _keep(draft: _Draft, copy: Copy, why: Why) -> None:
    draft.kept.append(
        Kept(
            name=text_of(copy.label),
            kind=copy.place.kind,
            what="copy",
            code=why[0],
            why=why[1],
            bytes=copy.status.st_blocks * _BLOCK,
        )
    )
