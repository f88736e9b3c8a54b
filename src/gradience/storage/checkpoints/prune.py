"""Which checkpoints may go: pure rules over judged ones.

Three are never chosen: the newest complete one, which is what a resume takes; the best one, which
the run loads at its end; and whatever would leave a run without any complete checkpoint.
"""

from collections.abc import Iterable
from pathlib import Path

from gradience.storage.checkpoints.records import Checkpoint, Removal, Run

_SETTLED_SECONDS = 120.0


def rotation(checkpoints: Iterable[Checkpoint], *, keep: int) -> tuple[Checkpoint, ...]:
    """Complete checkpoints that may go so that `keep` complete ones are left, the oldest first.

    Parameters
    ----------
    keep : int
        1 or more. More stay where the best one is among the older.

    Examples
    --------
    >>> def at(step, **more):
    ...     return Checkpoint(path=f"c-{step}", step=step, bytes=1, files=1, **more)
    >>> old, best, new = at(1, resumes="exactly"), at(2, resumes="exactly", best=True), at(
    ...     3, resumes="exactly")
    >>> [c.step for c in rotation([old, best, new], keep=1)]
    [1]
    """
    complete = [c for c in checkpoints if c.complete]
    # What restarts the optimizer is no substitute for what resumes exactly.
    exact = next((c for c in reversed(complete) if c.resumes == "exactly"), None)
    free = [c for c in complete[:-1] if not c.best and c is not exact]
    surplus = len(complete) - max(keep, 1)
    return tuple(free[: max(surplus, 0)])


def stays(checkpoint: Checkpoint, now: float) -> str:
    """Why a checkpoint stays though it is older or broken; "" if nothing speaks for it.

    A run without a guard says to nobody that it goes on, and its save looks broken until it is
    done.
    """
    if checkpoint.held:
        return checkpoint.held
    if not checkpoint.complete and now - checkpoint.written < _SETTLED_SECONDS:
        return "it is not complete, and was written a moment ago: its save may be going on"
    return ""


def plan(runs: Iterable[Run], *, keep: int, now: float) -> tuple[Removal, ...]:
    """What a pruning would remove: surplus complete checkpoints, broken ones, and leftovers.

    A run that is going on is left to itself, and so is what a process has open.

    Parameters
    ----------
    now : float
        Seconds since 1970.
    """
    found: list[Removal] = []
    for run in runs:
        if run.in_use:
            continue
        going = rotation(run.checkpoints, keep=keep)
        found += [
            Removal(path=c.path, bytes=c.bytes, why=f"older than the {_newest(keep)}")
            for c in going
            if not stays(c, now)
        ]
        found += [
            Removal(path=c.path, bytes=c.bytes, why=f"no resume: {c.problems[0]}")
            for c in run.checkpoints
            if not c.complete and not c.best and not stays(c, now)
        ]
        found += [
            Removal(path=left.path, bytes=left.bytes, why=f"{left.what}, of an earlier run")
            for left in run.leftovers
        ]
    return tuple(found)


def left_alone(runs: Iterable[Run], *, keep: int, now: float) -> tuple[str, ...]:
    """One sentence for each run, and each checkpoint that would go, that is not touched."""
    found = []
    for run in runs:
        if run.in_use:
            found.append(f"{Path(run.path)} is left alone: a run that is going on saves there.")
            continue
        surplus = rotation(run.checkpoints, keep=keep)
        found += [
            f"{Path(c.path)} is left alone: {why}."
            for c in run.checkpoints
            if (c in surplus or not c.complete) and (why := stays(c, now))
        ]
    return tuple(found)


def _newest(keep: int) -> str:
    return "newest complete one" if keep <= 1 else f"{keep} newest complete ones"
