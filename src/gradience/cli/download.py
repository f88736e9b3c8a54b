"""Whether a base model may be downloaded: held against the disk, then asked."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import click

from gradience.cli.visible import visible

if TYPE_CHECKING:
    from gradience.audit.base.terms import Approve, WholeFiles


def approval(
    *, yes: bool, can_ask: bool, paused: "Callable[[], AbstractContextManager[None]]" = nullcontext
) -> "Approve":
    """Ask before files are downloaded whole.

    Parameters
    ----------
    yes : bool
        Said beforehand: only the disk can still refuse.
    can_ask : bool
        Somebody is there to answer.
    paused : callable
        Leaves the terminal to the question while it is asked.
    """

    def approve(files: "WholeFiles") -> None:
        room = _room(files)
        if yes:
            click.echo(visible(f"{files.sentence}; {room}"), err=True)
            return
        from gradience.audit.base.terms import refuse  # noqa: PLC0415 - only for a download

        if not can_ask:
            refuse(files)
        with paused():
            click.echo(visible(f"{files.sentence}; {room}"), err=True)
            if not click.confirm("Download?", err=True):
                refuse(files)

    return approve


def _room(files: "WholeFiles") -> str:
    """What can be written where the files would go, in words.

    Raises
    ------
    DownloadRefusedError
        If they do not fit.
    """
    from gradience.errors import DownloadRefusedError  # noqa: PLC0415 - only for a download
    from gradience.storage.room.headroom import headroom  # noqa: PLC0415 - as above

    free = headroom(files.into)
    if free.bytes is not None and free.bytes < files.nbytes:
        raise DownloadRefusedError(
            f"{files.sentence}, and it does not fit. {free.sentence}",
            remedy="Make room (gradience cache du), set HF_HOME to a larger disk, or name a "
            "revision or a model that has safetensors: those are read without the disk.",
        )
    return free.sentence
