"""A plan and a receipt as pages to read. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from gradience.page import Page, Table, Text
from gradience.storage.change.records import LIFTABLE, Kept, Outcome, Plan, Receipt
from gradience.storage.inventory.report import ago
from gradience.units import format_seconds, format_size, plural

_FEW = 40
_ALIKE = 5  # rows of one sort, above which they share one
_NAMED = 3
_HEAD = ("name", "kind", "what", "frees", "last used", "why")
_KINDS_OF_NAMES = frozenset({"hub", "datasets", "project", "dataset_downloads"})
"""Kinds whose things a user knows by name."""
_DIFFERS = 0.02
_NOISE = 64 * 2**20


def plan_page(plan: Plan, *, limit: int | None = _FEW) -> Page:
    """What is to be done, why, what it would free, and what stays."""
    if not plan.items:
        return (Text(text="Nothing to do.", tone="good"), *_kept(plan, limit), *_notes(plan.notes))
    sizes = _sizes(plan)
    rows = [_row(plan, group, sizes) for group in _groups(plan, sizes, limit)]
    hidden = len(rows) - len(rows[:limit])
    columns = [
        at for at in range(len(_HEAD)) if at not in (3, 4) or {row[at] for row in rows} - {"-"}
    ]
    table = Table(
        title=_title(plan),
        head=tuple(_HEAD[at] for at in columns),
        rows=tuple(tuple(row[at] for at in columns) for row in rows[:limit]),
        left=frozenset(number for number, at in enumerate(columns) if at != 3),
        note=f"{hidden} more: --all shows them." if hidden else "",
    )
    return (table, *_again(plan, sizes), *_kept(plan, limit), *_notes(plan.notes))


def _title(plan: Plan) -> str:
    if plan.title in ("move", "merge"):
        return f"{_doing(plan)} {plan.items[0].what}"
    size = format_size(plan.frees_bytes)
    things = f"{plural(len(plan.items), 'thing')}, {plural(len(plan.actions), 'name')}"
    if _is_trash(plan):
        return f"Move {things} to the trash: {size}, which stay taken until it is emptied"
    frees = f": would free {size}" if plan.frees_bytes else ""
    return f"{_doing(plan)} {things}{frees}"


def _groups(plan: Plan, sizes: dict[int, int], limit: int | None) -> list[list[int]]:
    """Indexes of the items of each row, the largest first: small things of a sort share one.

    The code that a compiler made lies in hundreds of directories whose names say nothing.
    """
    sorts: dict[tuple[str, str, tuple[str, ...]], list[int]] = defaultdict(list)
    for index in sorted(sizes, key=lambda index: (-sizes[index], plan.items[index].name)):
        item = plan.items[index]
        sorts[item.kind, item.what, item.warnings].append(index)
    groups: list[list[int]] = []
    for (kind, _, _), alike in sorts.items():
        shared = limit is not None and len(alike) > _ALIKE and kind not in _KINDS_OF_NAMES
        groups += [alike] if shared else [[index] for index in alike]
    return sorted(groups, key=lambda group: -sum(sizes[index] for index in group))


def _row(plan: Plan, group: Sequence[int], sizes: dict[int, int]) -> tuple[str, ...]:
    items = [plan.items[index] for index in group]
    first = items[0]
    name = first.name
    if len(items) > 1:
        name = f"{', '.join(item.name for item in items[:_NAMED])} and {len(items) - _NAMED} more"
    used = [item.last_used for item in items if item.last_used is not None]
    why = "; ".join((*first.reasons, *(f"BUT {warning}" for warning in first.warnings)))
    return (
        name,
        first.kind,
        first.what,
        format_size(sum(sizes[index] for index in group)) if plan.frees_bytes else "-",
        ago(max(0.0, plan.made - max(used))) if used else "-",
        why,
    )


def _is_trash(plan: Plan) -> bool:
    return any(action.verb == "trash" for action in plan.actions)


def _doing(plan: Plan) -> str:
    verbs = {action.verb for action in plan.actions}
    return "Delete" if verbs <= {"delete", "prune"} else plan.title.capitalize()


def _sizes(plan: Plan) -> dict[int, int]:
    sizes = dict.fromkeys(range(len(plan.items)), 0)
    for action in plan.actions:
        sizes[action.item] += action.frees_bytes
    return sizes


def _again(plan: Plan, sizes: dict[int, int]) -> Iterable[Text]:
    """How to have things back, once per way."""
    ways: dict[str, int] = defaultdict(int)
    for index, item in enumerate(plan.items):
        if item.how and sizes[index]:
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
        title=f"{plural(len(plan.kept), 'thing')} asked for and kept",
        head=("name", "kind", "would free", "reason", "why"),
        rows=rows,
        left=frozenset({0, 1, 3, 4}),
        note=" ".join(
            part
            for part in (
                f"{hidden} more: --all shows them." if hidden else "",
                "--force lifts all but in_use and downloads under way." if lifted else "",
                "--min-age says what is young." if "in_flight" in by_code else "",
            )
            if part
        ),
    )


def receipt_page(receipt: Receipt) -> Page:
    """What was done, measured."""
    done = [o for o in receipt.outcomes if o.state == "done"]
    counts = receipt.freed or (receipt.planned and not receipt.trash)
    freed = f"Freed {format_size(receipt.freed)}; " if counts else ""
    lines: list[Text | Table] = [
        Text(
            text=f"{freed}{plural(len(done), 'thing')} of {len(receipt.outcomes)} as planned, in "
            f"{format_seconds(receipt.seconds)}.",
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
            size = f"{format_size(abs(gained))} {'less' if gained < 0 else 'more'}"
            yield Text(
                text=f"The disk of {disk.path} has {size} free than before: "
                "others write to it, a snapshot of the file system keeps the bytes, or a process "
                "of another machine has them open.",
                tone="warn",
            )


def _notes(notes: Iterable[str]) -> Iterable[Text]:
    for note in notes:
        yield Text(text=note, tone="dim")
