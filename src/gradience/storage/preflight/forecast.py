"""What a disk must hold over the course of a run, held against what it can: pure arithmetic.

Rotation follows the save, so a run that keeps n checkpoints has n + 1 of them for a moment. What is
on the disk grows from save to save, so the last save that fits is found by halving.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from gradience.storage.preflight.records import Disk, Moment, Schedule, Verdict, When, Write
from gradience.units import format_size

_MARGIN_PART = 50
_MOST_SAVES = 2**40  # where nothing says how many


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What can be written to a disk.

    Attributes
    ----------
    path, fs_type, limit : str
    bytes, files : int, optional
    note : str
    """

    path: str
    fs_type: str
    limit: str
    bytes: int | None
    files: int | None
    note: str = ""


def held(save: int, schedule: Schedule) -> int:
    """Checkpoints on the disk right after a save, before the oldest goes.

    Examples
    --------
    >>> [held(save, Schedule(keeps=2)) for save in (1, 2, 3, 4)], held(4, Schedule())
    ([1, 2, 3, 3], 4)
    """
    return save if schedule.keeps is None else min(save, schedule.keeps + 1)


def at_save(writes: Sequence[Write], schedule: Schedule, save: int) -> Moment:
    """What is on the disk right after a save; `save` 0 is the start of training."""
    step = None if schedule.every is None else schedule.every * save
    if step is not None and schedule.steps is not None:
        step = min(step, schedule.steps)
    share = step / schedule.steps if step is not None and schedule.steps else float(save > 0)
    count = held(save, schedule)
    return _moment(
        writes,
        {"before": 1.0, "start": 1.0, "run": share, "save": float(count)},
        name=f"save {save}" if save else "training starts",
        checkpoints=count,
        step=step,
    )


def at_end(writes: Sequence[Write], schedule: Schedule) -> Moment | None:
    """What is there in the end; None where the number of saves is not known."""
    if schedule.saves is None and schedule.keeps is None:
        return None
    kept = min(x for x in (schedule.saves, schedule.keeps) if x is not None)
    weights: dict[When, float] = {"before": 1.0, "start": 1.0, "run": 1.0, "save": float(kept)}
    return _moment(
        writes, {**weights, "end": 1.0}, name="end", checkpoints=kept, step=schedule.steps
    )


def moments(writes: Sequence[Write], schedule: Schedule) -> tuple[Moment, ...]:
    """The times at which the disk is fullest so far."""
    found = [_moment(writes, {"before": 1.0}, name="before training", checkpoints=0, step=0)]
    last = _last_shown(schedule)
    numbers = sorted({0, 1, 2, (schedule.keeps or 1) + 1, last})
    found += [at_save(writes, schedule, n) for n in numbers if n <= last]
    end = at_end(writes, schedule)
    found += [end] if end else []
    # A save that adds nothing to the one before says nothing.
    return (found[0], *(b for a, b in pairwise(found) if b.bytes != a.bytes or b.name == "end"))


def judge(writes: Sequence[Write], schedule: Schedule, room: Room) -> Disk:
    """Hold what a run writes to one disk against its room."""
    all_moments = moments(writes, schedule)
    peak = max(all_moments, key=lambda m: m.bytes)
    most_files = max(m.files for m in all_moments)
    saving = any(w.when == "save" for w in writes) and schedule.saves != 0
    unbounded = saving and schedule.saves is None and schedule.keeps is None
    last_save = _last_that_fits(writes, schedule, room) if saving else None
    verdict = _verdict(writes, schedule, room, all_moments, last_save if saving else 0)
    if verdict == "fits" and unbounded and room.bytes is not None:
        verdict = "until"
    until = last_save if verdict == "until" and last_save is not None else None
    short = 0 if room.bytes is None else max(0, peak.bytes - room.bytes)
    return Disk(
        path=room.path,
        fs_type=room.fs_type,
        limit=room.limit,
        verdict=verdict,
        writes=tuple(writes),
        moments=all_moments,
        peak=Moment(
            name=peak.name,
            bytes=peak.bytes,
            files=most_files,
            checkpoints=peak.checkpoints,
            step=peak.step,
        ),
        room_bytes=room.bytes,
        room_files=room.files,
        until_save=until,
        until_step=_step(until, schedule),
        short_bytes=short,
        note=room.note,
    )


