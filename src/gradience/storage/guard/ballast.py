"""A reserve on the disk: bytes and inodes that are held back, and let go for the last save.

Let go by unlinking: btrfs at its quota refuses to truncate. Inodes are held too where the file
system counts them, as empty files: a disk may be full of files with bytes to spare.

It never takes the last of a disk: what logs and the like write until the next save is tried beside
it, and given back at once.
"""

import contextlib
from pathlib import Path

from gradience import files
from gradience.errors import StorageError
from gradience.storage.guard.records import Need

SPARE = Need(bytes=2**22, inodes=4)
"""What is left to everybody else: some thousand lines of a log, and a few new files."""
_HELD, _SPARE = "held", "spare"


class Ballast:
    """A directory whose files only take room.

    Parameters
    ----------
    place : Path
        The directory; it need not exist.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self.held = Need(bytes=0, inodes=0)

    def reserve(self, need: Need, *, count_inodes: bool) -> str:
        """Hold this much, where `SPARE` is left beside it; why it could not be held, "" if it is.

        What is held already stays, and only what is missing is added.
        """
        missing = max(0, need.bytes - self.held.bytes)
        inodes = max(0, need.inodes - self.held.inodes) if count_inodes else 0
        if not missing and not inodes:
            return ""
        try:
            self._make(_SPARE, SPARE.bytes, SPARE.inodes if count_inodes else 0)
            self._make(_HELD, missing, 0)
            self.held = Need(bytes=self.held.bytes + missing, inodes=self.held.inodes)
            self._make(_HELD, 0, inodes)
            self.held = Need(bytes=self.held.bytes, inodes=self.held.inodes + inodes)
        except (OSError, StorageError) as error:
            return str(error)
        finally:
            self._remove(f"{_SPARE}-*")
        return ""

    def release(self) -> Need:
        """Give everything back; what was held."""
        held, self.held = self.held, Need(bytes=0, inodes=0)
        self._remove("*")
        with contextlib.suppress(OSError):
            self._place.rmdir()
        return held

    def _make(self, name: str, nbytes: int, inodes: int) -> None:
        if nbytes:
            files.reserve(self._place / f"{name}-bytes-{self.held.bytes}", nbytes)
        for number in range(self.held.inodes, self.held.inodes + inodes):
            files.reserve(self._place / f"{name}-inode-{number}", 0)

    def _remove(self, names: str) -> None:
        for path in self._place.glob(names):
            with contextlib.suppress(OSError):
                path.unlink()
