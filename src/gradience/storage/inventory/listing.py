"""One directory, read: the facts of every inode in it that a reference counter needs.

Run as a program it reads for another process (`helpers.py`). So it is the standard library alone,
quick to start, and what it returns is plain tuples, which `marshal` carries.
"""

import marshal
import os
import sys

TYPE_CHECKING = False  # not that of typing, which takes longer to import than all else here
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO, Any

FileFacts = tuple[str, int, int, float, float, int, int]
"""Name, size, blocks, mtime, atime, nlink, inode: the fields of `scan.File`."""
LinkFacts = tuple[str, str, int]
"""Name, what it says, blocks."""
Sums = tuple[int, int, int, int, int, float, float]
"""Regular files with one name: how many, blocks, bytes; links, sockets and pipes: how many, blocks;
the newest mtime and atime of a regular file."""
Refusal = tuple[str, int, str]
"""Name ("" for the directory itself), error number, text."""
Listing = tuple[
    tuple[int, int, int, float] | None,
    list[str],
    list[FileFacts],
    list[LinkFacts],
    Sums,
    list[Refusal],
]
"""Device, inode, blocks and mtime of the directory, None if it was not to be read; the names of the
directories in it; files; links; sums; what was refused."""

_SIGN = b"gradlist"  # before each message: a program that is no helper says something else
NOTHING: Sums = (0, 0, 0, 0, 0, 0.0, 0.0)
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def listing(path: str, kept: bool) -> Listing:
    """Read one directory.

    Names are looked up relative to the open directory, so that the kernel does not walk the whole
    path for each (a third of the time of `os.scandir(path)`).

    Parameters
    ----------
    path : str
        Not a link: one is not followed.
    kept : bool
        Whether the names of files and links are wanted. Files with a second name always are.
    """
    try:
        descriptor = os.open(path, _OPEN)
        try:
            status = os.fstat(descriptor)
            own = status.st_dev, status.st_ino, status.st_blocks, status.st_mtime
            return own, *_entries(descriptor, kept)
        finally:
            os.close(descriptor)
    except OSError as error:
        return None, [], [], [], NOTHING, [_refusal("", error)]


def listings(asked: "Sequence[tuple[str, bool]]") -> list[Listing]:
    """Read directories: their paths, and whether the names in them are wanted."""
    return [listing(path, kept) for path, kept in asked]


def _refusal(name: str, error: OSError) -> Refusal:
    return name, error.errno or 0, error.strerror or str(error)


def _entries(
    descriptor: int,
    kept: bool,
) -> tuple[list[str], list[FileFacts], list[LinkFacts], Sums, list[Refusal]]:
    # The loop that decides the speed of everything: what it uses 80 000 times is local.
    count = blocks = size = link_count = link_blocks = 0
    mtime = atime = 0.0
    dirs: list[str] = []
    files: list[FileFacts] = []
    links: list[LinkFacts] = []
    refused: list[Refusal] = []
    keep_dir, keep_file, keep_link = dirs.append, files.append, links.append
    with os.scandir(descriptor) as entries:
        for entry in entries:
            name = entry.name
            try:
                if entry.is_dir(follow_symlinks=False):
                    keep_dir(name)
                    continue
                status = entry.stat(follow_symlinks=False)
                taken = status.st_blocks
                if not entry.is_file(follow_symlinks=False):
                    link_count += 1
                    link_blocks += taken
                    if kept and entry.is_symlink():
                        keep_link((name, os.readlink(name, dir_fd=descriptor), taken))
                    continue
            except OSError as error:
                refused.append(_refusal(name, error))
                continue
            long, wrote, read = status.st_size, status.st_mtime, status.st_atime
            if wrote > mtime:  # noqa: PLR1730 - max() takes twice as long
                mtime = wrote
            if read > atime:  # noqa: PLR1730
                atime = read
            names = status.st_nlink
            if names == 1:
                count += 1
                blocks += taken
                size += long
            if kept or names > 1:
                keep_file((name, long, taken, wrote, read, names, status.st_ino))
    sums = count, blocks, size, link_count, link_blocks, mtime, atime
    return dirs, files, links, sums, refused


def send(pipe: "IO[bytes]", message: "Any") -> None:
    """Write a message: our sign, its length in 8 bytes, and what `marshal` makes of it."""
    data = marshal.dumps(message)
    pipe.write(_SIGN + len(data).to_bytes(8, "little") + data)
    pipe.flush()


def receive(pipe: "IO[bytes]") -> "Any":
    """Read a message; EOFError where the other side has ended, or is no helper."""
    if pipe.read(len(_SIGN)) != _SIGN:
        raise EOFError
    length = int.from_bytes(pipe.read(8), "little")
    data = pipe.read(length)
    if not data or len(data) < length:
        raise EOFError
    return marshal.loads(data)


def serve() -> None:
    """Answer requests, lists of path and `kept`, until the other side ends."""
    try:
        while True:
            send(sys.stdout.buffer, listings(receive(sys.stdin.buffer)))
    except EOFError:
        return


if __name__ == "__main__":
    serve()
