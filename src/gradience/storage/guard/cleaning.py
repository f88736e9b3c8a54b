"""The cleaning that a user allowed in advance: `gradience cache clean` with arguments of theirs.

It runs as a process of its own, under a limit of time: a mount that does not answer must hold up a
cleaning, and not the training that waits for it.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gradience.errors import StorageError, UsageError
from gradience.storage.guard.records import Cleaner
from gradience.storage.guard.room import room_at

SECONDS = 300.0


def check_arguments(arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    """Whether `gradience cache clean` takes these arguments.

    Raises
    ------
    UsageError
        If it does not.
    """
    if _clean((*arguments, "--help"), environ, None).returncode:
        raise UsageError(
            f"clean: {list(arguments)} are no arguments of `gradience cache clean`",
            remedy="See gradience cache clean --help.",
        )


def cleaner(
    arguments: Sequence[str],
    places: Sequence[Path],
    *,
    environ: Mapping[str, str],
    home: Path,
    seconds: float = SECONDS,
) -> Cleaner:
    """Run that cleaning when asked; the bytes by which the disks of `places` then had more room.

    Parameters
    ----------
    arguments : sequence of str
        Of `gradience cache clean`, such as `("--idle", "30d")`; `--yes` is added.
    seconds : float
        How long it may take.
    """

    def room() -> int:
        return sum(room_at(place, environ, home).bytes or 0 for place in places)

    def clean(_: int, /) -> int:
        before = room()
        try:
            done = _clean((*arguments, "--yes"), environ, seconds)
        except subprocess.TimeoutExpired as error:
            raise StorageError(
                f"it took more than {seconds:g} s", remedy="Run it by hand."
            ) from error
        if done.returncode not in (0, 1):
            raise StorageError(
                f"gradience cache clean: {done.stderr.strip()}", remedy="Run it by hand."
            )
        return max(0, room() - before)

    return clean


def _clean(
    arguments: Sequence[str], environ: Mapping[str, str], seconds: float | None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "gradience", "cache", "clean", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=dict(environ),
        timeout=seconds,
    )
