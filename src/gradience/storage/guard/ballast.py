"""A reserve on the disk: bytes and inodes that are held back, and let go for the last save.

Let go by unlinking: btrfs at its quota refuses to truncate. Inodes are held too where the file
system counts them, as empty files: a disk may be full of files with bytes to spare.
"""

import contextlib
from pathlib import Path

from gradience import files
from gradience.errors import StorageError
from gradience.storage.guard.records import Need

_BYTES = "bytes"


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
        """Hold this much; why it could not be held, "" where it is.

        What is held already stays, and only what is missing is added.
        """
        missing = need.bytes - self.held.bytes
        inodes = need.inodes - self.held.inodes if count_inodes else 0
        try:
            if missing > 0:
                files.reserve(self._place / f"{_BYTES}-{self.held.bytes}", missing)
            self.held = Need(bytes=max(self.held.bytes, need.bytes), inodes=self.held.inodes)
            for number in range(max(0, inodes)):
                files.reserve(self._place / f"inode-{self.held.inodes + number}", 0)
        except (OSError, StorageError) as error:
            return str(error)
        self.held = Need(bytes=self.held.bytes, inodes=self.held.inodes + max(0, inodes))
        return ""

    def release(self) -> Need:
        """Give everything back; what was held."""
        held, self.held = self.held, Need(bytes=0, inodes=0)
        with contextlib.suppress(OSError):
            for path in self._place.iterdir():
                path.unlink(missing_ok=True)
            self._place.rmdir()
        return held
