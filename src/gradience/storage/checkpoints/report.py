"""Checkpoints as a page: record to text, pure."""

from collections.abc import Collection, Iterable
from pathlib import PurePath
from shlex import quote

from gradience.page import Page, Table, Text, Tone
from gradience.storage.checkpoints.names import aside
from gradience.storage.checkpoints.prune import stays
from gradience.storage.checkpoints.records import Checkpoint, Listing, Removal, Run
from gradience.units import format_seconds, format_size

_RESUMES = {"exactly": "yes", "partly": "partly", "no": "no"}


def listing(found: Listing, *, now: float) -> Page:
    """A table for each run, and what a resume from it would do."""
    if not found.runs:
        return nothing()
    return tuple(part for run in found.runs for part in _run(run, now))


def nothing() -> Page:
    """What is said where no checkpoint was found."""
    return (Text(text="No checkpoint-<step> directory was found here.", tone="dim"),)


def verification(found: Listing, *, now: float) -> Page:
    """What is broken and why, then what a resume would do."""
    parts: list[Text | Table] = []
    for run in found.runs:
        bad = [c for c in run.checkpoints if not c.complete]
        good = len(run.checkpoints) - len(bad)
        tone: Tone = "bad" if bad else "good"
        broken = f", {len(bad)} broken" if bad else ""
        parts.append(Text(text=f"{run.path}: {good} complete{broken}", tone=tone))
        for checkpoint in bad:
            name = PurePath(checkpoint.path).name
            parts += [Text(text=f"  {name}: {why}", tone="bad") for why in checkpoint.problems]
        parts += [Text(text=f"  {name}", tone="dim") for name in _partly(run)]
        parts += _advice(run, now)
    return tuple(parts) or nothing()


def removals(planned: Iterable[Removal], kept: Iterable[str], *, heading: str) -> Page:
    """What would be removed, or was, and why."""
    rows = [
        (removal.path, format_size(removal.bytes), _what_happened(removal)) for removal in planned
    ]
    parts: list[Text | Table] = []
    if rows:
        head = ("path", "size", "why")
        parts.append(Table(title=heading, head=head, rows=tuple(rows), left=frozenset({0, 2})))
    else:
        parts.append(Text(text="Nothing to remove."))
    parts += [Text(text=sentence, tone="dim") for sentence in kept]
    return tuple(parts)


def _what_happened(removal: Removal) -> str:
    return f"not removed: {removal.problem}" if removal.problem else removal.why


def _run(run: Run, now: float) -> list[Text | Table]:
    rows = tuple(_row(checkpoint, now) for checkpoint in run.checkpoints)
    parts: list[Text | Table] = [
        Table(
            title=run.path,
            head=("checkpoint", "step", "size", "files", "age", "resumes", "notes"),
            rows=rows,
            left=frozenset({0, 5, 6}),
            spare=("files", "age"),
        )
    ]
    for left in run.leftovers:
        text = f"{left.path}: {left.what}, {format_size(left.bytes)}"
        parts.append(Text(text=text, tone="dim"))
    return [*parts, *_advice(run, now)]


def _row(checkpoint: Checkpoint, now: float) -> tuple[str, ...]:
    notes = [*checkpoint.problems]
    if checkpoint.anew:
        notes.append(f"{' and '.join(checkpoint.anew)} would start anew")
    if checkpoint.best:
        notes.insert(0, "best")
    return (
        PurePath(checkpoint.path).name,
        str(checkpoint.step),
        format_size(checkpoint.bytes),
        str(checkpoint.files),
        format_seconds(max(0.0, now - checkpoint.written)),
        _RESUMES[checkpoint.resumes],
        "; ".join(notes),
    )


def _partly(run: Run) -> list[str]:
    return [
        f"{PurePath(c.path).name}: {' and '.join(c.anew)} would start anew"
        for c in run.checkpoints
        if c.anew
    ]


def _advice(run: Run, now: float) -> list[Text | Table]:
    newest, traps = run.newest, run.traps
    if run.in_use:
        return [Text(text="A run that is going on saves here.", tone="dim")]
    if traps:
        name = PurePath(traps[0].path).name
        instead = f"{PurePath(newest.path).name} is complete" if newest else "there is no other"
        text = f"resume_from_checkpoint=True would take {name} and die; {instead}."
        taken = {PurePath(left.path).name for left in run.leftovers}
        return [Text(text=text, tone="warn"), *(_aside(trap, taken, now) for trap in traps)]
    if newest is None:
        return []
    name = PurePath(newest.path).name
    return [Text(text=f"resume_from_checkpoint=True takes {name}.", tone="good")]


def _aside(trap: Checkpoint, taken: Collection[str], now: float) -> Text:
    """The command that takes a broken checkpoint out of the way of a resume."""
    path = PurePath(trap.path)
    if trap.held:
        return Text(text=f"{path.name} may be whole soon: {trap.held}.", tone="dim")
    target = path.with_name(aside(path.name, taken))
    unless = "  # unless its save is still going on" if stays(trap, now) else ""
    return Text(text=f"$ mv {quote(trap.path)} {quote(str(target))}{unless}")
