"""A file mapped for reading: its pages come when touched, and go when told."""

import mmap
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from gradience.errors import TensorFileError
from gradience.tensors.regular import cannot_read

# A page fault maps its neighbours too, 64 KiB around by default ("fault-around", mm/memory.c).
_FAULT_AROUND = 1 << 16


def map_file(path: Path, file: BinaryIO, size: int) -> mmap.mmap:
    """Map a file that is open and has this size.

    Raises
    ------
    TensorFileError
        If it became shorter meanwhile, or the system refuses.
    """
    try:
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise TensorFileError(
            f"{path} became shorter than {size} bytes while it was being opened",
            remedy="Wait until it is written, then try again.",
        ) from error
    except OSError as error:
        raise cannot_read(path, error) from error


def unmap(mapped: mmap.mmap) -> None:
    """Unmap a file; an array that is still in use keeps the pages, they go with the last one."""
    with suppress(BufferError):
        mapped.close()


def forget(mapped: mmap.mmap, begin: int, end: int) -> None:
    """Give the pages of a tensor back; they come from the file again when touched.

    The range is widened backwards over what fault-around mapped before it: the mapping is
    read-only, so a page that is still wanted costs one more fault and nothing else. What was
    mapped after it is what a walk through the file reads next.
    """
    if mapped.closed or not hasattr(mmap, "MADV_DONTNEED"):
        return
    start = max(begin - _FAULT_AROUND, 0) // mmap.PAGESIZE * mmap.PAGESIZE
    # Advice: a file system that does not take it costs memory, not correctness.
    with suppress(OSError):
        mapped.madvise(mmap.MADV_DONTNEED, start, end - start)
