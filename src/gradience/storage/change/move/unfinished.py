"""Moves and merges that were cut off, found beside the places that they were to change.

Nothing here changes a disk, and another user's words are not repeated: the commands refuse them.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator

from gradience.errors import StorageError
from gradience.files.below import Below
from gradience.storage.change.move.ends import Ends, Unfinished, aside_of

_OTHERS = 0o022  # they may write


def find(places: Iterable[str]) -> list[Unfinished]:
    """What was cut off at any of these places, from which or to which it goes; each once.

    Before the swap it is known at the new place alone, where the plan lies; a link that the swap
    puts at the old place leads there.

    Parameters
    ----------
    places : iterable of str
        Absolute; links among them as they are named.
    """
    found = {}
    for place in dict.fromkeys(each for named in places for each in _around(named)):
        with contextlib.suppress(OSError, StorageError), Below(os.path.dirname(place)) as above:  # noqa: PTH120
            name = os.path.basename(place)  # noqa: PTH119
            one = _beside(Ends(above, name, above, name)) if name else None
            if one is not None:
                found[one.old, one.new] = one
    return list(found.values())


def _around(place: str) -> Iterator[str]:
    """A place, and where links at it and of an unfinished move beside it lead."""
    above, name = os.path.split(place)
    yield os.path.join(os.path.realpath(above), name)  # noqa: PTH118
    for link in (name, aside_of(name)):
        yield os.path.realpath(os.path.join(above, link))  # noqa: PTH118


def _beside(ends: Ends) -> Unfinished | None:
    if not ends.target.exists(ends.own):
        return None
    status = ends.target.hold(ends.own)
    ours = status.st_uid == os.geteuid() and not status.st_mode & _OTHERS
    return ends.unfinished() if ours else None
