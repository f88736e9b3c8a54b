"""Entries of directories whose parts need no interpretation: one per child, one for the rest.

Which children are a library's own its source tells: their names, or what lies in them. Anything
else that somebody put into the same directory is listed as "other", and no cleaning takes it.
"""

import re
from collections.abc import Callable

import msgspec

from gradience.storage.inventory.caches.kind import CacheKind, Listing, Look, entry, never
from gradience.storage.inventory.records import Entry, Recovery
from gradience.storage.inventory.scan import Directory
from gradience.storage.inventory.tally import Tally

Owns = Callable[[Directory], bool]


def children(
    *,
    title: str,
    holds: str,
    what: str,
    recoverable: Recovery,
    how: str,
    variable: str,
    owns: Owns,
    keep: Callable[[str], bool] = never,
) -> CacheKind:
    """A kind of cache with an entry per directory in it; the rest is as of a `CacheKind`.

    Parameters
    ----------
    what : str
        What a directory of its own is.
    owns : callable
        Whether a directory in it is the library's own.
    """

    def entries(look: Look) -> Listing:
        found = child_entries(
            look, look.tree, what=what, recoverable=recoverable, how=how, owns=owns, title=title
        )
        return [*found, rest(look, look.tree)], ""

    return CacheKind(
        title=title,
        holds=holds,
        recoverable=recoverable,
        how=how,
        variable=variable,
        entries=entries,
        keep=keep,
    )


def named(pattern: str, *, inside: str | None = None) -> Owns:
    """Directories of such a name; in which, if asked, directories of such names lie and no file."""
    name, child = re.compile(pattern), re.compile(inside) if inside is not None else None

    def owns(directory: Directory) -> bool:
        """Whether the name of a directory, and of those in it, are the library's."""
        if name.fullmatch(directory.name) is None:
            return False
        return child is None or branches(directory, child)

    return owns


def branches(directory: Directory, child: re.Pattern[str]) -> bool:
    """Whether nothing lies in a directory but directories of such names."""
    return not directory.file_count and all(child.fullmatch(d.name) for d in directory.dirs)


def child_entries(
    look: Look,
    directory: Directory,
    *,
    what: str,
    recoverable: Recovery,
    how: str,
    owns: Owns,
    title: str,
    name: Callable[[Directory], str] | None = None,
) -> list[Entry]:
    """One entry for each directory in a directory."""
    return [
        entry(
            look,
            Tally().add_tree(child),
            what=what,
            name=name(child) if name else child.name,
            path=child.path,
            recoverable=recoverable,
            how=how,
        )
        if owns(child)
        else other(look, child, title, name(child) if name else child.name)
        for child in directory.dirs
    ]


def other(look: Look, directory: Directory, title: str, name: str = "") -> Entry:
    """An entry for a directory that the library whose cache it is did not make."""
    found = whole(
        look,
        directory,
        what="other",
        name=name or directory.name,
        recoverable="unknown",
        how="",
    )
    return strange(found, title)


def strange(found: Entry, title: str) -> Entry:
    """An entry as one that the library whose cache it is did not make."""
    return msgspec.structs.replace(
        found, what="other", recoverable="unknown", how=f"Not put there by {title}."
    )


def file_entries(
    look: Look, directory: Directory, *, what: str, recoverable: Recovery, how: str
) -> list[Entry]:
    """One entry for each regular file in a directory whose names were kept."""
    found = []
    for file in directory.files:
        tally = Tally()
        tally.add_file(file, directory.dev)
        found.append(
            entry(
                look,
                tally,
                what=what,
                name=file.name,
                path=f"{directory.path}/{file.name}",
                recoverable=recoverable,
                how=how,
            )
        )
    return found


def whole(
    look: Look, directory: Directory, *, what: str, name: str, recoverable: Recovery, how: str
) -> Entry:
    """One entry for a directory and all below it."""
    return entry(
        look,
        Tally().add_tree(directory),
        what=what,
        name=name,
        path=directory.path,
        recoverable=recoverable,
        how=how,
    )


def rest(look: Look, *directories: Directory, files: bool = True) -> Entry:
    """One entry for directories themselves, and for loose files in them unless listed already."""
    tally = Tally()
    for directory in directories:
        if files:
            tally.add_dir(directory)
        else:
            tally.add_names(1 + directory.link_count, directory.blocks + directory.link_blocks)
    return entry(
        look,
        tally,
        what="bookkeeping",
        name="directories, locks and tags",
        path=directories[0].path,
        recoverable="rebuild",
        how="Made again as needed.",
    )
