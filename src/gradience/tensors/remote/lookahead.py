"""Bytes of remote tensors, fetched one ahead of their use.

While a tensor is measured the next one is on its way, and the small ones around it, such as the
scales of packed codes; the one after waits until that one is asked for. So memory holds what is in
use and one tensor more, and network and processor work together.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from itertools import islice
from threading import Event, Lock

import msgspec
import numpy as np
from numpy.typing import NDArray

from gradience.errors import TransferError
from gradience.tensors.remote.daemons import in_daemons
from gradience.tensors.remote.range_file import RangeFile
from gradience.units import format_size

Bytes = NDArray[np.uint8]
Progress = Callable[[int, int], None]

_TELL_SECONDS = 0.1
# Below it a tensor costs the time of a question more than that of its bytes.
_SMALL = 1 << 20
_MOST_AHEAD = 8


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A range of a remote file: a tensor, or one entry along its first dimension."""

    file: RangeFile
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        """Bytes of the range."""
        return self.end - self.begin


class LookAhead:
    """Fetches spans when they are asked for, and the next of a known order ahead.

    `progress` is told (bytes that came, bytes expected), from the thread that fetches. Of tensors
    of more than `small` bytes one is fetched ahead, of others a few.
    """

    def __init__(self, progress: Progress | None = None, *, small: int = _SMALL) -> None:
        self.stop = Event()
        self._small = small
        self._progress = progress
        self._order: deque[Span] = deque()
        self._held: dict[Span, Future[Bytes]] = {}
        self._used: set[Span] = set()
        self._lock = Lock()
        self._came = self._expected = 0
        self._told = 0.0

    def expect(self, spans: Iterable[Span]) -> None:
        """Say what will be asked for next, in order; what was said before is forgotten."""
        with self._lock:
            self._order = deque(spans)
            self._came, self._expected = 0, sum(span.nbytes for span in self._order)

    def get(self, span: Span) -> Bytes:
        """The bytes of a span, kept until `release`; for any number of threads.

        Raises
        ------
        TransferError
            If they cannot be had.
        """
        with self._lock:
            fetched = self._held.get(span) or self._start(span)
            if span not in self._used:
                self._used.add(span)
                self._pass(span)
        data = fetched.result()
        with self._lock:
            self._look_ahead()
        return data

    def release(self, span: Span) -> None:
        """Give the memory of a span back."""
        with self._lock:
            self._held.pop(span, None)
            self._used.discard(span)

    def close(self) -> None:
        """Stop what is on its way, and give all memory back."""
        self.stop.set()
        with self._lock:
            self._order.clear()
            self._held.clear()
            self._used.clear()

    def _pass(self, span: Span) -> None:
        """Take a span off the order, with those before it that were never asked for."""
        if span in self._order:
            while self._order.popleft() != span:
                pass
            ahead = [held for held in self._held if held not in self._used]
            for stale in (held for held in ahead if held not in self._order):
                del self._held[stale]

    def _look_ahead(self) -> None:
        """Ask for what comes next, up to the second that is not small."""
        large = 0
        for span in islice(self._order, _MOST_AHEAD):
            large += span.nbytes > self._small
            if large > 1:
                return
            if span not in self._held:
                self._start(span)

    def _start(self, span: Span) -> "Future[Bytes]":
        (fetched,) = in_daemons(self._fetch, [span], at_once=1)
        self._held[span] = fetched
        return fetched

    def _fetch(self, span: Span) -> Bytes:
        try:
            data = np.empty(span.nbytes, np.uint8)
        except MemoryError as error:
            size = format_size(span.nbytes)
            raise TransferError(
                f"{span.file.name}: a tensor of {size} does not fit in memory",
                remedy="Free some, or run where there is more: two tensors are held at a time.",
            ) from error
        if span.nbytes:
            span.file.read_into(span.begin, data.data, told=self._count, stop=self.stop)
        data.setflags(write=False)
        return data

    def _count(self, nbytes: int) -> None:
        with self._lock:
            self._came += nbytes
            now = time.monotonic()
            tell = now - self._told >= _TELL_SECONDS or self._came >= self._expected
            self._told = now if tell else self._told
            came, expected = self._came, max(self._expected, self._came)
        if tell and self._progress:
            self._progress(came, expected)
