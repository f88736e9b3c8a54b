"""What a watch shows: a page for a terminal, lines for everything else, a summary at the end."""

from gradience.page import Page, Table, Text
from gradience.storage.watch.records import CacheView, MountView, Tick
from gradience.units import format_seconds, format_size

_STEADY = "steady"
_SOON_SECONDS = 600.0
_DAYS = 3


def rate(trend: str, bytes_per_second: float | None) -> str:
    """A rate for reading.

    Examples
    --------
    >>> rate("growing", 12_000_000.0), rate("steady", 3.0), rate("unknown", None)
    ('+12.0 MB/s', 'steady', '-')
    """
    if bytes_per_second is None:
        return "-"
    if trend == _STEADY:
        return _STEADY
    sign = "+" if bytes_per_second > 0 else ""
    return f"{sign}{format_size(round(bytes_per_second))}/s"


def page(tick: Tick) -> Page:
    """Tables of the mounts and of the caches, and a warning for what fills within ten minutes."""
    mounts = Table(
        title="Mounts",
        head=("mount", "type", "free", "free inodes", "growth", "full in", "limit"),
        rows=tuple(_mount_row(m) for m in tick.mounts),
        left=frozenset({0, 1, 6}),
    )
    caches = Table(
        title="Caches",
        head=("cache", "size", "files", "unfinished", "growth", "directory"),
        rows=tuple(_cache_row(c) for c in tick.caches),
        left=frozenset({0, 5}),
    )
    return (Text(text=_heading(tick), tone="dim"), mounts, caches, *_warnings(tick))


def lines(tick: Tick) -> tuple[str, ...]:
    """One line for each mount and each cache, for logs and pipes."""
    time = tick.at.partition("T")[2][:8] or tick.at
    mounts = (
        f"{time} mount {m.path} free {_size(m.free_bytes)} {rate(m.trend, m.bytes_per_second)}"
        f"{_full_in(m)} ({m.limit})"
        for m in tick.mounts
    )
    caches = (
        f"{time} cache {c.name} {_size(c.bytes)} {rate(c.trend, c.bytes_per_second)} {c.path}"
        for c in tick.caches
        if c.state != "absent"
    )
    return (*mounts, *caches)


def summary(first: Tick, last: Tick) -> tuple[str, ...]:
    """What changed between the first look and the last."""
    span = format_seconds(last.elapsed_seconds)
    before = {c.path: c.bytes or 0 for c in first.caches}
    grown = (
        f"{c.name} {_signed((c.bytes or 0) - before.get(c.path, 0))}"
        for c in last.caches
        if (c.bytes or 0) != before.get(c.path, 0)
    )
    changed = ", ".join(grown) or "no cache changed"
    free = ", ".join(f"{m.path} {_size(m.free_bytes)}" for m in last.mounts)
    return (f"Watched for {span}: {changed}.", f"Free now: {free}.")


def _heading(tick: Tick) -> str:
    return f"{tick.at}, watching for {format_seconds(tick.elapsed_seconds)}"


def _mount_row(mount: MountView) -> tuple[str, ...]:
    return (
        mount.path,
        mount.fs_type,
        _size(mount.free_bytes),
        "-" if mount.free_inodes is None else str(mount.free_inodes),
        rate(mount.trend, mount.bytes_per_second),
        _duration(mount.seconds_to_full),
        mount.limit,
    )


def _cache_row(cache: CacheView) -> tuple[str, ...]:
    if cache.bytes is None:
        state = "counting..." if cache.state == "counting" else "not there"
        return (cache.name, state, "-", "-", "-", cache.path)
    return (
        cache.name,
        _size(cache.bytes),
        str(cache.files),
        _size(cache.unfinished_bytes) if cache.unfinished_bytes else "-",
        rate(cache.trend, cache.bytes_per_second),
        cache.path,
    )


def _warnings(tick: Tick) -> tuple[Text, ...]:
    found = []
    for mount in tick.mounts:
        if mount.seconds_to_full is not None and mount.seconds_to_full < _SOON_SECONDS:
            found.append(f"{mount.path} is full in {_duration(mount.seconds_to_full)}.")
        left = mount.seconds_to_no_inodes
        if left is not None and left < _SOON_SECONDS:
            found.append(f"{mount.path} is out of inodes in {_duration(left)}.")
    return tuple(Text(text=text, tone="bad") for text in found)


def _full_in(mount: MountView) -> str:
    full, inodes = mount.seconds_to_full, mount.seconds_to_no_inodes
    bytes_part = "" if full is None else f" full in {_duration(full)}"
    return bytes_part + ("" if inodes is None else f" out of inodes in {_duration(inodes)}")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    days = seconds / 86400
    return f"{days:.0f} days" if days >= _DAYS else format_seconds(seconds)


def _size(size: int | None) -> str:
    return "?" if size is None else format_size(size)


def _signed(size: int) -> str:
    return f"{'+' if size > 0 else ''}{format_size(size)}"
