"""What happened to a program that was looked after."""

import msgspec

SCHEMA = "gradience.run/v1"


class DiskSeen(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One disk over the life of the program.

    Attributes
    ----------
    place : str
        The directory that was watched.
    first, lowest, last : int, optional
        Bytes that could be written; absent where that is not known.
    """

    place: str
    first: int | None = None
    lowest: int | None = None
    last: int | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """That the program was asked to stop.

    Attributes
    ----------
    how : str
        `SIGTERM`, or the path of the stop file.
    free_bytes : int, optional
        That could be written then; absent where that was not known.
    place : str
    seconds : float
        From the asking to the end of the program.
    signalled : bool
        Asked by file, it had to be sent the signal too.
    ignored : bool
        It went on for longer than it was given.
    """

    how: str
    place: str
    seconds: float
    free_bytes: int | None = None
    signalled: bool = False
    ignored: bool = False


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How it ended.

    Attributes
    ----------
    code : int
        Exit code: the program's own, or 128 + the number of the signal that ended it.
    seconds : float
    disks : tuple of DiskSeen
    asked : Asked, optional
        Absent where it was not asked to stop.
    cleaned_bytes, released_bytes : int
        By which the free space grew by cleaning, and of the ballast.
    """

    code: int
    seconds: float
    disks: tuple[DiskSeen, ...]
    asked: Asked | None = None
    cleaned_bytes: int = 0
    released_bytes: int = 0
