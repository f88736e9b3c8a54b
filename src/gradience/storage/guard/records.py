"""What is known before a save, and what is decided."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from gradience.storage.checkpoints.records import Checkpoint


class Answer(StrEnum):
    """Whether an amount fits."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"  # nothing refuses it, and nothing proves it


class Act(StrEnum):
    """What to do next, on the way to a save."""

    SAVE = "save"
    ROTATE = "rotate"
    CLEAN = "clean"
    RELEASE = "release"
    SMALLEST = "smallest"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a checkpoint takes.

    Attributes
    ----------
    bytes, inodes : int
    """

    bytes: int
    inodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known before a save, or after one failed.

    Attributes
    ----------
    whole : Answer
        Whether a whole checkpoint fits now.
    smallest : Answer
        Whether the smallest form that resumes fits now.
    rotatable : tuple of Checkpoint
        Complete checkpoints that may go, the oldest first.
    may_clean : bool
        A plan to clean is allowed and was not run yet.
    reserve : bool
        The ballast is there to be released.
    failures : int
        Whole saves that the disk refused at this step.
    exact_older : bool
        There is a complete checkpoint from which a resume goes on exactly.
    """

    whole: Answer
    smallest: Answer
    rotatable: tuple[Checkpoint, ...] = ()
    may_clean: bool = False
    reserve: bool = False
    failures: int = 0
    exact_older: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardEvent:
    """One thing that happened, for a log or for telemetry.

    Attributes
    ----------
    kind : str
        `start`, `unguarded`, `aside`, `unswept`, `shared`, `reserve`, `room`, `rotated`,
        `cleaned`, `released`, `saved`, `failed`, `stopped`, `end`.
    step : int, optional
        The optimizer step, where there is one.
    message : str
        One sentence.
    grave : bool
        Worth a warning.
    facts : mapping
        Numbers and names, in bytes and seconds.
    """

    kind: str
    message: str
    step: int | None = None
    grave: bool = False
    facts: Mapping[str, int | float | str] = field(default_factory=dict)


EventSink = Callable[[GuardEvent], None]
"""Is told of every event; what it raises is logged and ends there."""


class Cleaner(Protocol):
    """A plan to clean that the user allowed."""

    def __call__(self, nbytes: int, /) -> int:
        """Free `nbytes`, or what can be freed; the bytes that were."""
        ...
