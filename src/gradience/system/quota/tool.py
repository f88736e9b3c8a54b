"""Ask a tool of the system, with a time limit, never failing the caller."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import msgspec

from gradience.system.base import within

SECONDS = 5.0


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool printed, or why it printed nothing.

    Attributes
    ----------
    output : str, optional
        Standard output; None if the tool could not be run.
    problem : str
        One sentence; empty if it ran and ended with a status that was expected.
    """

    output: str | None
    problem: str = ""


def say(command: list[str], *, seconds: float = SECONDS, statuses: tuple[int, ...] = (0,)) -> Said:
    """Run a tool in the C locale and return what it printed.

    Parameters
    ----------
    command : list of str
        The tool's name, searched on the path, and its arguments.
    statuses : tuple of int
        Exit statuses that mean it answered.
    """
    tool = shutil.which(command[0])
    if tool is None:
        return Said(output=None, problem=f"{Path(command[0]).name} is not installed")
    # A tool that hangs in a dead file system cannot even be killed: the thread is left behind.
    said = within(seconds + 1, lambda: _run([tool, *command[1:]], seconds, statuses))
    return said or Said(output=None, problem=f"{command[0]} did not answer in {seconds:g} s")


def _run(command: list[str], seconds: float, statuses: tuple[int, ...]) -> Said:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return Said(output=None, problem=f"{command[0]} did not answer in {seconds:g} s")
    except OSError as error:
        return Said(output=None, problem=f"{command[0]} cannot be run: {error.strerror}")
    if done.returncode not in statuses:
        lines = (done.stderr or done.stdout).strip().splitlines()
        reason = lines[-1].strip() if lines else f"status {done.returncode}"
        return Said(output=None, problem=f"{' '.join(command)}: {reason}")
    return Said(output=done.stdout)


def charged_group(place: Path) -> int:
    """The group that a new file in `place` is charged to: setgid directories pass on theirs."""
    directory = place if place.is_dir() else place.parent
    status = directory.stat()
    return status.st_gid if status.st_mode & stat.S_ISGID else os.getegid()
