"""A preflight as a page: record to text, pure."""

from gradience.page import Page, Table, Text, Tone
from gradience.storage.preflight.forecast import sentence
from gradience.storage.preflight.records import Cleaning, Disk, Preflight, Verdict, Write
from gradience.units import format_size

_TONES: dict[Verdict, Tone] = {"fits": "good", "until": "warn", "unknown": "warn", "no": "bad"}
_WHEN = {
    "before": "before training",
    "start": "at its start",
    "run": "while it runs",
    "save": "each checkpoint",
    "end": "in the end",
}


def page(found: Preflight) -> Page:
    """The arithmetic of each disk, the answer, and what to change."""
    parts: list[Text | Table] = []
    for disk in found.disks:
        parts += [_written(disk), _over_time(disk)]
        if disk.note:
            parts.append(Text(text=disk.note, tone="dim"))
    parts += [
        Text(text=sentence(disk, found.schedule), tone=_TONES[disk.verdict]) for disk in found.disks
    ]
    parts.append(Text(text=answer(found), tone=_TONES[found.verdict]))
    parts += [Text(text=f"Not known: {line}.", tone="warn") for line in found.unknown]
    parts += [Text(text=f"Assumed: {line}", tone="dim") for line in found.assumed]
    parts += [Text(text=line) for line in found.advice]
    for cleaning in found.cleaning:
        parts += _cleaning(cleaning)
    return tuple(parts)


def _cleaning(found: Cleaning) -> list[Text]:
    if found.frees_bytes == 0:
        return [Text(text=f"There is nothing to clean in the caches on {found.path}.")]
    what = f"A cleaning of the caches on {found.path}"
    if found.frees_bytes is None:
        result = "could not be planned in time; to try it:"
    elif found.enough:
        result = f"would free {format_size(found.frees_bytes)}, enough:"
    else:  # no command that is said not to help
        frees = format_size(found.frees_bytes)
        return [Text(text=f"{what} would free {frees}, which is too little.")]
    return [Text(text=f"{what} {result}"), Text(text=f"$ {found.command}")]


def answer(found: Preflight) -> str:
    """The answer in one line."""
    if found.verdict == "until":
        step = found.until_step
        where = f"step {step}" if step is not None else f"save {found.until_save}"
        return f"FITS UNTIL {where.upper()}"
    return {
        "fits": "FITS",
        "no": "DOES NOT FIT",
        "unknown": "NOT KNOWN: what is known fits",
    }[found.verdict]


def _written(disk: Disk) -> Table:
    return Table(
        title=f"{disk.path} ({disk.fs_type}): {_room(disk)}",
        head=("what", "size", "when", "known", "note"),
        rows=tuple(_row(write) for write in disk.writes),
        left=frozenset({0, 2, 3, 4}),
        spare=("note",),
    )


def _row(write: Write) -> tuple[str, ...]:
    size = "?" if write.bytes is None else format_size(write.bytes)
    return (write.what, size, _WHEN[write.when], write.known, write.note)


def _over_time(disk: Disk) -> Table:
    return Table(
        title="",
        head=("time", "step", "checkpoints", "in all + 2 %", "left"),
        rows=tuple(
            (
                moment.name,
                "" if moment.step is None else str(moment.step),
                str(moment.checkpoints),
                format_size(moment.bytes),
                _left(disk, moment.bytes),
            )
            for moment in disk.moments
        ),
    )


def _left(disk: Disk, used: int) -> str:
    if disk.room_bytes is None:
        return "?"
    left = disk.room_bytes - used
    return format_size(left) if left >= 0 else f"-{format_size(-left)}"


def _room(disk: Disk) -> str:
    if disk.room_bytes is None:
        return "what can be written is not known"
    files = "" if disk.room_files is None else f", {disk.room_files} files"
    return f"{format_size(disk.room_bytes)}{files} can be written ({disk.limit})"
