"""The nouns: a checkpoint, the run it belongs to, and what a pruning would remove."""

from itertools import takewhile
from typing import Literal

import msgspec

SCHEMA = "gradience.checkpoints/v1"

Resumes = Literal["exactly", "partly", "no"]


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One `checkpoint-<step>`, judged.

    Attributes
    ----------
    path : str
    step : int
    bytes, files : int
        On the disk.
    resumes : str
        `exactly`; `partly` where optimizer or random states start anew; `no` where a resume dies.
    problems : tuple of str
        Why a resume dies.
    anew : tuple of str
        What starts anew.
    best : bool
        The run's own record names it as the best one.
    written : float
        Seconds since 1970: the latest time of change of anything in it.
    held : str
        Which process has a file of it open or mapped; "" if none is known to.
    """

    path: str
    step: int
    bytes: int
    files: int
    resumes: Resumes
    problems: tuple[str, ...] = ()
    anew: tuple[str, ...] = ()
    best: bool = False
    written: float = 0.0
    held: str = ""

    @property
    def complete(self) -> bool:
        """Whether a resume would go on from it."""
        return self.resumes != "no"


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """What lies beside the checkpoints and is none: set aside, half written, or a reserve.

    Attributes
    ----------
    path : str
    what : str
        `set aside`, `unfinished save` or `reserve`.
    bytes : int
    """

    path: str
    what: Literal["set aside", "unfinished save", "reserve"]
    bytes: int


class Run(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A directory with checkpoints, by step, the oldest first.

    Attributes
    ----------
    path : str
    checkpoints : tuple of Checkpoint
    leftovers : tuple of Leftover
    in_use : bool
        A training run that is going on saves here.
    """

    path: str
    checkpoints: tuple[Checkpoint, ...]
    leftovers: tuple[Leftover, ...] = ()
    in_use: bool = False

    @property
    def newest(self) -> Checkpoint | None:
        """The checkpoint that a resume should take: the newest complete one."""
        return next((c for c in reversed(self.checkpoints) if c.complete), None)

    @property
    def traps(self) -> tuple[Checkpoint, ...]:
        """The broken ones after the newest complete one, the newest first.

        `resume_from_checkpoint=True` takes the first of them, and the next when that is out of the
        way.
        """
        return tuple(takewhile(lambda c: not c.complete, reversed(self.checkpoints)))


class Removal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that a pruning removes.

    Attributes
    ----------
    path, why : str
    bytes : int
        On the disk, before.
    done : bool, optional
        Absent in a plan.
    problem : str
        Why it was not removed.
    """

    path: str
    why: str
    bytes: int
    done: bool | None = None
    problem: str = ""


class Listing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was found, and what was or would be removed.

    Attributes
    ----------
    runs : tuple of Run
    removals : tuple of Removal
        Of a pruning.
    freed_bytes : int, optional
        By how much the free space of the file systems grew; absent unless something was removed.
    """

    runs: tuple[Run, ...]
    removals: tuple[Removal, ...] = ()
    freed_bytes: int | None = None
