"""One BLAS thread while small products are made, unless the user chose otherwise.

The products of this library are small or bound by memory: more BLAS threads than free cores make
them up to ten times slower, and where several cores help, whole blocks are shared out among threads
of our own. So BLAS is pinned to one thread for the length of a computation and given back
afterwards; whoever set a thread variable is left alone.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from threading import Lock
from typing import Any

THREAD_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def threads(environ: Mapping[str, str], cores: int) -> int:
    """Threads to share work out among: what the user set for BLAS, else every usable core.

    Parameters
    ----------
    environ : mapping of str to str
        The environment of the process.
    cores : int
        From `gradience.system.cpus.usable_cores`.

    Examples
    --------
    >>> threads({}, 8), threads({"OMP_NUM_THREADS": "2"}, 8), threads({"OMP_NUM_THREADS": "64"}, 8)
    (8, 2, 8)
    """
    for name in THREAD_VARIABLES:
        # OpenMP takes a list, one number for each level of nesting.
        first = environ.get(name, "").partition(",")[0].strip()
        if first.isdecimal() and int(first) > 0:
            return min(int(first), cores)
    return cores


def start_alone(environ: MutableMapping[str, str]) -> None:
    """Ask OpenBLAS to start no threads when numpy is imported, which is to come after this.

    It starts one for each core, and each waits for work by spinning for a tenth of a second: as
    long as a small audit takes. If the user set any of `THREAD_VARIABLES`, nothing is changed.
    """
    if not _chosen(environ):
        environ.setdefault("OPENBLAS_DEFAULT_NUM_THREADS", "1")


def _chosen(environ: Mapping[str, str]) -> bool:
    """Whether the user has said how many threads BLAS is to have."""
    return any(environ.get(name) for name in THREAD_VARIABLES)


class _Shared:
    """The limit of this process: the first who needs it sets it, the last gives it back.

    Were each to set and give back for itself, whoever came second would note the first one's 1 as
    what was there before, and leave it behind.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._holders = 0
        self._limits: Any = None

    def take(self) -> None:
        # Imported here: commands that compute nothing need not wait for it.
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # noqa: PLC0415

        with self._lock:
            if not self._holders:
                self._limits = threadpool_limits(limits=1, user_api="blas")
            self._holders += 1

    def give_back(self) -> None:
        with self._lock:
            self._holders -= 1
            if not self._holders:
                self._limits.restore_original_limits()


_SHARED = _Shared()


@contextmanager
def one_thread(environ: Mapping[str, str]) -> Iterator[None]:
    """Hold BLAS at one thread inside the `with` block.

    Parameters
    ----------
    environ : mapping of str to str
        The environment of the process. If it sets any of `THREAD_VARIABLES`, nothing is changed:
        the user's choice stands.

    Yields
    ------
    None

    Notes
    -----
    The limit holds for the whole process, not for the calling thread alone, from the first of the
    threads that enters until the last has left. Entering costs a quarter of a millisecond: enter
    around a tensor or a loop, not around a product.
    """
    if _chosen(environ):
        yield
        return
    _SHARED.take()
    try:
        yield
    finally:
        _SHARED.give_back()
