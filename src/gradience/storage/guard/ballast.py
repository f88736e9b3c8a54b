"""A reserve on the disk: bytes and inodes that are held back, and let go for the last save.

Let go by unlinking: btrfs at its quota refuses to truncate. Inodes are held too where the file
system counts them, as empty files: a disk may be full of files with bytes to spare.

It never takes the last of a disk: what logs and the like write until the next save is tried beside
it, and given back at once.
"""

import contextlib
from dataclasses import replace
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
            files.reserve(self._place / f"{_SPARE}-bytes", SPARE.bytes)
            for number in range(SPARE.inodes if count_inodes else 0):
                files.reserve(self._place / f"{_SPARE}-inode-{number}", 0)
            if missing:
                files.reserve(self._place / f"{_HELD}-bytes-{self.held.bytes}", missing)
                self.held = replace(self.held, bytes=self.held.bytes + missing)
            for _ in range(inodes):
                files.reserve(self._place / f"{_HELD}-inode-{self.held.inodes}", 0)
                self.held = replace(self.held, inodes=self.held.inodes + 1)
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

    def _remove(self, names: str) -> None:
        for path in self._place.glob(names):
            with contextlib.suppress(OSError):
                path.unlink()
