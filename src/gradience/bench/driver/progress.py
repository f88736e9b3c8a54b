"""How far a bench is: a snapshot for people who wait."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningTrial:
    """A trial that runs.

    Attributes
    ----------
    name : str
        `truncate-r8 seed 1`.
    stage : str
        Empty until its process has said.
    done, total : int
        Of the stage, in its own unit.
    elapsed : float
        Seconds since its start.
    left : float or None
        Seconds; None while nothing is known to tell from.
    """

    id: str
    name: str
    stage: str = ""
    done: int = 0
    total: int = 0
    elapsed: float = 0.0
    left: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A bench at one moment.

    Attributes
    ----------
    total, done, failed : int
        Trials of the plan.
    running : tuple of RunningTrial
    elapsed : float
        Seconds of this run.
    left : float or None
        Seconds for all the rest, as the trials so far took; None before the first.
    at_least : bool
        Some trials are of a kind that has not been measured: `left` leaves them out.
    """

    total: int
    done: int
    failed: int
    running: tuple[RunningTrial, ...]
    elapsed: float
    left: float | None
    at_least: bool = False


def stage_left(done: int, total: int, elapsed: float) -> float | None:
    """Seconds that the rest of a stage takes at its speed so far.

    Examples
    --------
    >>> stage_left(25, 100, 10.0)
    30.0
    """
    return elapsed * (total - done) / done if done > 0 and total >= done else None


def whole_left(
    pending: Mapping[str, float | None], running: Mapping[str, float | None], slots: int
) -> tuple[float | None, bool]:
    """Seconds for everything, side by side, and whether unknown trials were left out.

    Parameters
    ----------
    pending, running : mapping of str to float or None
        Seconds by trial; None where nothing is known.
    slots : int
        Trials at once.
    """
    known = [s for s in (*pending.values(), *running.values()) if s is not None]
    unknown = len(pending) + len(running) - len(known)
    if not known:
        return (0.0, False) if not unknown else (None, True)
    lasting = max((s for s in running.values() if s is not None), default=0.0)
    return max(sum(known) / slots, lasting), unknown > 0
