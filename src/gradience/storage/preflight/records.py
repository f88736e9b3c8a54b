"""The nouns: what a run will write, where, when, and whether it fits there."""

from typing import Literal

import msgspec

SCHEMA = "gradience.preflight/v1"

When = Literal["before", "start", "run", "save", "end"]
"""Before training; when it starts; growing until its end; at each save; after it."""
Known = Literal["measured", "listed", "computed", "given", "assumed", "unknown"]
"""On this disk; by the Hub; from shapes; by the user; by a stated rule; not at all."""
Verdict = Literal["fits", "until", "no", "unknown"]


class Write(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that a run writes.

    Attributes
    ----------
    what : str
    path : str
        The directory it goes to.
    when : str
        `before`, `start`, `run`, `save` (this much for each checkpoint) or `end`.
    known : str
        How the size is known: `measured`, `listed`, `computed`, `given`, `assumed`, `unknown`.
    bytes : int, optional
        Absent where it is unknown.
    files : int
    note : str
        Where the number comes from.
    optional : bool
        A checkpoint does without it: `save_only_model`.
    """

    what: str
    path: str
    when: When
    known: Known
    bytes: int | None = None
    files: int = 1
    note: str = ""
    optional: bool = False


class Schedule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How often a run saves, and what it keeps.

    Attributes
    ----------
    steps : int, optional
        Of the run; absent where it is not known.
    every : int, optional
        Steps between two saves; absent where the run saves by epochs of unknown length, or never.
    saves : int, optional
        In all; absent where it is not known.
    keeps : int, optional
        Checkpoints that stay; absent if all.
    """

    steps: int | None = None
    every: int | None = None
    saves: int | None = None
    keeps: int | None = None


class Moment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What lies on one disk at one time, beside what lies there now.

    Attributes
    ----------
    name : str
    bytes, files : int
        With a margin of 2 % on the bytes.
    checkpoints : int
        That are there at once.
    step : int, optional
    """

    name: str
    bytes: int
    files: int
    checkpoints: int = 0
    step: int | None = None


class Disk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One disk: what is written to it, held against what can be.

    Attributes
    ----------
    path : str
        Where it is mounted.
    fs_type, limit : str
        The limit that binds, and how far to trust it.
    verdict : str
    writes : tuple of Write
    moments : tuple of Moment
    peak : Moment
    room_bytes, room_files : int, optional
        Absent where nothing says so, or where there is no such limit.
    until_step, until_save : int, optional
        The last save that fits.
    short_bytes : int
        What is missing at the peak.
    note : str
        What the disk answered when it was asked for the peak.
    """

    path: str
    fs_type: str
    limit: str
    verdict: Verdict
    writes: tuple[Write, ...]
    moments: tuple[Moment, ...]
    peak: Moment
    room_bytes: int | None = None
    room_files: int | None = None
    until_step: int | None = None
    until_save: int | None = None
    short_bytes: int = 0
    note: str = ""


class Cleaning(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a cleaning of one disk could give.

    Attributes
    ----------
    path : str
        The disk.
    command : str
    frees_bytes, items : int, optional
        Of its plan; absent where none was made.
    enough : bool
        Whether the run fits afterwards.
    """

    path: str
    command: str
    frees_bytes: int | None = None
    items: int | None = None
    enough: bool = False


class Preflight(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer.

    Attributes
    ----------
    verdict : str
        `fits`; `until` a step; `no`; `unknown` where a size or a limit that decides is not known.
    schedule : Schedule
    disks : tuple of Disk
    until_step, until_save : int, optional
        The last save that fits on every disk.
    unknown : tuple of str
        What could not be known, and why.
    assumed : tuple of str
        What was assumed.
    advice : tuple of str
        What to change.
    cleaning : tuple of Cleaning
    """

    verdict: Verdict
    schedule: Schedule
    disks: tuple[Disk, ...]
    until_step: int | None = None
    until_save: int | None = None
    unknown: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    cleaning: tuple[Cleaning, ...] = ()
