"""Removing what a pruning chose, after a second look, and counting what it freed."""

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from gradience import files
from gradience.errors import StorageError
from gradience.storage.checkpoints.find import in_use, run_at
from gradience.storage.checkpoints.judge import weigh
from gradience.storage.checkpoints.names import OWN_DIR
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
    still = {r.path for r in plan([run_at(place) for place in sorted(places)], keep=keep)}
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
                files.remove_tree(place / OWN_DIR)
    return tuple(done), freed


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
