"""An inventory as a page to read: lists, trees, and what each directory holds. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence

from gradience.page import Page, Table, Text
from gradience.storage.inventory.records import Cache, Entry, Inventory
from gradience.storage.inventory.selection import SORTS, listed, nearest
from gradience.units import format_size, plural

_DAY = 86400.0
_AGES = (
    (1.0, "today"),
    (7.0, "this week"),
    (30.0, "this month"),
    (90.0, "1 to 3 months ago"),
    (365.0, "3 to 12 months ago"),
    (float("inf"), "over a year ago"),
)
_RECOVERY = {
    "download": "can be downloaded again",
    "rebuild": "can be made again",
    "lost": "only copy",
    "unknown": "not known",
}
_WORDS = {
    "broken_link": ("broken link", "broken links"),
    "broken_store_link": ("broken link to a shared blob", "broken links to shared blobs"),
    "foreign_link": ("link out of the cache", "links out of the cache"),
    "stale_ref": ("stale ref", "stale refs"),
    "unreadable_ref": ("unreadable ref", "unreadable refs"),
    "orphan_blob": ("orphan blob", "orphan blobs"),
    "orphan_store_blob": ("orphan shared blob", "orphan shared blobs"),
    "no_manifest": ("shared blob without a list", "shared blobs without a list"),
    "incomplete": ("unfinished download or build", "unfinished downloads or builds"),
    "empty_snapshot": ("empty snapshot", "empty snapshots"),
    "no_snapshots": ("repo without snapshots", "repos without snapshots"),
    "truncated": ("truncated file", "truncated files"),
    "zero_filled": ("zero-filled file", "zero-filled files"),
    "temporary": ("abandoned temporary file", "abandoned temporary files"),
    "unknown_layout": ("unknown layout", "unknown layouts"),
    "unreadable": ("unreadable path", "unreadable paths"),
    "broken_checkpoint": ("broken checkpoint", "broken checkpoints"),
}
_ATIME = {
    "strict": "Last use is the newest access or write time of a file.",
    "daily": "Last use is the newest access or write time of a file, right to the day (relatime).",
    "never": "Last use is the write time: this mount keeps no access times (noatime).",
    "unknown": "Last use is the newest access or write time; how this mount keeps them is unknown.",
}
_SHARED = (
    "frees is what deleting that one thing would give back; less than its size where it shares "
    "files with others."
)


def by_entry(inventory: Inventory, *, limit: int | None = None, sort: str = "size") -> Page:
    """A row per repo, dataset, checkpoint..., over all caches.

    Parameters
    ----------
    limit : int, optional
        Show so many; the note says how many there are.
    sort : str
        A key of `selection.SORTS`.
    """
    entries = sorted((e for c in inventory.caches for e in listed(c)), key=SORTS[sort])
    shown = entries[:limit]
    return (
        Table(
            title=f"{_entries(len(entries))}, {format_size(inventory.physical_bytes)} on disk",
            head=("name", "kind", "what", "size", "frees", "files", "last used", "by", "damage"),
            rows=tuple(_row(e, inventory.made) for e in shown),
            left=frozenset({0, 1, 2, 6, 7, 8}),
            spare=("files", "what", "by", "kind"),
            note=_note(inventory, len(entries), len(shown)),
        ),
        *_damage(inventory),
        *_refused(inventory),
    )


def _entries(number: int) -> str:
    return plural(number, "entry", "entries")


def _row(entry: Entry, now: float, name: str | None = None) -> tuple[str, ...]:
    return (
        entry.name if name is None else name,
        entry.kind,
        entry.what,
        format_size(entry.physical_bytes),
        format_size(entry.frees_bytes),
        str(entry.files),
        "-" if entry.last_used is None else ago(max(0.0, now - entry.last_used)),
        "" if entry.last_used is None else entry.last_used_from,
        _worst(entry),
    )


def counted(code: str, number: int) -> str:
    """So many of one damage.

    Examples
    --------
    >>> counted("orphan_blob", 1), counted("stale_ref", 2)
    ('1 orphan blob', '2 stale refs')
    """
    return f"{number} {_WORDS[code][number != 1]}"


def ago(seconds: float) -> str:
    """How long ago, in one unit.

    Examples
    --------
    >>> ago(30), ago(7200), ago(86400 * 3), ago(86400 * 400)
    ('just now', '2 h ago', '3 d ago', '1.1 y ago')
    """
    if seconds < 60:
        return "just now"
    for unit, length, above in (("min", 60, 3600), ("h", 3600, _DAY * 2), ("d", _DAY, _DAY * 365)):
        if seconds < above:
            return f"{int(seconds // length)} {unit} ago"
    return f"{seconds / (_DAY * 365):.1f} y ago"


def _worst(entry: Entry) -> str:
    counts = Counter(damage.code for damage in entry.damage)
    return ", ".join(f"{code} x{n}" if n > 1 else code for code, n in counts.most_common()) or "-"


def _note(inventory: Inventory, total: int, shown: int) -> str:
    more = f"{total - shown} more: --all shows them. " if shown < total else ""
    return more + _SHARED + " " + _clock(inventory)


def _clock(inventory: Inventory) -> str:
    policies = dict.fromkeys(cache.atime for cache in inventory.caches)
    if len(policies) == 1:
        return _ATIME[next(iter(policies))]
    return "by names the clock of the last use; mounts here differ in how they keep access times."


def tree(inventory: Inventory, *, limit: int | None = None) -> Page:
    """Caches, entries and their parts, one below the other."""
    rows: list[tuple[str, ...]] = []
    for cache in inventory.caches:
        entries = listed(cache)
        rows.append(_cache_row(cache))
        for entry in entries[:limit]:
            rows += _branch(entry, inventory.made, depth=1)
        if limit is not None and len(entries) > limit:
            rows.append((f"  and {len(entries) - limit} more: --all", *[""] * 6))
    table = Table(
        title=f"{format_size(inventory.physical_bytes)} on disk",
        head=("name", "size", "frees", "files", "last used", "by", "damage"),
        rows=tuple(rows),
        left=frozenset({0, 4, 5, 6}),
        spare=("files", "by"),
        note=_SHARED + " " + _clock(inventory),
    )
    return table, *_damage(inventory), *_refused(inventory)


def _cache_row(cache: Cache) -> tuple[str, ...]:
    return (
        f"{cache.title}: {cache.root}",
        format_size(cache.physical_bytes),
        format_size(cache.frees_bytes),
        str(cache.files),
        "",
        "",
        "",
    )


def _branch(entry: Entry, now: float, *, depth: int) -> Iterator[tuple[str, ...]]:
    refs = f" ({', '.join(entry.refs)})" if entry.refs and entry.revision else ""
    label = entry.name[:12] if entry.revision == entry.name else entry.name
    row = _row(entry, now, f"{'  ' * depth}{label}{refs}")
    yield row[0], *row[3:]
    for part in entry.parts:
        yield from _branch(part, now, depth=depth + 1)


def by_kind(inventory: Inventory) -> Page:
    """A row per kind of cache."""
    rows = tuple(
        (
            cache.title,
            str(len(listed(cache))),
            format_size(cache.physical_bytes),
            format_size(cache.frees_bytes),
            str(cache.inodes),
            cache.root,
        )
        for cache in _largest_first(inventory)
    )
    table = Table(
        title=f"{plural(len(inventory.caches), 'cache')}, "
        f"{format_size(inventory.physical_bytes)} on disk",
        head=("kind", "entries", "size", "frees", "inodes", "where"),
        rows=rows,
        left=frozenset({0, 5}),
        spare=("inodes",),
    )
    return table, *_damage(inventory), *_refused(inventory)


def by_age(inventory: Inventory) -> Page:
    """A row per span of time since the last use."""
    groups: dict[str, list[Entry]] = {name: [] for name in (*(n for _, n in _AGES), "not known")}
    for cache in inventory.caches:
        for entry in listed(cache):
            groups[_span(entry, inventory.made)].append(entry)
    rows = tuple(
        (
            name,
            str(len(entries)),
            format_size(sum(e.frees_bytes for e in entries)),
            format_size(sum(e.frees_bytes for e in entries if e.recoverable != "lost")),
            ", ".join(e.name for e in sorted(entries, key=SORTS["frees"])[:3]),
        )
        for name, entries in groups.items()
        if entries
    )
    table = Table(
        title="By last use",
        head=("last used", "entries", "frees", "of it recoverable", "largest"),
        rows=rows,
        left=frozenset({0, 4}),
        note="frees adds up what each entry alone would give back; files that several of them "
        "share are not in it. " + _clock(inventory),
    )
    return (table,)


def _span(entry: Entry, now: float) -> str:
    if entry.last_used is None:
        return "not known"
    days = (now - entry.last_used) / _DAY
    return next(name for limit, name in _AGES if days < limit)


def usage(inventory: Inventory) -> Page:
    """What each cache directory holds, whether it can be had back, and what it takes."""
    rows = tuple(
        (
            cache.title,
            format_size(cache.physical_bytes),
            format_size(cache.shared_bytes),
            format_size(cache.frees_bytes),
            str(cache.inodes),
            _RECOVERY[cache.recoverable],
            cache.root,
            cache.chosen_by,
        )
        for cache in _largest_first(inventory)
    )
    table = Table(
        title=f"{format_size(inventory.physical_bytes)} on disk in {plural(len(rows), 'cache')} "
        f"({format_size(inventory.logical_bytes)} by file size)",
        head=("cache", "size", "shared", "frees", "inodes", "again?", "where", "chosen by"),
        rows=rows,
        left=frozenset({0, 5, 6, 7}),
        spare=("inodes", "shared", "chosen by", "again?"),
        note="size is blocks on disk, each inode once, directories and links included, as `du`. "
        "shared lies behind hard links that lead out of the directory: deleting it frees nothing.",
    )
    return table, *_explained(inventory), *_damage(inventory), *_refused(inventory)


def _explained(inventory: Inventory) -> Iterator[Text]:
    for cache in _largest_first(inventory):
        layout = f" Layout: {cache.layout}." if cache.layout else ""
        yield Text(text=f"{cache.title}", tone="title")
        yield Text(text=f"  {cache.holds}{layout}")
        yield Text(text=f"  {cache.how}", tone="dim")


def _largest_first(inventory: Inventory) -> Sequence[Cache]:
    return sorted(inventory.caches, key=lambda c: -c.physical_bytes)


def _damage(inventory: Inventory) -> Iterator[Text]:
    found = [d for c in inventory.caches for e in c.entries for d in e.damage]
    for code, number in Counter(d.code for d in found).most_common():
        taken = sum(d.physical_bytes for d in found if d.code == code)
        held = sum(1 for d in found if d.code == code and d.held)
        busy = f"; {held} in use by a running process" if held else ""
        size = f", {format_size(taken)}" if taken else ""
        yield Text(text=f"{counted(code, number)}{size}{busy} [{code}]", tone="warn")


def _refused(inventory: Inventory) -> Iterator[Text]:
    yield from _closed(inventory)
    for cache in inventory.caches:
        if not cache.unreadable_count:
            continue
        yield Text(
            text=f"{plural(cache.unreadable_count, 'path')} in {cache.root} could not be read: "
            "the numbers above are lower bounds",
            tone="warn",
        )
        for path in cache.unreadable[:3]:
            yield Text(text=f"  {path.path}: {path.reason}", tone="dim")


def _closed(inventory: Inventory) -> Iterator[Text]:
    if inventory.closed:
        number = plural(len(inventory.closed), "directory", "directories")
        yield Text(
            text=f"{number} could not be looked at: what lies there is not shown", tone="warn"
        )
    for one in inventory.closed[:3]:
        yield Text(text=f"  {one.path}: {one.reason}", tone="dim")


def no_match(inventory: Inventory, names: Sequence[str] = ()) -> Page:
    """What is shown where there are caches, and nothing in them was asked for."""
    known = [entry.name for cache in inventory.caches for entry in listed(cache)]
    close = [name for pattern in names if (name := nearest(pattern, known))]
    meant = f" Did you mean {' or '.join(dict.fromkeys(close))}?" if close else ""
    return (Text(text=f"Nothing matches: looked at {_entries(len(known))}.{meant}", tone="warn"),)


def nothing(inventory: Inventory) -> Page:
    """What is shown where no cache is there, or none can be seen."""
    looked = f"Looked at {', '.join(inventory.absent.values())}."
    return (
        *([] if inventory.closed else [Text(text="No cache is there yet.")]),
        *([Text(text=looked, tone="dim")] if inventory.absent else []),
        *_closed(inventory),
    )
