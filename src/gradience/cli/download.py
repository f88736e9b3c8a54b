"""What of a base model may be downloaded: options, the disk, then a question."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import click

from gradience.cli.visible import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gradience.audit.base.terms import Approve, Terms, WholeFiles
    from gradience.cli.progress import Bar


def download_options(command: "Callable[..., int]") -> "Callable[..., int]":
    """The options that say what of base models may come over the network."""
    limit = click.option(
        "--max-download",
        metavar="SIZE",
        help="Refuse, before the first byte, if more of base models would come over the network, "
        "such as 2GB.",
    )
    yes = click.option(
        "--yes",
        is_flag=True,
        help="Download what cannot be read by range (.bin, GGUF) without asking, if it fits.",
    )
    return limit(yes(command))


@contextmanager
def progress_and_terms(
    *, max_download: str | None, yes: bool
) -> "Iterator[tuple[Bar | None, Terms]]":
    """A bar where somebody looks, and on which terms a base model is fetched meanwhile.

    Raises
    ------
    UsageError
        If `max_download` is no size.
    """
    from gradience.audit.base.terms import BYTES_STAGE, Terms  # noqa: PLC0415 - not for --help
    from gradience.cli.progress import progress_bar  # noqa: PLC0415 - as above
    from gradience.units import parse_size  # noqa: PLC0415 - as above

    on_terminal = sys.stderr.isatty()
    limit = None if max_download is None else parse_size(max_download)
    with progress_bar(shown=on_terminal, in_bytes=frozenset({BYTES_STAGE})) as progress:
        can_ask = on_terminal and sys.stdin.isatty()
        paused = progress.paused if progress else nullcontext
        approve = approval(yes=yes, can_ask=can_ask, paused=paused)
        yield progress, Terms(limit=limit, approve=approve)


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
