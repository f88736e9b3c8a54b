"""Give back the pages of a checkpoint that torch mapped.

torch maps the file and has no way to let go of a part of it, so the advice goes to the kernel
directly. It is given for storages that torch itself reported as slices of the mapping, and for no
other memory: the same advice on the heap would zero it.
"""

import ctypes
import mmap
from collections.abc import Callable
from functools import cache
from typing import Any


class MappedStorages:
    """The storages of one checkpoint that lie in its mapped file."""

    def __init__(self) -> None:
        self._ranges: dict[int, int] = {}

    def keep(self, storage: Any, location: str) -> Any:
        """Serve as `map_location`: note a slice of the mapping, and leave it where it is.

        `location` is the device it was saved from, cuda:0 for instance; it stays on the CPU.
        """
        del location
        self._ranges[int(storage.data_ptr())] = int(storage.nbytes())
        return storage

    def release_of(self, tensor: Any) -> Callable[[], None] | None:
        """A function that gives the pages of a tensor back; None when it is not in the file."""
        storage = tensor.untyped_storage()
        address = int(storage.data_ptr())
        if self._ranges.get(address) != int(storage.nbytes()):
            return None

        def release() -> None:
            # Bound to the storage, so that the mapping lives as long as this can be called.
            _forget(int(storage.data_ptr()), int(storage.nbytes()))

        return release


@cache
def _madvise() -> Callable[..., int] | None:
    """The C library's madvise, where there is one."""
    if not hasattr(mmap, "MADV_DONTNEED"):
        return None
    try:
        call = ctypes.CDLL(None).madvise
    except (OSError, AttributeError, TypeError):
        return None
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    call.restype = ctypes.c_int
    return call


def _forget(address: int, nbytes: int) -> None:
    """Advise on the whole pages inside a range: the edges belong to its neighbours too."""
    start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    stop = (address + nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    madvise = _madvise()
    if madvise is not None and stop > start:
        # Advice: where it is refused, memory is used and nothing is wrong.
        madvise(start, stop - start, mmap.MADV_DONTNEED)
