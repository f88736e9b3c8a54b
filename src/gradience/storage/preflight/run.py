"""The preflight: look at model, data and disks, and hold the one against the other.

Places that lie on one device are one disk. Its room is the tightest of what is known there; then
the disk itself is asked for the peak (`fallocate`, given back at once), which finds a quota that
nothing reports.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gradience import system
from gradience.errors import StorageError
from gradience.storage.environment.readers import Host, resolve
from gradience.storage.preflight import forecast
from gradience.storage.preflight.dataset import read_dataset
from gradience.storage.preflight.forecast import Room
from gradience.storage.preflight.model import read_model
from gradience.storage.preflight.records import (
    Cleaning,
    Disk,
    Preflight,
    Schedule,
    Verdict,
    Write,
)
from gradience.storage.preflight.settings import RunSettings, schedule
from gradience.storage.preflight.writes import assumptions, writes
from gradience.storage.room.headroom import headroom
from gradience.storage.room.probe import Verdict as Probed
from gradience.storage.room.probe import probe
from gradience.system.base import existing_parent
from gradience.units import format_size

Planner = Callable[[Path, int], Cleaning]
"""What a cleaning of the disk that holds a path would give, and by which command; gets the bytes
that must be free there."""

_ORDER: dict[Verdict, int] = {"fits": 0, "unknown": 1, "until": 2, "no": 3}
_COUNT_SECONDS = 10.0


def preflight(
    settings: RunSettings,
    *,
    environ: Mapping[str, str],
    home: Path,
    host: Host,
    online: bool = True,
    planner: Planner | None = None,
) -> Preflight:
    """Say whether a run fits, and where not.

    Parameters
    ----------
    online : bool
        Whether the Hub may be asked for sizes and shapes; HF_HUB_OFFLINE=1 forbids it too.
    planner : Planner, optional
        Plans a cleaning where something is missing.

    Raises
    ------
    UsageError
        If model or dataset are neither here nor can be Hub ids.
    StorageError
        If a disk cannot be looked at.
    """
    places = _places(settings, environ, home, host)
    online = online and environ.get("HF_HUB_OFFLINE", "").upper() not in ("1", "ON", "YES", "TRUE")
    model = (
        read_model(settings.model, cache=places["hub"], online=online, cwd=host.cwd)
        if settings.model
        else None
    )
    dataset = (
        read_dataset(
            settings.dataset,
            cache=places["hub"],
            arrow_cache=places["datasets"],
            online=online,
            cwd=host.cwd,
        )
        if settings.dataset
        else None
    )
    times = schedule(settings, dataset.examples if dataset else None)
    found, unknown = writes(settings, model, dataset, times, places)
    if times.saves is None and times.keeps is None:
        unknown += ("how often the run saves is not known: give --steps, or --batch-size",)
    if not found and not unknown:
        unknown += ("nothing is known of what the run writes",)
    return judge(
        found,
        times,
        environ=environ,
        home=home,
        unknown=unknown,
        assumed=assumptions(settings, found),
        adapter=settings.adapter_rank is not None,
        planner=planner,
    )


def judge(
    found: Sequence[Write],
    times: Schedule,
    *,
    environ: Mapping[str, str],
    home: Path,
    unknown: Sequence[str] = (),
    assumed: Sequence[str] = (),
    adapter: bool = True,
    planner: Planner | None = None,
) -> Preflight:
    """Hold what is known of a run against the disks it writes to.

    Raises
    ------
    StorageError
        If a disk cannot be looked at.
    """
    disks = [_disk(part, times, environ, home) for part in _by_device(found)]
    disks.sort(key=lambda d: (-_ORDER[d.verdict], -d.peak.bytes))
    verdict: Verdict = max((d.verdict for d in disks), key=_ORDER.__getitem__, default="fits")
    if verdict == "fits" and unknown:
        verdict = "unknown"
    stops = [d for d in disks if d.verdict == "until"]
    first = (
        min(stops, key=lambda d: d.until_save or 0, default=None) if verdict == "until" else None
    )
    advice = [line for d in disks for line in forecast.advice(d, times, adapter=adapter)]
    advice += [line for d in disks if d.short_bytes for line in _elsewhere(d)]
    return Preflight(
        verdict=verdict,
        schedule=times,
        disks=tuple(disks),
        until_step=first.until_step if first else None,
        until_save=first.until_save if first else None,
        unknown=tuple(dict.fromkeys(unknown)),
        assumed=tuple(assumed),
        advice=tuple(dict.fromkeys(advice)),
        cleaning=tuple(
            planner(Path(d.writes[0].path), d.peak.bytes)
            for d in disks
            if d.short_bytes and planner
        ),
    )


def _places(
    settings: RunSettings, environ: Mapping[str, str], home: Path, host: Host
) -> dict[str, Path]:
    resolved = resolve(environ, home, host=host)
    places = {name: resolved[name].path for name in ("hub", "datasets", "inductor")}
    places["output"] = host.cwd / Path(settings.output_dir).expanduser()
    places["cwd"] = host.cwd
    return places


def _by_device(found: Iterable[Write]) -> list[list[Write]]:
    devices: dict[int, list[Write]] = defaultdict(list)
    for write in found:
        devices[existing_parent(Path(write.path)).stat().st_dev].append(write)
    return list(devices.values())


def _disk(part: Sequence[Write], times: Schedule, environ: Mapping[str, str], home: Path) -> Disk:
    rooms = [
        (headroom(path, environ=environ, home=home, count_seconds=_COUNT_SECONDS), path)
        for path in dict.fromkeys(Path(w.path) for w in part)
    ]
    tightest, path = min(rooms, key=lambda r: float("inf") if r[0].bytes is None else r[0].bytes)
    inodes = min((r.inodes for r, _ in rooms if r.inodes is not None), default=None)
    limit = tightest.binding
    room = Room(
        path=str(tightest.mount.path),
        fs_type=tightest.mount.fs_type,
        limit=f"{limit.source}, {limit.confidence}" if limit else "nothing says so",
        bytes=tightest.bytes,
        files=inodes,
    )
    return forecast.judge(part, times, _asked(part, times, room, path))


def _asked(part: Sequence[Write], times: Schedule, room: Room, path: Path) -> Room:
    """The room by the disk's own answer, where it refuses what its figures promise."""
    sizes = sorted({m.bytes for m in forecast.moments(part, times)}, reverse=True)
    refused: int | None = None
    for size in sizes:
        if room.bytes is not None and size > room.bytes:
            continue
        try:
            answer = probe(path, size)
        except StorageError:
            return room  # the limits say so already
        if answer.verdict is Probed.REFUSED:
            refused = size
            continue
        if refused is None:
            proven = answer.verdict is Probed.FITS and size == sizes[0]
            note = "The disk reserved the peak and released it." if proven else ""
            return replace(room, note=note)
        break
    if refused is None:
        return room
    return replace(
        room,
        bytes=_between(path, size if size < refused else 0, refused),
        limit="the disk's own answer, measured",
        note=f"The disk refuses {format_size(refused)}, whatever its figures say: a quota.",
    )


def _between(path: Path, low: int, high: int) -> int:
    """The largest size that the disk takes, to a hundredth: a few questions, each given back."""
    while high - low > max(high // 100, 65536):
        middle = (low + high) // 2
        if probe(path, middle).verdict is Probed.REFUSED:
            high = middle
        else:
            low = middle
    return low


def _elsewhere(disk: Disk) -> list[str]:
    """The mount with most room, if the run would fit there."""
    best = max(
        (
            m
            for m in system.mounts()
            if not m.read_only
            and not m.in_memory
            and os.access(m.path, os.W_OK)
            and str(m.path) != disk.path
        ),
        key=lambda m: m.free_bytes or 0,
        default=None,
    )
    if best is None or (best.free_bytes or 0) < disk.peak.bytes * 5 // 4:
        return []
    return [
        f"{best.path} ({best.fs_type}) reports {format_size(best.free_bytes or 0)} free: another "
        "--output-dir, or `gradience env --root` for the caches, puts the bytes there."
    ]
