"""What a new layout would leave behind: caches with content at the places used until now.

They would be downloaded again beside the old copy. So they are named with their sizes, and the move
is offered as `gradience cache move`, or `merge` where the new place has content: copied, compared,
and only then removed, and a quota hit half-way loses nothing.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from gradience.storage.environment.exports.export import posix_quoted
from gradience.storage.environment.readers import Resolved
from gradience.storage.environment.records import LeftBehind
from gradience.storage.room.usage import used_below

# What is compiled or temporary is made again in minutes; these are downloads and data.
PLACES = (
    "hub",
    "assets",
    "datasets",
    "datasets_downloads",
    "datasets_extracted",
    "modules",
    "evaluate",
    "metrics",
    "torch",
    "wandb_cache",
)
"""Not Gradience's own: it is made again in minutes, and its directory may hold all the others."""


def left_behind(
    before: Mapping[str, Resolved], after: Mapping[str, Resolved]
) -> tuple[LeftBehind, ...]:
    """Caches with content that the places of `before` have and those of `after` do not.

    Reads the disk: looks into each old directory and sums its blocks.
    """
    moves: dict[tuple[Path, Path], list[str]] = {}
    for place in PLACES:
        if place in before and place in after:
            old, new = before[place].path, after[place].path
            if old.is_dir() and not _same(old, new):
                moves.setdefault((old, new), []).append(place)
    found = []
    for (old, new), places in moves.items():
        if any(o != old and o in old.parents for o, n in moves if n in new.parents):
            continue  # it travels with the directory above it
        if size := _file_bytes(old, skip=new):
            missing = _missing(old, new, size)
            by_hand = _by_hand(old, new, places, _holds_others(old, new, before, after))
            found.append(
                LeftBehind(
                    places=tuple(places),
                    old=old,
                    new=new,
                    bytes=size,
                    commands=() if missing or by_hand else _commands(old, new),
                    missing_bytes=missing,
                    by_hand=by_hand,
                )
            )
    return tuple(found)


def _file_bytes(directory: Path, *, skip: Path) -> int:
    """Allocated bytes of the files below a directory, which may itself be a link."""
    below = [Path(os.path.realpath(directory))]
    left_out = [Path(os.path.realpath(skip))]
    return used_below(below, seconds=float("inf"), skip=left_out).file_bytes


def _holds_others(
    old: Path, new: Path, before: Mapping[str, Resolved], after: Mapping[str, Resolved]
) -> bool:
    """Whether a move would sweep up a directory that somebody else was told to use.

    A cache may travel with what lies in it by default (hub and datasets below HF_HOME); one that
    the new environment names, or that stays where it was, must not.
    """
    stays = {place.path for place in after.values()}
    return any(old in path.parents for path in stays) or any(
        new in place.path.parents and place.path.exists() for place in after.values()
    )


def _by_hand(old: Path, new: Path, places: Sequence[str], holds_others: bool) -> str:
    """Why no command can bring a cache to its new place; "" where one can."""
    if holds_others or old in new.parents or new in old.parents:
        return f"it and {new} lie one inside the other"
    if _filled(new) and "hub" not in places:
        return f"{new} has content of its own"
    return ""


def _commands(old: Path, new: Path) -> tuple[str, ...]:
    """The command that moves a directory and cannot lose anything."""
    places = " ".join(posix_quoted(str(path)) for path in (old, new))
    return (f"gradience cache {'merge' if _filled(new) else 'move'} {places}",)


def _filled(directory: Path) -> bool:
    return directory.is_dir() and any(directory.iterdir())


def _missing(old: Path, new: Path, size: int) -> int:
    """Bytes that the disk of the new place lacks: a copy would fill it, and fail at the end."""
    if _device(old) == _device(new):
        return 0
    space = os.statvfs(_existing(new))
    return max(0, size - space.f_bavail * space.f_frsize)


def _device(path: Path) -> int:
    return _existing(path).stat().st_dev


def _existing(path: Path) -> Path:
    """The path or its nearest existing parent."""
    return next(place for place in (path, *path.parents) if place.exists())


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
