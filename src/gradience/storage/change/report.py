"""A plan and a receipt as pages to read. Pure."""

from collections import defaultdict
from collections.abc import Iterable

from gradience.page import Page, Table, Text
from gradience.storage.change.records import LIFTABLE, Kept, Outcome, Plan, Receipt
from gradience.storage.inventory.report import ago
from gradience.units import format_seconds, format_size

_FEW = 40
_DIFFERS = 0.02
_NOISE = 64 * 2**20


def plan_page(plan: Plan, *, limit: int | None = _FEW) -> Page:
    """What is to be done, why, what it would free, and what stays."""
    if not plan.items:
        return (Text(text="Nothing to do.", tone="good"), *_kept(plan, limit), *_notes(plan.notes))
    sizes = _sizes(plan)
    order = sorted(range(len(plan.items)), key=lambda i: (-sizes[i], plan.items[i].name))
    rows = []
    for index in order[:limit]:
        item = plan.items[index]
        used = "-" if item.last_used is None else ago(max(0.0, plan.made - item.last_used))
        why = "; ".join((*item.reasons, *(f"BUT {warning}" for warning in item.warnings)))
        rows.append((item.name, item.kind, item.what, format_size(sizes[index]), used, why))
    hidden = len(plan.items) - len(rows)
    table = Table(
        title=f"{_doing(plan)} {_count(len(plan.items), 'thing')}, "
        f"{_count(len(plan.actions), 'name')}: would free {format_size(plan.frees_bytes)}",
        head=("name", "kind", "what", "frees", "last used", "why"),
        rows=tuple(rows),
        left=frozenset({0, 1, 2, 4, 5}),
        note=f"{hidden} more: --all shows them." if hidden else "",
    )
    return (table, *_again(plan, sizes), *_kept(plan, limit), *_notes(plan.notes))


def _doing(plan: Plan) -> str:
    verbs = {action.verb for action in plan.actions}
    if "trash" in verbs:
        return "Move to the trash (which frees no byte, and no quota, until it is emptied):"
    return "Delete" if verbs <= {"delete", "prune"} else plan.title.capitalize()


def _sizes(plan: Plan) -> dict[int, int]:
    sizes: dict[int, int] = defaultdict(int)
    for action in plan.actions:
        sizes[action.item] += action.frees_bytes
    return sizes


def _again(plan: Plan, sizes: dict[int, int]) -> Iterable[Text]:
    """How to have things back, once per way."""
    ways: dict[str, int] = defaultdict(int)
    for index, item in enumerate(plan.items):
        if item.how:
            ways[item.how] += sizes[index]
    for way, size in sorted(ways.items(), key=lambda pair: -pair[1]):
        yield Text(text=f"{format_size(size)}: {way}", tone="dim")


def _kept(plan: Plan, limit: int | None) -> Iterable[Text | Table]:
    if not plan.kept:
        return
    by_code: dict[str, list[Kept]] = defaultdict(list)
    for kept in plan.kept:
        by_code[kept.code].append(kept)
    shown = plan.kept if limit is None else plan.kept[: limit // 4]
    rows = tuple((k.name, k.kind, format_size(k.bytes), k.code, k.why) for k in shown)
    hidden = len(plan.kept) - len(rows)
    lifted = any(code in LIFTABLE for code in by_code)
    yield Table(
        title=f"{_count(len(plan.kept), 'thing')} asked for and kept",
        head=("name", "kind", "would free", "reason", "why"),
        rows=rows,
        left=frozenset({0, 1, 3, 4}),
        note=" ".join(
            part
            for part in (
                f"{hidden} more: --all shows them." if hidden else "",
                "--force lifts all but in_use and downloads under way." if lifted else "",
            )
            if part
        ),
    )


def receipt_page(receipt: Receipt) -> Page:
    """What was done, measured."""
    done = [o for o in receipt.outcomes if o.state == "done"]
    lines: list[Text | Table] = [
        Text(
            text=f"Freed {format_size(receipt.freed)}; {_count(len(done), 'thing')} of "
            f"{len(receipt.outcomes)} as planned, in {format_seconds(receipt.seconds)}.",
            tone="good" if receipt.complete else "warn",
        )
    ]
    lines += [Text(text=f"{o.name}: {_state(o)}", tone="warn") for o in _stayed(receipt)[:_FEW]]
    lines += _disks(receipt)
    lines += _notes(receipt.notes)
    for place in receipt.trash:
        lines.append(
            Text(
                text=f"In the trash, {place}: nothing is free until it is emptied. "
                f"`gradience cache undo {receipt.plan}` brings it back, "
                f"`gradience cache undo --empty {receipt.plan}` removes it."
            )
        )
    return tuple(lines)


def _stayed(receipt: Receipt) -> list[Outcome]:
    return [outcome for outcome in receipt.outcomes if outcome.state != "done"]


def _state(outcome: Outcome) -> str:
    words = {"skipped": "not all of it went", "failed": "failed", "undone": "put back"}
    more = len(outcome.reasons) - 3
    reasons = "; ".join(outcome.reasons[:3]) + (f"; and {more} more" if more > 0 else "")
    return f"{words.get(outcome.state, outcome.state)}: {reasons}"


def _disks(receipt: Receipt) -> Iterable[Text]:
    """Where the disk itself saw another difference: snapshots, clones, other writers."""
    for disk in receipt.disks:
        gained = disk.free_after - disk.free_before
        off = abs(gained - receipt.freed)
        if len(receipt.disks) == 1 and off > max(_NOISE, _DIFFERS * receipt.freed):
            yield Text(
                text=f"The disk of {disk.path} has {format_size(gained)} more free than before: "
                "others write to it, a snapshot of the file system keeps the bytes, or a process "
                "of another machine has them open.",
                tone="warn",
            )


def _notes(notes: Iterable[str]) -> Iterable[Text]:
    for note in notes:
        yield Text(text=note, tone="dim")


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
