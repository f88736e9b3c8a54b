"""A bar on standard error while long work goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gradience.cli.visible import visible

if TYPE_CHECKING:
    from gradience.audit.run import ProgressReport


@contextmanager
def progress_bar(*, shown: bool) -> "Iterator[ProgressReport | None]":
    """A bar on standard error while long work goes on; nothing where nobody looks."""
    if not shown:
        yield None
        return
    # Imported here: 50 ms that a pipe need not pay.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(visible(stage, longest=80), total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield report
