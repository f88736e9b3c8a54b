"""A bar on standard error while long work goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gradience.cli.visible import visible

if TYPE_CHECKING:
    from rich.progress import Progress, Task
    from rich.text import Text


class Bar:
    """Tells a bar how far each stage is; stages in `in_bytes` count bytes, with their rate."""

    def __init__(self, drawn: "Progress", in_bytes: frozenset[str]) -> None:
        self._drawn = drawn
        self._in_bytes = in_bytes
        self._tasks: dict[str, Any] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` units of `stage` are done."""
        if stage not in self._tasks:
            self._tasks[stage] = self._drawn.add_task(
                visible(stage, longest=80), total=total, in_bytes=stage in self._in_bytes
            )
        self._drawn.update(self._tasks[stage], completed=done, total=total)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal to a question."""
        self._drawn.stop()
        try:
            yield
        finally:
            self._drawn.start()


@contextmanager
def progress_bar(*, shown: bool, in_bytes: frozenset[str] = frozenset()) -> "Iterator[Bar | None]":
    """A bar on standard error while long work goes on; nothing where nobody looks."""
    if not shown:
        yield None
        return
    # Imported here: 50 ms that a pipe need not pay.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    class Amount(MofNCompleteColumn):
        """Units done and in all; bytes with their unit and rate."""

        size, rate = DownloadColumn(), TransferSpeedColumn()

        def render(self, task: "Task") -> "Text":
            if not task.fields["in_bytes"]:
                return super().render(task)
            return self.size.render(task).append("  ").append_text(self.rate.render(task))

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        Amount(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as drawn:
        yield Bar(drawn, in_bytes)
