"""What happened to a program that was looked after."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSeen:
    """One disk over the life of the program.

    Attributes
    ----------
    place : str
        The directory that was watched.
    first, lowest, last : int or None
        Bytes that could be written.
    """

    place: str
    first: int | None
    lowest: int | None
    last: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """That the program was asked to stop.

    Attributes
    ----------
    how : str
        `SIGTERM`, or the path of the stop file.
    free_bytes : int or None
    place : str
    seconds : float
        From the asking to the end of the program.
    signalled : bool
        Asked by file, it had to be sent the signal too.
    ignored : bool
        It went on for longer than it was given.
    """

    how: str
    free_bytes: int | None
    place: str
    seconds: float
    signalled: bool
    ignored: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How it ended.

    Attributes
    ----------
    code : int
        Exit code: the program's own, or 128 + the number of the signal that ended it.
    seconds : float
    disks : tuple of DiskSeen
    asked : Asked or None
    cleaned_bytes, released_bytes : int
        By which the free space grew by cleaning, and of the ballast.
    """

    code: int
    seconds: float
    disks: tuple[DiskSeen, ...]
    asked: Asked | None = None
    cleaned_bytes: int = 0
    released_bytes: int = 0
