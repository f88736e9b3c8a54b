"""A file elsewhere, of which any range of bytes can be had.

Whoever implements it answers for the bytes: those of one version of the file, all of them, or an
error. What reads from it never has to ask whether a range was cut short.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import Protocol

from gradience.errors import TransferError

Told = Callable[[int], None]
"""Told how many bytes came, from the thread that fetches."""

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between tries that brought nothing; after the last the file is given up."""

OPENING_PAUSES = 3
"""How many of them a first answer is waited for: someone looks on, and no wrong name gives one."""

ABSENT_PAUSES = 1
"""How many of them one waits where nobody was ever there: offline, or a wrong host."""

_LONGEST_WAIT = 120.0


class RangeFile(Protocol):
    """A file that is read by range."""

    @property
    def name(self) -> str:
        """For the reader: no password and no signature of its address is in it."""
        ...

    @property
    def size(self) -> int:
        """Bytes of the whole file; known after `head`."""
        ...

    @property
    def validator(self) -> str:
        """What the server says tells this content from another; empty when it says nothing."""
        ...

    @property
    def names_version(self) -> bool:
        """Whether the validator surely differs between two contents."""
        ...

    def head(self, most: int) -> bytes:
        """The first `most` bytes, or all where there are fewer.

        Raises
        ------
        TransferError
            If they cannot be had.
        """
        ...

    def read_into(self, begin: int, buffer: memoryview, *, told: Told, stop: Event) -> None:
        """Fill the buffer with the bytes from `begin` on, all of one version of the file.

        Raises
        ------
        TransferError
            If they cannot be had, the file changed, or `stop` was set.
        """
        ...


class Interrupted(Exception):  # noqa: N818 - never leaves this package
    """A try that failed in a way that another may not; `wait` is what the server asked for.

    `nobody_there` says that no server answered.
    """

    def __init__(
        self, reason: str, *, wait: float | None = None, nobody_there: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait
        self.nobody_there = nobody_there


@dataclass(slots=True, kw_only=True)
class Patience:
    """How often one thing is asked for: a try that brought bytes starts the count anew."""

    name: str
    stop: Event
    pauses: tuple[float, ...] = PAUSES
    _fruitless: int = field(default=0, init=False)

    def wait(self, trouble: Interrupted, *, progress: bool) -> None:
        """Wait before the next try.

        Raises
        ------
        TransferError
            If there shall be none.
        """
        self._fruitless = 0 if progress else self._fruitless + 1
        if self._fruitless > len(self.pauses):
            raise TransferError(
                f"{self.name}: {trouble.reason}, {self._fruitless} times in a row",
                remedy="Check the address, the network and the login; if they are right, try again "
                "later: the norms that were measured are kept.",
            ) from trouble
        pause = self.pauses[self._fruitless - 1] if self._fruitless else 0.0
        if trouble.wait is not None:
            pause = trouble.wait
        if pause > _LONGEST_WAIT:
            raise TransferError(
                f"{self.name}: {trouble.reason}, and the server asks to wait {pause:.0f} s",
                remedy="Try again then: the norms that were measured are kept.",
            ) from trouble
        if self.stop.wait(pause):
            raise stopped(self.name)


def stopped(name: str) -> TransferError:
    """The error of a transfer that its reader gave up."""
    return TransferError(f"{name}: the transfer was stopped", remedy="Start it again.")


def changed(name: str, what: str) -> TransferError:
    """The error of a file that is no longer the one whose beginning was read."""
    return TransferError(
        f"{name} changed while it was read: {what}",
        remedy="Start again, with a commit or a version in the name where there are such.",
    )
