"""The start of a guarded run: the guard's arithmetic, and from which save on something must go."""

import os
from dataclasses import replace
from pathlib import Path

from gradience.errors import StorageError
from gradience.storage.guard.need import Start
from gradience.storage.guard.run import Guard
from gradience.storage.preflight import forecast
from gradience.storage.preflight.records import Schedule, Write
from gradience.storage.preflight.run import judge


def start(held: Guard, saves: int, keeps: int | None) -> Start:
    """Whether a run can start: as the guard says, with what a preflight adds.

    Parameters
    ----------
    held : Guard
        Knows how large a checkpoint and the reserve are.
    saves : int
        How often the run will save.
    keeps : int, optional
        Checkpoints that it keeps.
    """
    said = held.judge_start(saves=saves, keeps=keeps)
    if said.refused:
        return said
    place = str(held.run)
    writes = (
        Write(
            what="checkpoint",
            path=place,
            when="save",
            known="computed",
            bytes=held.whole.bytes,
            files=held.whole.inodes,
        ),
        Write(
            what="reserve",
            path=place,
            when="start",
            known="computed",
            bytes=held.smallest.bytes,
            files=held.smallest.inodes,
        ),
    )
    times = Schedule(saves=saves, keeps=keeps)
    try:
        found = judge(writes, times, environ=os.environ, home=Path.home())
    except StorageError:
        return said  # the guard has asked already, and says what it could not find out
    disk = found.disks[0]
    if disk.verdict != "until":
        return said
    lines = (
        f"After save {disk.until_save} of {saves} older checkpoints must go for newer ones.",
        *forecast.advice(disk, times, adapter=True),
    )
    return replace(said, tight=True, lines=(*said.lines, *lines))
