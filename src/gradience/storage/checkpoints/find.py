"""Runs and their checkpoints below some directories."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from gradience.errors import UsageError
from gradience.files.lock import is_held
from gradience.storage.checkpoints.judge import judge, state_of, weigh
from gradience.storage.checkpoints.names import (
    BALLAST,
    BROKEN_PREFIX,
    IN_USE,
    OWN_DIR,
    SAVING,
    step_of,
)
from gradience.storage.checkpoints.records import Checkpoint, Leftover, Run
from gradience.system.holders import Holders

Progress = Callable[[str, int, int], None]

_SKIPPED = frozenset((".git", "node_modules", "__pycache__", OWN_DIR))


def find(
    roots: Iterable[Path],
    *,
    deep: bool = False,
    holders: Holders | None = None,
    progress: Progress | None = None,
) -> tuple[Run, ...]:
    """Every directory with checkpoints at or below the roots; a checkpoint itself may be named too.

    Parameters
    ----------
    deep : bool
        Read every byte.
    holders : Holders, optional
        Which files are in use now; without it no checkpoint says so.

    Raises
    ------
    UsageError
        If a root is no directory.
    """
    folders: list[Path] = []
    for root in roots:
        if not root.is_dir():
            raise UsageError(f"{root} is no directory", remedy="Name the output_dir of a run.")
        root = root.absolute()  # noqa: PLW2901 - the same directory
        folders += [root.parent] if step_of(root.name) is not None else _runs_below(root)
    found = []
    unique = list(dict.fromkeys(folders))
    for number, folder in enumerate(unique):
        if progress is not None:
            progress("runs", number, len(unique))
        found.append(run_at(folder, deep=deep, holders=holders))
    return tuple(run for run in found if run.checkpoints or run.leftovers)


def run_at(folder: Path, *, deep: bool = False, holders: Holders | None = None) -> Run:
    """The checkpoints directly in a directory, by step, with what lies beside them."""
    judged = [judge(path, deep=deep) for path in checkpoint_dirs(folder)]
    best = _best_of(judged)
    busy = held(judged, holders) if holders is not None else {}
    return Run(
        path=str(folder),
        checkpoints=tuple(
            msgspec.structs.replace(c, best=Path(c.path).name == best, held=busy.get(c.path, ""))
            for c in judged
        ),
        leftovers=tuple(_leftovers(folder)),
        in_use=in_use(folder),
    )


def checkpoint_dirs(folder: Path) -> list[Path]:
    """The directories that `resume_from_checkpoint=True` would choose from, by step."""
    try:
        with os.scandir(folder) as entries:
            steps = [(step_of(e.name), e.path) for e in entries if e.is_dir()]
    except OSError:
        return []
    return [Path(p) for s, p in sorted((s, p) for s, p in steps if s is not None)]


def held(
    checkpoints: Iterable[Checkpoint], holders: Holders, *, but: int | None = None
) -> dict[str, str]:
    """Paths of checkpoints of which a process, other than `but`, has a file open, and which."""
    found = {}
    for checkpoint in checkpoints:
        for directory, _, names in os.walk(checkpoint.path):
            for path in (os.path.join(directory, name) for name in names):  # noqa: PTH118 - strings
                try:
                    holder = holders.of(os.lstat(path), path)
                except OSError:
                    continue  # gone meanwhile
                if holder is not None and holder.pid != but:
                    found[checkpoint.path] = holder.sentence
    return found


def in_use(folder: Path) -> bool:
    """Whether a run that is going on saves here: it holds a lock, which ends with its process.

    On network mounts where locks do nothing, nobody is seen.
    """
    return is_held(os.fspath(folder / OWN_DIR / IN_USE)) is True


def _best_of(judged: list[Checkpoint]) -> str:
    """The name of the best checkpoint, as the newest complete one records it."""
    for checkpoint in reversed(judged):
        if checkpoint.complete:
            state = state_of(Path(checkpoint.path))
            path, step = state.get("best_model_checkpoint"), state.get("best_global_step")
            # The run may have been moved since: the name counts, not the directory.
            if isinstance(path, str):
                return Path(path).name
            return f"checkpoint-{step}" if isinstance(step, int) else ""
    return ""


def _runs_below(root: Path) -> Iterator[Path]:
    for directory, names, _ in os.walk(root):
        if any(_belongs_to_run(name) for name in names):
            yield Path(directory)
        names[:] = sorted(n for n in names if n not in _SKIPPED and not _belongs_to_run(n))


def _belongs_to_run(name: str) -> bool:
    return step_of(name.removeprefix(BROKEN_PREFIX)) is not None or name == OWN_DIR


def _leftovers(folder: Path) -> Iterator[Leftover]:
    own = folder / OWN_DIR
    for place, what in (
        *((p, "set aside") for p in sorted(folder.glob(f"{BROKEN_PREFIX}checkpoint-*"))),
        *((p, "unfinished save") for p in entries(own / SAVING)),
        *((p, "reserve") for p in [own / BALLAST] if p.is_dir()),
    ):
        yield Leftover(path=str(place), what=what, bytes=weigh(place)[0])  # type: ignore[arg-type]


def entries(folder: Path) -> list[Path]:
    """What lies in a directory, if it is one."""
    return sorted(folder.iterdir()) if folder.is_dir() else []