def advice(disk: Disk, schedule: Schedule, *, adapter: bool) -> list[str]:
    """What to change so that a run fits on this disk."""
    if disk.verdict not in ("no", "until") or disk.room_bytes is None:
        return []
    said = []
    room = Room(
        path=disk.path,
        fs_type=disk.fs_type,
        limit=disk.limit,
        bytes=disk.room_bytes,
        files=disk.room_files,
    )
    limit = _largest_limit(disk.writes, schedule, room)
    if limit is not None:
        said.append(
            f"save_total_limit={limit} makes it fit on {disk.path}: {limit + 1} checkpoints at "
            "once."
        )
    lean = [w for w in disk.writes if not w.optional]
    if len(lean) < len(disk.writes):
        if judge(lean, schedule, room).verdict == "fits":
            said.append(
                "save_only_model=True makes it fit; such a checkpoint resumes without its "
                "optimizer."
            )
        elif (smaller := _largest_limit(lean, schedule, room)) is not None and limit is None:
            said.append(
                f"save_only_model=True with save_total_limit={smaller} makes it fit; such a "
                "checkpoint resumes without its optimizer."
            )
    if not adapter and any(w.when == "save" for w in disk.writes):
        said.append("A LoRA adapter (--adapter-rank 16) takes a small part of these checkpoints.")
    return said


def _verdict(
    writes: Sequence[Write],
    schedule: Schedule,
    room: Room,
    found: Sequence[Moment],
    last_save: int | None,
) -> Verdict:
    if not all(_fits(m, room) for m in found[:2]) or (
        last_save == 0 and schedule.saves != 0 and any(w.when == "save" for w in writes)
    ):
        return "no"
    if not all(_fits(m, room) for m in found):
        return "until" if any(w.when == "save" for w in writes) and schedule.saves != 0 else "no"
    if room.bytes is None or any(w.bytes is None for w in writes):
        return "unknown"
    return "fits"


def _fits(moment: Moment, room: Room) -> bool:
    return (room.bytes is None or moment.bytes <= room.bytes) and (
        room.files is None or moment.files <= room.files
    )


def _last_that_fits(writes: Sequence[Write], schedule: Schedule, room: Room) -> int | None:
    """The last save that fits, by halving; None where all do and there is no last one."""
    low, high = 0, _MOST_SAVES if schedule.saves is None else schedule.saves
    if _fits(at_save(writes, schedule, high), room):
        return None if schedule.saves is None else high
    while low + 1 < high:
        middle = (low + high) // 2
        if _fits(at_save(writes, schedule, middle), room):
            low = middle
        else:
            high = middle
    return low


def _largest_limit(writes: Sequence[Write], schedule: Schedule, room: Room) -> int | None:
    """The largest `save_total_limit` below the present one with which everything fits."""
    now = schedule.keeps if schedule.keeps is not None else (schedule.saves or 12)
    for limit in range(min(now - 1, 10), 0, -1):
        kept = Schedule(
            steps=schedule.steps, every=schedule.every, saves=schedule.saves, keeps=limit
        )
        if all(_fits(m, room) for m in moments(writes, kept)):
            return limit
    return None


def _last_shown(schedule: Schedule) -> int:
    if schedule.saves is not None:
        return schedule.saves
    return (schedule.keeps or 2) + 1


def _step(save: int | None, schedule: Schedule) -> int | None:
    if save is None or schedule.every is None:
        return None
    step = save * schedule.every
    return step if schedule.steps is None else min(step, schedule.steps)


def _moment(
    writes: Sequence[Write],
    weights: dict[When, float],
    *,
    name: str,
    checkpoints: int,
    step: int | None,
) -> Moment:
    size = sum((w.bytes or 0) * weights.get(w.when, 0.0) for w in writes)
    files = sum(w.files * weights.get(w.when, 0.0) for w in writes)
    return Moment(
        name=name,
        bytes=round(size) + round(size) // _MARGIN_PART,
        files=round(files),
        checkpoints=checkpoints,
        step=step,
    )


def sentence(disk: Disk, schedule: Schedule) -> str:
    """What is said of one disk."""
    room = "not known" if disk.room_bytes is None else format_size(disk.room_bytes)
    if disk.verdict == "until" and disk.until_save is not None:
        step = "" if disk.until_step is None else f"step {disk.until_step}, "
        of = "" if schedule.saves is None else f" of {schedule.saves}"
        return f"{disk.path}: fits until {step}save {disk.until_save}{of}; {room} can be written."
    words = {"fits": "fits", "no": "does not fit", "unknown": "not known whether it fits"}
    return f"{disk.path}: {words.get(disk.verdict, disk.verdict)}; {room} can be written."
