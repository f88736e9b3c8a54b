"""Training runs in an inventory: checkpoints that are cut off, and what dead runs still hold."""

from collections.abc import Iterable
from pathlib import Path

from gradience.storage.checkpoints.find import in_use
from gradience.storage.checkpoints.judge import bad_files as bad_files_in
from gradience.storage.checkpoints.names import BALLAST, BROKEN_PREFIX, OWN_DIR, SAVING
from gradience.storage.doctor.facts import BadFile, DeadRun
from gradience.storage.doctor.places import mount_of
from gradience.storage.doctor.rules_contents import BUSY_SECONDS
from gradience.storage.inventory.records import Inventory
from gradience.storage.inventory.scan import Directory
from gradience.storage.inventory.tally import Tally
from gradience.storage.outside.reserve import RESERVE, left


def bad_files(inventory: Inventory) -> tuple[BadFile, ...]:
    """One record for each file that is cut off, as far as ends and headers tell."""
    return tuple(
        BadFile(path=path, checkpoint=folder, detail=why)
        for folder in _checkpoints(inventory)
        for path, why in bad_files_in(folder)
    )


def set_aside(inventory: Inventory) -> tuple[Path, ...]:
    """Broken checkpoints that were set aside before: their names are taken."""
    runs = dict.fromkeys(folder.parent for folder in _checkpoints(inventory))
    return tuple(path for run in runs for path in sorted(run.glob(f"{BROKEN_PREFIX}*")))


def _checkpoints(inventory: Inventory) -> list[Path]:
    return [
        Path(entry.path)
        for cache in inventory.caches
        for entry in cache.entries
        if entry.what == "checkpoint"
    ]


def dead_runs(projects: Iterable[Directory], *, now: float) -> tuple[DeadRun, ...]:
    """Directories in which a run that is over holds room: a reserve, or a save that did not end.

    The next guarded run there gives it back; until then nobody does.

    Parameters
    ----------
    now : float
        Seconds since 1970.
    """
    found = []
    waiting = list(projects)
    while waiting:
        directory = waiting.pop()
        waiting += [child for child in directory.dirs if child.name != OWN_DIR]
        place = Path(directory.path)
        sizes = _kept(directory) if _is_over(directory, now) else {}
        reserves = {file.name: file for file in directory.files if file.name.startswith(RESERVE)}
        if reserves:
            sizes |= {p: reserves[p.name].frees_bytes for p in left(place) if p.name in reserves}
        if sizes:
            held = tuple(sorted(sizes))
            found.append(DeadRun(place=place, held=held, bytes=sum(sizes.values())))
    return tuple(found)


def _kept(run: Directory) -> dict[Path, int]:
    """What a guard keeps there; its parts are made at the start of a run, and empty mostly."""
    own = run.child(OWN_DIR)
    parts = [] if own is None else [own.child(name) for name in (BALLAST, SAVING)]
    return {
        Path(part.path): Tally().add_tree(part).frees_bytes
        for part in parts
        if part is not None and (part.dirs or part.files)
    }


def _is_over(run: Directory, now: float) -> bool:
    """By its lock; where locks may do nothing, also by its silence: a run writes its log."""
    if run.child(OWN_DIR) is None or in_use(Path(run.path)):
        return False
    mount = mount_of(Path(run.path))
    newest = max([run.newest_mtime, *(child.newest_mtime for child in run.dirs)])
    local = mount is not None and not (mount.network or mount.fuse)
    return local or now - newest > BUSY_SECONDS
