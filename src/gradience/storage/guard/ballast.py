"""A reserve on the disk: bytes and inodes that are held back, and let go for the last save.

Let go by unlinking: btrfs at its quota refuses to truncate. Inodes are held too where the file
system counts them, as empty files: a disk may be full of files with bytes to spare.

It never takes the last of a disk: what logs and the like write until the next save is tried beside
it, and given back at once.
"""

import contextlib
import os
from dataclasses import replace
from pathlib import Path

from gradience import files
from gradience.errors import StorageError
from gradience.storage.guard.records import Need

SPARE = Need(bytes=2**22, inodes=4)
"""What is left to everybody else: some thousand lines of a log, and a few new files."""


class Ballast:
    """A directory whose files only take room.

    Parameters
    ----------
    place : Path
        The directory; it need not exist.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._whose = os.urandom(4).hex()
        self._files: list[Path] = []
        self.held = Need(bytes=0, inodes=0)

    def reserve(self, need: Need, *, count_inodes: bool) -> str:
        """Hold this much, where `SPARE` is left beside it; why it could not be held, "" if it is.

        What is held already stays, and only what is missing is added.
        """
        missing = max(0, need.bytes - self.held.bytes)
        inodes = max(0, need.inodes - self.held.inodes) if count_inodes else 0
        if not missing and not inodes:
            return ""
        spare: list[Path] = []
        try:
            self._make(spare, SPARE.bytes)
            for _ in range(SPARE.inodes if count_inodes else 0):
                self._make(spare, 0)
            if missing:
                self._make(self._files, missing)
                self.held = replace(self.held, bytes=self.held.bytes + missing)
            for _ in range(inodes):
                self._make(self._files, 0)
                self.held = replace(self.held, inodes=self.held.inodes + 1)
        except (OSError, StorageError) as error:
            return str(error)
        finally:
            _remove(spare)
        return ""

    def release(self) -> Need:
        """Give everything back; what was held. A reserve of another run in that place stays."""
        held, self.held = self.held, Need(bytes=0, inodes=0)
        _remove(self._files)
        files.remove_empty(self._place)
        return held

    def _make(self, made: list[Path], nbytes: int) -> None:
        kind = "held" if made is self._files else "spare"
        path = self._place / f"{kind}-{self._whose}-{len(made)}"
        files.reserve(path, nbytes)
        made.append(path)


def _remove(paths: list[Path]) -> None:
    while paths:
        with contextlib.suppress(OSError):
            paths.pop().unlink()
