"""Whose a change is: what another user may have written gives no orders.

Cut-off changes are settled, and trash is brought back, by whoever comes next, perhaps root; in a
cache of several users anybody could leave a plan there. So a change is ours if nobody else could
have written it: its directory and its journal belong to us, and others may not write to them. That
is asked of what was opened, never of a name.
"""

import os
from dataclasses import dataclass
from shlex import quote

from gradience.files.below import Below
from gradience.storage.change.records import text_of
from gradience.system.users import user_name

PROBE = ".whose-"
_OTHERS = 0o022  # they may write


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    """Who else may have written a change.

    Attributes
    ----------
    user : str
        Whose it is; "" where it is ours, but others may write to it.
    """

    user: str = ""

    @property
    def why(self) -> str:
        """As a part of a sentence."""
        return f"it belongs to user {self.user}" if self.user else "others may write to it"

    def remedy(self, place: str, command: str) -> str:
        """How what lies at a place is dealt with all the same."""
        if self.user:
            return f"As that user: sudo -u {self.user} {command}"
        # Not -R: what was set aside keeps its rights, and so do other names of the same files.
        own = quote(text_of(place))
        return f"See what is in it; if it is yours: chmod go-w {own} {own}/*"


def stranger(below: Below, status: os.stat_result, place: str) -> Stranger | None:
    """Who else may have written what was opened; None if nobody.

    Parameters
    ----------
    status : stat_result
        `fstat` of a directory of a change, or of a file in it.
    place : str
        The directory that all changes of this root lie in.
    """
    if _only(status, os.geteuid(), _OTHERS):
        return None
    # Some mounts know no owners (root squashed by NFS) or no modes (FAT, many of FUSE): what we
    # make there looks no better, and whoever could have written it has all our rights there.
    made = _made(below, place)
    if made is not None and _only(status, made.st_uid, _OTHERS & ~made.st_mode):
        return None
    return Stranger() if status.st_uid == os.geteuid() else Stranger(user=user_name(status.st_uid))


def _only(status: os.stat_result, owner: int, others: int) -> bool:
    return status.st_uid == owner and not status.st_mode & others


def _made(below: Below, place: str) -> os.stat_result | None:
    """What a file that we make looks like there, by its descriptor; None if we may not."""
    name = f"{place}/{PROBE}{os.urandom(4).hex()}"
    try:
        descriptor = below.create(name, mode=0o600)
    except OSError:
        return None
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)
        below.unlink(name)
