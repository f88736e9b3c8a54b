"""`gradience cache watch`: look, print, wait, look again."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gradience.cli.whole import Whole
from gradience.errors import UsageError
from gradience.units import parse_duration

if TYPE_CHECKING:
    from gradience.cli.looks import Forms
    from gradience.storage.watch.records import Tick
    from gradience.storage.watch.run import Watch

_SHORTEST_SECONDS = 0.05
_SOON_SECONDS = 1.0


@click.command(short_help="Watch free space and growth, live.")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[DIR]...")
@click.option(
    "--interval",
    default="2s",
    show_default=True,
    metavar="TIME",
    help="Time between two looks, such as 0.5s, 10s, 1m.",
)
@click.option(
    "--window",
    default="60s",
    show_default=True,
    metavar="TIME",
    help="How far back the growth is measured.",
)
@click.option("--count", type=Whole(min=1), metavar="N", help="Stop after N looks.")
@click.option("--once", is_flag=True, help="Look once; the same as --count 1.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, one line a look.")
def watch(
    *,
    paths: tuple[Path, ...],
    interval: str,
    window: str,
    count: int | None,
    once: bool,
    as_json: bool,
) -> int:
    """Watch free space and the growth of caches, with the time until a disk is full.

    DIR is a directory to watch, such as the output directory of a run; without any, the caches of
    this environment are watched. Free space is what can really be written: quotas and the limits
    of the platform count. Ctrl-C ends with a summary.

    \b
    gradience cache watch
    gradience cache watch runs/my-run --interval 10s
    gradience cache watch --json --count 30 > growth.jsonl
    gradience cache watch --once
    """
    from gradience.cli.looks import shown  # noqa: PLC0415 - `--help` need not pay

    step, back = _seconds("--interval", interval), _seconds("--window", window)
    looks = 1 if once else count
    first = last = None
    page_once = looks == 1 and sys.stdout.isatty()
    try:
        watched = _watched(paths, back)
        with shown(_forms(), as_json=as_json, page_once=page_once) as show:
            for tick in _ticks(watched, step, looks):
                first, last = first or tick, tick
                show(tick)
    except KeyboardInterrupt:
        _say_goodbye(first, last, as_json=as_json)
    return 0


def _ticks(watched: "Watch", step: float, looks: int | None) -> "Iterator[Tick]":
    """Looks at even distances; a look that takes longer than the distance delays the next."""
    from datetime import UTC, datetime  # noqa: PLC0415 - `--help` need not pay

    done = 0
    due = time.monotonic()
    while True:
        # A single look waits for the sizes; a view shows what it knows and counts on.
        patience = None if looks == 1 else max(step, _SOON_SECONDS)
        yield watched.tick(now=datetime.now(UTC), patience=patience)
        done += 1
        if done == looks:
            return
        due = max(due + step, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


def _watched(paths: tuple[Path, ...], window: float) -> "Watch":
    import os  # noqa: PLC0415

    from gradience.paths import as_path  # noqa: PLC0415
    from gradience.storage.environment.host import this_host  # noqa: PLC0415
    from gradience.storage.watch.run import Watch, default_caches  # noqa: PLC0415

    home, host = Path.home(), this_host()
    if paths:
        directories = {str(path): host.cwd / as_path(path, home) for path in paths}
    else:
        directories = default_caches(os.environ, home, host)
    return Watch(directories, environ=os.environ, home=home, clock=time.monotonic, window=window)


def _forms() -> "Forms[Tick]":
    from datetime import datetime  # noqa: PLC0415

    from gradience import artifacts  # noqa: PLC0415
    from gradience.cli.looks import Forms  # noqa: PLC0415
    from gradience.storage.watch.records import SCHEMA  # noqa: PLC0415
    from gradience.storage.watch.report import lines, page  # noqa: PLC0415

    return Forms(
        json=lambda tick: artifacts.encode(
            SCHEMA, tick, now=datetime.fromisoformat(tick.at), indent=0
        ),
        page=page,
        lines=lines,
    )


def _say_goodbye(first: "Tick | None", last: "Tick | None", *, as_json: bool) -> None:
    from gradience.storage.watch.report import summary  # noqa: PLC0415

    if first is not None and last is not None:
        for line in summary(first, last):
            click.echo(line, err=as_json)


def _seconds(option: str, text: str) -> float:
    seconds = parse_duration(text).total_seconds()
    if seconds < _SHORTEST_SECONDS:
        raise UsageError(f"{option} {text} is too short", remedy="Give 0.05s or more.")
    return seconds
