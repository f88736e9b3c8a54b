"""The guard's own directory below a run: staging, ballast, and a lock that says "in use".

    <run>/.gradience/saving/checkpoint-<step>    a save that goes on
    <run>/.gradience/replaced/checkpoint-<step>  the earlier save of the same step, until it is done
    <run>/.gradience/ballast/...                 the reserve
    <run>/.gradience/in-use.lock                 held while a run goes on

A checkpoint appears under its name by one rename, when it is whole and on the disk, and disappears
by one. So `checkpoint-*` is complete at every moment, and what a killed process leaves lies here.
"""

import contextlib
import os
import threading
from pathlib import Path

from gradience import files, system
from gradience.errors import StorageError
from gradience.files.lock import Lock
from gradience.storage.checkpoints.apply import clear, remove_lock
from gradience.storage.checkpoints.find import checkpoint_dirs, entries, held, in_use
from gradience.storage.checkpoints.judge import judge
from gradience.storage.checkpoints.names import (
    BALLAST,
    IN_USE,
    OWN_DIR,
    REPLACED,
    SAVING,
    aside,
)
from gradience.storage.checkpoints.records import Checkpoint

_CLAIMS: "dict[str, OwnDir]" = {}
"""Of this process: a training that died without leaving does not shut out the next one."""


class OwnDir:
    """The directory below a run in which nothing is a checkpoint yet, or any more.

    It is of one run: who holds its lock. Whoever does not leaves all in it alone.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.path = run / OWN_DIR
        self.ballast = self.path / BALLAST
        self.saving = self.path / SAVING
        self.lock = self.path / IN_USE
        self._lock: Lock | None = None
        self._thread = threading.current_thread()

    def claim(self, *, seconds: float = 0.0) -> bool | None:
        """Say that a run goes on here; whether it is ours, after waiting that long for another.

        Returns
        -------
        bool or None
            None where nobody can be told: locks or new files are refused, or the lock is of another
            machine or container, where it may have died.
        """
        if self._lock is not None:
            return True
        key = os.path.realpath(self.path)
        if (earlier := _CLAIMS.get(key)) is not None:  # in this process
            if earlier._thread.is_alive() and earlier._thread is not threading.current_thread():
                return False  # and it goes on beside us; in our own thread it must have died
            self._lock, earlier._lock = earlier._lock, None
        else:
            try:
                lock = Lock(self.lock)
                ours = lock.acquire(seconds=seconds)
            except (OSError, StorageError):
                return None
            if not ours:
                return ours
            self._lock = lock
            self._prepare()
        _CLAIMS[key], self._thread = self, threading.current_thread()
        return True

    def other(self) -> str:
        """Who says that a run of theirs goes on here."""
        with contextlib.suppress(OSError):
            holder = system.holders().of(self.lock.lstat(), os.fspath(self.lock))
            if holder is not None:
                return f"process {holder.pid} ({holder.name})"
        named = Lock(self.lock).holder()
        return "a process that cannot be seen from here" if named is None else named.words

    def leave(self) -> None:
        """Take away everything of one's own; what is another run's stays."""
        lock, self._lock = self._lock, None
        if lock is None and in_use(self.run):
            return
        with contextlib.suppress(StorageError):
            self._restore_replaced()
            clear(self.run)
            if lock is None:
                remove_lock(self.run)
        if lock is not None:
            del _CLAIMS[os.path.realpath(self.path)]
            lock.release(remove=True)
            files.remove_empty(self.path)

    def sweep(self) -> list[Checkpoint]:
        """Undo what an earlier run left half-way; the broken checkpoints that were set aside.

        Nothing is touched while another process saves here.

        Raises
        ------
        StorageError
            If a broken checkpoint cannot be set aside.
        """
        if self._lock is None and in_use(self.run):
            return []
        self._restore_replaced()
        clear(self.run)
        if self._lock is None:
            remove_lock(self.run)
        else:
            self._prepare()
        files.remove_leftovers(self.run, "checkpoint-*")  # of one that was being removed
        broken = [c for c in map(judge, checkpoint_dirs(self.run)) if not c.complete]
        if broken:
            # A run without a guard holds no lock: what another process writes is not left behind.
            others = held(broken, system.holders(), but=os.getpid())
            broken = [c for c in broken if c.path not in others]
        for checkpoint in broken:
            self._set_aside(Path(checkpoint.path))
        return broken

    def stage(self, name: str) -> Path:
        """An empty place for a checkpoint that is being written; earlier attempts are removed."""
        staged = self.saving / name
        self.discard(staged)
        files.make_dir(self.saving)
        return staged

    def discard(self, staged: Path) -> None:
        """Remove what was half written, as far as the file system lets go of it.

        FUSE and NFS keep a file that a process still has open under another name: the next sweep
        removes it.
        """
        with contextlib.suppress(StorageError):
            files.remove_tree(staged)

    def publish(self, staged: Path) -> Path:
        """Make a staged checkpoint durable and give it its name, in one rename.

        Raises
        ------
        OSError, StorageError
            If the disk refuses, also by telling so only when its caches are flushed.
        """
        target = self.run / staged.name
        if not staged.exists():
            return target  # this Trainer has a place of its own: what lies there is not ours
        files.sync_tree(staged)
        earlier = self.path / REPLACED / staged.name
        if target.exists():
            files.move(target, earlier)
        try:
            files.move(staged, target)
        except StorageError:
            self._restore_replaced()
            raise
        self.discard(earlier)
        return target

    def remove(self, checkpoint: Path) -> None:
        """Remove a checkpoint: at once from where a resume looks, then from the disk.

        Raises
        ------
        StorageError
            If the file system refuses.
        """
        files.remove_tree(checkpoint)

    def _prepare(self) -> None:
        """Make the places that a full disk may refuse later."""
        with contextlib.suppress(StorageError):
            for part in (SAVING, REPLACED):
                files.make_dir(self.path / part)

    def _restore_replaced(self) -> None:
        """Give an earlier save its name again where the new one of that step has not got it."""
        for earlier in entries(self.path / REPLACED):
            if not (self.run / earlier.name).exists():
                files.move(earlier, self.run / earlier.name)

    def _set_aside(self, checkpoint: Path) -> None:
        taken = {path.name for path in self.run.iterdir()}
        files.move(checkpoint, self.run / aside(checkpoint.name, taken))


def _disown() -> None:
    """In a forked child, where no lock of its parent holds: what its parent claims is another's."""
    for own in _CLAIMS.values():
        own._lock = None
    _CLAIMS.clear()


os.register_at_fork(after_in_child=_disown)
