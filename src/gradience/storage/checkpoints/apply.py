"""Removing what a pruning chose, after a second look, and counting what it freed."""

import contextlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from gradience import files, system
from gradience.errors import StorageError
from gradience.storage.checkpoints.find import in_use, run_at
from gradience.storage.checkpoints.judge import weigh
from gradience.storage.checkpoints.names import BALLAST, IN_USE, OWN_DIR, REPLACED, SAVING
from gradience.storage.checkpoints.prune import plan
from gradience.storage.checkpoints.records import Removal

Progress = Callable[[str, int, int], None]


def prune(
    planned: Iterable[Removal], *, keep: int, progress: Progress | None = None
) -> tuple[tuple[Removal, ...], int]:
    """Remove what was planned, if the same plan would be made now; the bytes that were freed.

    A run that started meanwhile, or a newer checkpoint that broke meanwhile, makes another plan:
    then nothing of that run is removed.
    """
    todo = list(planned)
    places = {run_dir(Path(removal.path)) for removal in todo}
    busy = system.holders()
    runs = [run_at(place, holders=busy) for place in sorted(places)]
    still = {r.path for r in plan(runs, keep=keep, now=time.time())}
    done = []
    freed = 0
    for number, removal in enumerate(todo):
        if progress is not None:
            progress("removing", number, len(todo))
        held = weigh(Path(removal.path))[0]
        done.append(_remove(removal, still))
        freed += held if done[-1].done else 0
    for place in places:
        if not in_use(place):
            with contextlib.suppress(StorageError):
                clear(place)
                remove_lock(place)
    return tuple(done), freed


def clear(run: Path) -> None:
    """Take away what a guard kept below a run; trash of a cleaning there stays.

    Raises
    ------
    StorageError
        If the file system refuses.
    """
    own = run / OWN_DIR
    for part in (SAVING, REPLACED, BALLAST):
        files.remove_tree(own / part)
    files.remove_leftovers(own)


def remove_lock(run: Path) -> None:
    """Take away the lock that nobody holds, and the guard's directory if nothing else is in it.

    Raises
    ------
    StorageError
        If the file system refuses.
    """
    files.remove(run / OWN_DIR / IN_USE)
    files.remove_empty(run / OWN_DIR)


def run_dir(path: Path) -> Path:
    """The run to which a checkpoint or a leftover belongs."""
    parents = [p for p in path.parents if p.name == OWN_DIR]
    return parents[0].parent if parents else path.parent


def _remove(removal: Removal, still: set[str]) -> Removal:
    if removal.path not in still:
        reason = "it changed since the plan was made"
        return msgspec.structs.replace(removal, done=False, problem=reason)
    path = Path(removal.path)
    try:
        files.remove_tree(path)
    except StorageError as error:
        return msgspec.structs.replace(removal, done=False, problem=str(error))
    return msgspec.structs.replace(removal, done=True)
