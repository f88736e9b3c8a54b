"""What a run is told when its disk is full: pure text."""

from collections.abc import Mapping
from pathlib import PurePath
from shlex import quote

from gradience.units import format_seconds, format_size

_FULL = (
    "No space left on device",
    "Disk quota exceeded",
    "os error 28",
    "os error 122",
    "unexpected pos",  # torch.save: the archive's position is not where its bytes should end
    "iostream error",
    "file write failed",
    "database or disk is full",
)
_FULL_NUMPY = " requested and "
_DEEDS = {
    "rotate": "an older checkpoint went for a newer one",
    "clean": "the allowed cleaning ran",
    "release": "the reserve was released",
    "failed": "a save was refused by the disk and taken away",
}


def speaks_of_full_disk(messages: list[str]) -> bool:
    """Whether the words of an exception are those that libraries have for a full disk.

    Examples
    --------
    >>> speaks_of_full_disk(["[enforce fail at inline_container.cc:672] . unexpected pos 704"])
    True
    >>> speaks_of_full_disk(["25165824 requested and 5234656 written"])
    True
    >>> speaks_of_full_disk(["CUDA out of memory"])
    False
    """
    return any(
        any(word in text for word in _FULL) or (_FULL_NUMPY in text and text.endswith(" written"))
        for text in messages
    )


def how_to_go_on(run: str, checkpoint: str | None, *, short_bytes: int | None) -> str:
    """Two sentences: what to free, and how to resume."""
    free = (
        f"Free {format_size(short_bytes)} or more below {run} (`gradience cache du` and "
        f"`gradience checkpoints ls {quote(run)}` say what is there)"
        if short_bytes
        else f"Free space below {run} (`gradience cache du` says what is there)"
    )
    if checkpoint is None:
        return f"{free}, then start the run again: it has no checkpoint yet."
    return (
        f"{free}, then run the same program with trainer.train(resume_from_checkpoint=True): it "
        f"goes on from {PurePath(checkpoint).name}."
    )


def what_was_done(counts: Mapping[str, int], newest: str) -> str:
    """What a run's disk asked of it, in one line at its end.

    Examples
    --------
    >>> what_was_done({"release": 1}, "checkpoint-8")
    'Room was short: 1 x the reserve was released. checkpoint-8 is complete.'
    """
    done = ", ".join(f"{counts[k]} x {deed}" for k, deed in _DEEDS.items() if counts.get(k))
    ending = f"{newest} is complete." if newest else "There is no complete checkpoint."
    return f"Room was short: {done}. {ending}"


def what_follows(*, rotate: bool, clean: bool) -> str:
    """What a run does that starts without room for all that it would like to keep.

    Examples
    --------
    >>> what_follows(rotate=True, clean=False)
    'The run goes on: where a save has no room, older checkpoints go; then it stops with one that \
resumes.'
    """
    acts = ("older checkpoints go",) * rotate + ("the allowed cleaning runs",) * clean
    first = f"{', '.join(acts)}; then " if acts else ""
    return f"The run goes on: where a save has no room, {first}it stops with one that resumes."


def growth(place: str, seconds: float, per_second: float, free: int | None) -> str:
    """When the disk will be full, at the pace of the last minutes."""
    left = "" if free is None else f", {format_size(free)} left"
    return (
        f"{place} fills with {format_size(round(per_second))}/s{left}: full in "
        f"{format_seconds(seconds)} at this pace."
    )
