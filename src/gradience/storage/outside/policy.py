"""When a program is asked to stop, how, and what may be done first: a YAML file, or defaults."""

import signal
from pathlib import Path

import msgspec

from gradience.configs.document import read_document
from gradience.configs.read import as_record
from gradience.errors import UsageError
from gradience.units import parse_duration, parse_size

_REMEDY = "`gradience run --help` shows a policy; docs/survive.md lists the keys."
_STOP_BYTES = 2 * 10**9
_PART = 10  # of what can be written at the start: a small disk has a small threshold


class PolicyFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file, as it is written.

    Attributes
    ----------
    stop_below : str, optional
        Size: with less than that free, the program is asked to stop. By default 2 GB, or a tenth of
        what can be written at the start where that is less.
    warn_below : str, optional
        Size: a line on standard error. By default twice `stop_below`.
    stop_below_files : int
        The same for files and directories, where a file system counts them.
    ballast : str, optional
        Size: held on the disk, and released when the program is asked to stop. By default half of
        `stop_below`; `0` holds none.
    clean : tuple of str, optional
        Arguments of `gradience cache clean` that may run, with --yes, before the program is asked;
        without it nothing is cleaned.
    signal : str
        That asks the program: TERM, INT, USR1, ...
    stop_file : str, optional
        A file that is made to ask the program, in place of the signal.
    grace : str
        Duration: after it, a program that was asked by file gets the signal, and one that was asked
        by signal is named in the summary. Nothing is ever killed.
    watch : tuple of str
        Directories whose disks are watched; by default the output directory, else the working one.
    interval : str
        Duration between two looks.
    environment : bool
        Whether variables that are not set are set as by `gradience env`.
    """

    stop_below: str | None = None
    warn_below: str | None = None
    stop_below_files: int = 64
    ballast: str | None = None
    clean: tuple[str, ...] | None = None
    signal: str = "TERM"
    stop_file: str | None = None
    grace: str = "60s"
    watch: tuple[str, ...] = ()
    interval: str = "2s"
    environment: bool = True


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The same with numbers; sizes that depend on the disk are absent."""

    stop_bytes: int | None
    warn_bytes: int | None
    stop_files: int
    ballast_bytes: int | None
    clean: tuple[str, ...] | None
    signal: signal.Signals
    stop_file: str | None
    grace_seconds: float
    watch: tuple[str, ...]
    interval_seconds: float
    environment: bool

    def stop_at(self, room: int | None) -> int:
        """Bytes below which a disk with that much room at the start is too full."""
        if self.stop_bytes is not None:
            return self.stop_bytes
        return _STOP_BYTES if room is None else min(_STOP_BYTES, room // _PART)

    def hold(self, stop: int) -> int:
        """Bytes of the ballast."""
        return stop // 2 if self.ballast_bytes is None else self.ballast_bytes


def read_policy(path: Path | None) -> Policy:
    """The policy in a file, or the default.

    Raises
    ------
    UsageError
        If the file cannot be read, a key is not known (the message says which was meant), or a
        value is no size, duration or signal.
    """
    if path is None:
        return _numbers(PolicyFile())
    document = read_document(path, remedy=_REMEDY)
    found = as_record(document, PolicyFile, source=str(path), remedy=_REMEDY)
    try:
        return _numbers(found)
    except UsageError as error:
        raise UsageError(f"{path}: {error}", remedy=error.remedy) from error


def _numbers(found: PolicyFile) -> Policy:
    name = found.signal.upper().removeprefix("SIG")
    if f"SIG{name}" not in signal.Signals.__members__:
        raise UsageError(f"there is no signal {found.signal!r}", remedy="Write TERM, INT or USR1.")
    interval = parse_duration(found.interval).total_seconds()
    if interval < 0.05:
        raise UsageError(f"interval {found.interval} is too short", remedy="Write 0.05s or more.")
    return Policy(
        stop_bytes=_size(found.stop_below),
        warn_bytes=_size(found.warn_below),
        stop_files=found.stop_below_files,
        ballast_bytes=_size(found.ballast),
        clean=found.clean,
        signal=signal.Signals[f"SIG{name}"],
        stop_file=found.stop_file,
        grace_seconds=parse_duration(found.grace).total_seconds(),
        watch=found.watch,
        interval_seconds=interval,
        environment=found.environment,
    )


def _size(text: str | None) -> int | None:
    return None if text is None else parse_size(text)
