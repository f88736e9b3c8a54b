"""A reserve that no death of its holder can leave behind: a file without a name.

It is made under a name that says whose it is, and unlinked while it is open: the kernel gives its
blocks back when the last descriptor closes, also after kill -9. Only between the two calls does it
have a name, which `sweep` knows.
"""

import contextlib
import os
import re
from pathlib import Path

from gradience import files
from gradience.errors import StorageError
from gradience.system import processes

RESERVE = ".gradience-ballast-"
"""How the name of a reserve begins; then come host and process."""
_NAME = re.compile(rf"{re.escape(RESERVE)}(?P<host>.+)-(?P<pid>\d+)")


class Reserve:
    """Bytes of a disk that are held until they are released.

    Parameters
    ----------
    place : Path
        An existing directory.
    """

    def __init__(self, place: Path) -> None:
        self._path = place / f"{RESERVE}{processes.here()}-{os.getpid()}"
        self._descriptor: int | None = None
        self.bytes = 0

    def hold(self, nbytes: int) -> str:
        """Hold this much; why it could not be held, "" where it is."""
        if nbytes <= 0:
            return ""
        try:
            files.reserve(self._path, nbytes)
            try:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            finally:
                self._path.unlink()
        except (OSError, StorageError) as error:
            return str(error)
        self.bytes = nbytes
        return ""

    def release(self) -> int:
        """Give it back; the bytes that were held."""
        held, self.bytes = self.bytes, 0
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        return held


def left(place: Path) -> list[Path]:
    """What holders of this machine that died left under a name in a directory."""
    return [
        path
        for path in place.glob(f"{RESERVE}*")
        if (match := _NAME.fullmatch(path.name))
        and processes.runs(int(match["pid"]), match["host"]) is False
    ]


def sweep(place: Path) -> int:
    """Remove what holders that died left there; the bytes of it."""
    freed = 0
    for path in left(place):
        with contextlib.suppress(OSError):
            freed += path.stat().st_blocks * 512
            path.unlink()
    return freed
