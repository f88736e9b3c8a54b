"""Whether two directories are one after all: what is removed in the first would go in the second.

Numbers of devices and inodes do not tell: a FUSE mount that passes through (bindfs, mergerfs), an
overlay, and a network mount of one's own disk have others for the same files. So a file is made in
each, and looked for in the other.
"""

import os
import secrets

from gradience import system
from gradience.errors import StorageError
from gradience.files.below import Below
from gradience.storage.change.move.ends import Ends
from gradience.storage.change.move.parts import PROBE
from gradience.storage.change.records import text_of
from gradience.storage.change.site import NO_ROOM


def check_apart(ends: Ends) -> None:
    """Refuse two names of one directory.

    Raises
    ------
    StorageError
        If what is made in one is seen in the other, or that cannot be tried where it may be so.
    """
    one, other = (ends.source, ends.top), (ends.target, ends.name)
    for name, status in ends.target.entries(ends.name):
        if name.startswith(PROBE) and not status.st_size:  # of a kill
            ends.target.unlink(f"{ends.name}/{name}")
    if _shows(*one, *other) or _shows(*other, *one):
        raise StorageError(
            f"{text_of(ends.old)} and {text_of(ends.new)} are one directory, mounted twice",
            remedy="Nothing has to be brought: both names lead to it.",
        )


def _shows(made: Below, first: str, seen: Below, second: str) -> bool:
    name = f"{PROBE}{secrets.token_hex(8)}"
    try:
        os.close(made.create(f"{first}/{name}"))
    except OSError as error:
        place = f"{made.root}/{first}"
        mount = system.mount_of(place)
        if error.errno in NO_ROOM and not (mount.fuse or mount.fs_type == "overlay"):
            return False  # a disk of its own, and full
        raise StorageError(
            f"{text_of(place)} cannot be written to: {error.strerror}",
            remedy="Make room there, or run it as the owner of that directory.",
        ) from error
    try:
        return seen.exists(f"{second}/{name}")
    finally:
        made.unlink(f"{first}/{name}")
