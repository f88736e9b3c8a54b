"""Entries of directories whose parts need no interpretation: one per child, one for the rest."""

from collections.abc import Callable

from gradience.storage.inventory.caches.kind import Look, entry
from gradience.storage.inventory.records import Entry, Recovery
from gradience.storage.inventory.scan import Directory
from gradience.storage.inventory.tally import Tally


def child_entries(
    look: Look,
    directory: Directory,
    *,
    what: str,
    recoverable: Recovery,
    how: str,
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
        for child in directory.dirs
    ]


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
