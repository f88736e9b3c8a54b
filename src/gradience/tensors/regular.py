"""Open a file that somebody else put there, without being held up or led astray by it.

Only a regular file is ever opened: opening a FIFO waits for a writer, opening a device can do
anything. Everything the operating system can refuse becomes one error with the path in it.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gradience.errors import TensorFileError, shown

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

_REASONS = {
    errno.ENOENT: ("does not exist", "Check the path; a file that was there has been removed."),
    errno.ENOTDIR: ("does not exist: a part of its path is a file", "Check the path."),
    errno.ELOOP: ("is a symbolic link that leads back to itself", "Remove the link."),
    errno.ENAMETOOLONG: ("is a name too long for this file system", "Check the path."),
    errno.EACCES: ("may not be read by this user", "Give yourself read permission: chmod u+r."),
    errno.EPERM: ("may not be read by this user", "Give yourself read permission: chmod u+r."),
}


def cannot_read(path: Path, error: OSError) -> TensorFileError:
    """What the operating system said, as one of our errors."""
    if error.errno == errno.ENOENT and path.is_symlink():
        return TensorFileError(
            f"{path} is a link to {path.readlink()}, which does not exist",
            remedy="Fetch what it leads to again (hf download), or mend the link.",
        )
    said = error.strerror or type(error).__name__
    what, remedy = _REASONS.get(
        error.errno or 0, (f"cannot be read: {said}", "Check the disk and the path.")
    )
    return TensorFileError(f"{path} {what}", remedy=remedy)


def _refuse_irregular(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "not a regular file")
    raise TensorFileError(f"{path} is {kind}, not a file to read", remedy="Name the file itself.")


@contextmanager
def regular_file(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file for reading, symbolic links followed.

    Yields
    ------
    file : binary file, at its beginning
    size : int
        Bytes, of the very file that is open.

    Raises
    ------
    TensorFileError
        If it is missing, not a regular file (which is then not opened), or may not be read; also
        for an OSError while the file is in use.
    """
    if "\0" in str(path):
        raise TensorFileError(f"{shown(str(path))} is not a file name", remedy="Check the path.")
    try:
        # Asked before opening: O_NONBLOCK alone would still open a device.
        _refuse_irregular(path, path.stat().st_mode)
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
            # Asked again of the open file: the name may have come to mean another in between.
            status = os.fstat(file.fileno())
            _refuse_irregular(path, status.st_mode)
            yield file, status.st_size
    except OSError as error:
        raise cannot_read(path, error) from error


def read_regular(path: Path, *, limit: int) -> bytes:
    """The content of a file that should be small.

    Parameters
    ----------
    path : Path
    limit : int
        Bytes; a larger file is refused unread.

    Raises
    ------
    TensorFileError
        As `regular_file`, and if the file is larger than `limit`.
    """
    with regular_file(path) as (file, size):
        data = file.read(limit + 1) if size <= limit else b""
    if max(size, len(data)) > limit:
        raise TensorFileError(
            f"{path} has {max(size, len(data))} bytes, more than the {limit} such a file may have",
            remedy="Check that it is the file that was meant.",
        )
    return data
