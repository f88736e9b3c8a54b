"""How far long reading and writing has come, told in MiB."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
_MIB = 1 << 20


class Meter:
    """Bytes done of a stage; small files do not drown the terminal."""

    def __init__(self, progress: Progress | None, stage: str, total: int) -> None:
        self._progress = progress
        self._stage = stage
        self._total = total
        self._done = 0
        self._told = -1

    def add(self, count: int) -> None:
        """Count bytes."""
        self._done += count
        if self._progress is not None and self._done // _MIB != self._told:
            self._told = self._done // _MIB
            self._progress(f"{self._stage} (MiB)", self._told, -(-self._total // _MIB))
