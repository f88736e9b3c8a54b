"""Ask the file system itself whether it would take an amount: reserve it, and give it back.

`fallocate(2)` with KEEP_SIZE on a file without a name reserves blocks under every quota that holds,
writes nothing and is gone when the descriptor closes, also when the process dies. It proves
something only where the file system really reserves; elsewhere the answer is "unproven".

Never `posix_fallocate`: glibc emulates it by writing every block.
"""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gradience.errors import StorageError, UsageError
from gradience.system.allocate import fallocate, on_linux, reserving_kind
from gradience.system.base import existing_parent
from gradience.system.memory import available, memory_limit
from gradience.units import format_size

_TMPFS_MOST_BYTES = 256 * 2**20  # the probe takes real memory there
# What others must find free while the probe holds the rest: that much, and a tenth of all.
_SPARE_BYTES = 64 * 2**20
_SPARE_PART = 10


class Verdict(StrEnum):
    """What a probe found."""

    FITS = "fits"
    REFUSED = "refused"
    UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """Whether an amount would fit, at the moment of asking.

    Attributes
    ----------
    path : Path
        The directory that was asked.
    verdict : Verdict
        `unproven` says neither yes nor no.
    reason : str
        One sentence.
    error : str
        The name of the errno where the file system refused: `EDQUOT`, `ENOSPC`.
    """

    path: Path
    verdict: Verdict
    reason: str
    error: str = ""


def probe(path: str | os.PathLike[str], nbytes: int) -> ProbeResult:
    """Whether `nbytes` more would fit below a path, and one inode; nothing stays on the disk.

    Parameters
    ----------
    path : path
        Need not exist: its nearest existing parent is asked.
    nbytes : int
        0 asks for an inode only.

    Raises
    ------
    UsageError
        If `nbytes` is negative.
    StorageError
        If no file can be made there for another reason than space: permission, read-only.
    """
    if nbytes < 0:
        raise UsageError(f"{nbytes} bytes cannot be asked for", remedy="Give 0 or more.")
    place = existing_parent(Path(path))
    directory = place if place.is_dir() else place.parent

    def result(verdict: Verdict, reason: str, error: str = "") -> ProbeResult:
        return ProbeResult(path=directory, verdict=verdict, reason=reason, error=error)

    doubt = _why_not(directory, nbytes)
    if doubt is not None:
        return result(*doubt)
    try:
        with _nameless_file(directory) as descriptor:
            code = fallocate(descriptor, nbytes) if nbytes else 0
    except OSError as failure:
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            name = errno.errorcode[failure.errno]
            return result(Verdict.REFUSED, f"Not even an empty file can be made: {name}.", name)
        raise StorageError(
            f"no file can be made in {directory}: {failure.strerror}",
            remedy="Name a directory that you may write to.",
        ) from failure
    return result(*_judge(code, nbytes))


def _judge(code: int, nbytes: int) -> tuple[Verdict, str, str]:
    size = format_size(nbytes)
    if code == 0:
        return Verdict.FITS, f"The file system reserved {size} and released it.", ""
    name = errno.errorcode.get(code, str(code))
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        what = {errno.EDQUOT: "a quota forbids it", errno.EFBIG: "no file may be that large"}
        sentence = f"The file system refuses {size}: {what.get(code, 'no space is left')}."
        return Verdict.REFUSED, sentence, name
    return Verdict.UNPROVEN, f"The file system cannot reserve space: {os.strerror(code)}.", name


def _why_not(directory: Path, nbytes: int) -> tuple[Verdict, str, str] | None:
    """An answer without a reservation, or None where one may be tried."""
    if not on_linux():
        return Verdict.UNPROVEN, "Only Linux reserves space without writing it.", ""
    kind = reserving_kind(directory)
    if kind is None:
        return Verdict.UNPROVEN, "A reservation proves nothing on this file system.", ""
    space = os.statvfs(directory)
    # f_bfree: a caller who may use the blocks reserved for root must not be refused here.
    if nbytes > space.f_bfree * space.f_frsize:
        free = format_size(space.f_bfree * space.f_frsize)
        return Verdict.REFUSED, f"Only {free} are free on the whole file system.", "ENOSPC"
    free_bytes = space.f_bavail * space.f_frsize
    if nbytes > _SPARE_BYTES and nbytes > free_bytes - spare_bytes(free_bytes):
        sentence = "Asking would hold nearly all free space for a moment: others would fail."
        return Verdict.UNPROVEN, sentence, ""
    return _why_not_memory(nbytes) if kind == "tmpfs" else None


def spare_bytes(free_bytes: int) -> int:
    """What a probe never takes of the free space: another process may be saving a checkpoint.

    Examples
    --------
    >>> spare_bytes(70_000_000_000), spare_bytes(100_000_000)
    (7000000000, 67108864)
    """
    return max(_SPARE_BYTES, free_bytes // _SPARE_PART)


def _why_not_memory(nbytes: int) -> tuple[Verdict, str, str] | None:
    limit = memory_limit()
    amounts = (available(), limit.free_bytes if limit else None)
    free = min((a for a in amounts if a is not None), default=0)
    if nbytes > _TMPFS_MOST_BYTES or nbytes > free // 4:
        return Verdict.UNPROVEN, "The directory lives in memory; asking would take it.", ""
    return None


@contextlib.contextmanager
def _nameless_file(directory: Path) -> Iterator[int]:
    """A descriptor of a file that has no name, and is gone when it closes."""
    try:
        descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        # Old overlay file systems know no O_TMPFILE; EISDIR is what kernels before 3.11 say.
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
            raise
        descriptor, name = tempfile.mkstemp(prefix=".gradience-probe-", dir=directory)
        Path(name).unlink()
    try:
        yield descriptor
    finally:
        os.close(descriptor)
