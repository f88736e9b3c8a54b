"""A hard limit on the bytes of a bench: what goes first, and whether a trial may start. Pure.

What costs nothing to lose goes first: scratch, then what can be made again from a probe, then what
only training makes again. Records (results, logs, settings) never go.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from gradience.bench.records import PROBE
from gradience.units import format_size

RESERVE = 64_000_000
"""Bytes that stay free on the disk beside what a trial needs: logs, records, other programs."""


class Worth(IntEnum):
    """What a part of a trial's directory is worth: the least goes first."""

    SCRATCH = 0  # optimizer states and checkpoints of trials that do not run
    CONTROL = 1  # adapters of controls: made again from the probe in seconds
    TRUNCATED = 2  # adapters of variants made without training
    STEP0 = 3  # untrained adapters of probes that no pending trial needs
    TRAINED = 4  # adapters of healed and retrained variants
    PROBE = 5  # adapters of probes that no pending trial needs


_WORTH = {
    PROBE: Worth.PROBE,
    "heal": Worth.TRAINED,
    "retrain": Worth.TRAINED,
    "truncate": Worth.TRUNCATED,
}


def worth(action: str) -> Worth:
    """What an adapter is worth that this action made."""
    return _WORTH.get(action, Worth.CONTROL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a trial's directory that may go.

    Attributes
    ----------
    trial : str
    part : str
        `work`, `step0` or `adapter`.
    nbytes : int
        On disk.
    worth : Worth
    """

    trial: str
    part: str
    nbytes: int
    worth: Worth


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What is in use and what may be.

    Attributes
    ----------
    used : int
        Bytes of the output directory now.
    promised : int
        What running trials may still write.
    cap : int or None
        The budget.
    room : int or None
        What the disk still takes; None where nobody says.
    """

    used: int
    promised: int
    cap: int | None
    room: int | None


def excess(books: Books, estimate: int) -> int:
    """How many bytes must go before a trial that writes `estimate` may start; 0 if none."""
    over = [0]
    if books.cap is not None:
        over.append(books.used + books.promised + estimate - books.cap)
    if books.room is not None:
        over.append(books.promised + estimate + RESERVE - books.room)
    return max(over)


def evictions(parts: Iterable[Part], wanted: int) -> tuple[Part, ...]:
    """What goes to free `wanted` bytes: by worth, the largest of equals first.

    Returns
    -------
    tuple of Part
        All of them where that is not enough: the caller compares the sum.
    """
    chosen: list[Part] = []
    freed = 0
    for part in sorted(parts, key=lambda p: (p.worth, -p.nbytes, p.trial)):
        if freed >= wanted:
            break
        chosen.append(part)
        freed += part.nbytes
    return tuple(chosen)


def arithmetic(books: Books, name: str, estimate: int, parts: Sequence[Part]) -> str:
    """Why a trial may not start, in numbers."""
    spare = sum(part.nbytes for part in parts)
    needs = f"{name} writes about {format_size(estimate)}"
    running = f", running trials may write {format_size(books.promised)}" if books.promised else ""
    could = f"; {format_size(spare)} of that could be removed" if spare else ""
    told = []
    if books.cap is not None and books.used + books.promised + estimate - spare > books.cap:
        told.append(
            f"{format_size(books.used)} of the budget of {format_size(books.cap)} are in use{could}"
        )
    if books.room is not None and books.promised + estimate + RESERVE - spare > books.room:
        told.append(
            f"the disk takes {format_size(books.room)} more, of which {format_size(RESERVE)} "
            "stay free"
        )
    return f"{needs}{running}; {' and '.join(told)}"
