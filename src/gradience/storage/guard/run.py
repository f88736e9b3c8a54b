"""A run's guard: it keeps room for the last save, and makes room before each.

It knows directories, bytes and checkpoints, and no training library: who trains asks it before a
save, tells it what went wrong, and writes into the place that it names.
"""

import logging
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import msgspec

from gradience.errors import StorageError
from gradience.storage.checkpoints.find import checkpoint_dirs, in_use, run_at
from gradience.storage.checkpoints.judge import judge, weigh
from gradience.storage.checkpoints.prune import rotation
from gradience.storage.checkpoints.records import Checkpoint, Run
from gradience.storage.guard.ballast import Ballast
from gradience.storage.guard.decide import next_act
from gradience.storage.guard.need import Start, as_measured, judge_start, least
from gradience.storage.guard.own import OwnDir
from gradience.storage.guard.records import (
    Act,
    Answer,
    Cleaner,
    EventSink,
    Facts,
    GuardEvent,
    Need,
)
from gradience.storage.guard.room import disk_was_why, fits, room_at
from gradience.storage.guard.watcher import Watcher
from gradience.storage.guard.words import how_to_go_on, what_follows, what_was_done
from gradience.units import format_size

WAIT_SECONDS = 15.0
"""A run that was asked to stop saves first, and its workers look for it every 5 s (torch 2.13)."""

_LOOK_SECONDS = 0.5  # who only looks whether a run goes on has its lock for a moment
_log = logging.getLogger("gradience.guard")


class Guard:
    """Looks after one directory into which a run saves.

    Parameters
    ----------
    run : Path
        The run's `output_dir`.
    clean : Cleaner, optional
        A plan to clean that the user allowed.
    rotate : bool
        Whether older complete checkpoints may go when room is short.
    sink : EventSink, optional
        Is told of every event, after the log.
    wait_seconds : float
        How long a claim waits for another run that saves there.
    environ, home
        For the limits of the platform; by default those of the process.
    """

    def __init__(
        self,
        run: Path,
        *,
        clean: Cleaner | None = None,
        rotate: bool = True,
        sink: EventSink | None = None,
        wait_seconds: float = WAIT_SECONDS,
        environ: Mapping[str, str] | None = None,
        home: Path | None = None,
    ) -> None:
        self.run = run.absolute()
        self.own = OwnDir(self.run)
        self.ballast = Ballast(self.own.ballast)
        self.whole = Need(bytes=0, inodes=0)
        self.smallest = Need(bytes=0, inodes=0)
        self.stopped = ""
        self._done: Counter[str] = Counter()  # acts for want of room, by their kind
        self._unheld = ""
        self._clean = clean
        self._rotate = rotate
        self._sink = sink
        self._wait_seconds = wait_seconds
        self._environ = os.environ if environ is None else environ
        self._home = Path.home() if home is None else home
        self._failures = 0
        self._freed = 0
        self._cleaned = False

    # ---- before and after a run

    def claim(self) -> str:
        """Say that a run goes on here; who says so already, "" if it is ours.

        One that is on its way out, or whose processes are, is waited for.
        """
        ours = self.own.claim(seconds=min(_LOOK_SECONDS, self._wait_seconds))
        if ours is False:
            words = f"{self.own.other()} saves into {self.run}: waiting for it to end."
            self.tell("shared", words, grave=True)
            ours = self.own.claim(seconds=self._wait_seconds)
        if ours is None and in_use(self.run):
            self.tell(
                "shared",
                f"{self.own.other()} said that it saves into {self.run}, and cannot be seen from "
                f"here. If it has ended, remove {self.own.lock}; if not, stop one of the two.",
                grave=True,
            )
        return self.own.other() if ours is False else ""

    def sweep(self) -> None:
        """Set aside what an earlier run left broken, so that a resume takes a complete one."""
        try:
            broken = self.own.sweep()
        except (StorageError, OSError) as error:  # what was left behind must not end a training
            self.tell("unswept", f"{error}", grave=True)
            return
        for checkpoint in broken:
            name = Path(checkpoint.path).name
            self.tell(
                "aside",
                f"{name} cannot be resumed from and was set aside as broken-{name}: "
                f"{checkpoint.problems[0]}.",
                grave=True,
            )

    def judge_start(self, *, saves: int, keeps: int | None) -> Start:
        """Hold what the run will write against what can be written."""
        room = room_at(self.run, self._environ, self._home)
        found = run_at(self.run)
        complete = [c for c in found.checkpoints if c.complete]
        free = rotation(found.checkpoints, keep=1) if self._rotate else ()
        known = room.bytes
        must = least(self.whole, saves=saves, complete=len(complete))
        if known is not None and known < must.bytes and self._answer(must) is Answer.YES:
            known = must.bytes  # the report lags behind what the disk itself says
        return judge_start(
            need=self.whole,
            reserve=self.smallest,
            room=known,
            limit_name=room.binding.source if room.binding else "nothing says so",
            free_inodes=room.inodes,
            saves=saves,
            keeps=keeps,
            complete=len(complete),
            rotatable_bytes=sum(c.bytes for c in free),
        )

    def what_follows(self) -> str:
        """What the run does from a tight start on, in one sentence."""
        return what_follows(rotate=self._rotate, clean=self._clean is not None)

    def hold_reserve(self) -> None:
        """Hold the ballast, as far as it is not held; say so where it cannot be."""
        count = room_at(self.run, self._environ, self._home).inodes is not None
        said, self._unheld = self._unheld, self.ballast.reserve(self.smallest, count_inodes=count)
        if self._unheld and self._unheld != said:
            self.tell(
                "reserve",
                f"{format_size(self.smallest.bytes)} could not be held back for a last save: "
                f"{self._unheld}",
                grave=True,
            )

    def leave(self) -> None:
        """Give back everything that was held; say what was done for want of room, if anything."""
        if self._done:
            newest = self.newest()
            self.tell("end", what_was_done(self._done, Path(newest.path).name if newest else ""))
            self._done.clear()
        self.ballast.release()
        self.own.leave()

    # ---- around a save

    def make_room(self, step: int, best: str) -> Act:
        """Make room for a save until it fits or nothing more can be done.

        Parameters
        ----------
        best : str
            Name of the best checkpoint, which never goes; "" if there is none.

        Returns
        -------
        Act
            SAVE, SMALLEST or LEAVE.
        """
        while True:
            facts = self._facts(best)
            act = next_act(facts)
            if act in (Act.SAVE, Act.SMALLEST, Act.LEAVE):
                return act
            self._do(act, facts, step)

    def saved(self, step: int, checkpoint: Path) -> None:
        """A whole checkpoint is there: learn from its size, and hold the reserve again."""
        judged = judge(checkpoint)
        if judged.files:  # a Trainer may have chosen another place
            self.whole = as_measured(judged.bytes, judged.files)
        self._failures = self._freed = 0
        self._cleaned = False
        self.tell("saved", f"{checkpoint.name} is complete.", step, bytes=judged.bytes)

    def keep(self, limit: int | None, best: str) -> None:
        """Rotate as the Trainer would after a save, but by completeness and by one rename each."""
        if limit is not None and limit > 0:
            for checkpoint in rotation(self.found(best).checkpoints, keep=limit):
                self._remove(checkpoint)

    def failed(self, step: int, error: BaseException, staged: Path) -> None:
        """A save failed for want of space: take away what is half written, and count it."""
        self._failures += 1
        self._done["failed"] += 1
        self._freed = 0
        self.own.discard(staged)
        words = str(error).partition("\n")[0] or type(error).__name__
        self.tell("failed", f"The save at step {step} failed: {words}", step, grave=True)

    def disk_was_why(self, error: BaseException, staged: Path | None = None) -> bool:
        """Whether a failed write failed for want of space; `staged` is what was half written."""
        missing = 0 if staged is None else self.whole.bytes - weigh(staged)[0]
        return disk_was_why(error, self.run, missing)

    def stop(self, step: int, checkpoint: Path | None, *, smallest: bool) -> str:
        """Say that the run stops here, with what, and how to go on."""
        newest = self.newest()
        resumed = str(checkpoint) if checkpoint else (newest.path if newest else None)
        room = room_at(self.run, self._environ, self._home)
        short = max(0, 2 * self.whole.bytes - (room.bytes or 0)) or None
        what = (
            f"The smallest form that resumes was saved as {checkpoint.name}."
            if checkpoint and smallest
            else f"{Path(resumed).name} is the newest complete checkpoint."
            if resumed
            else "Nothing could be saved."
        )
        self.stopped = (
            f"The disk is full at step {step}. {what} "
            f"{how_to_go_on(str(self.run), resumed, short_bytes=short)}"
        )
        self.tell("stopped", self.stopped, step, grave=True)
        return self.stopped

    # ---- looks

    def watcher(self, *, every: float) -> Watcher:
        """Who watches the disk of this run; not started yet."""
        return Watcher(self.run, self._environ, self._home, every=every)

    def found(self, best: str = "") -> Run:
        """The checkpoints that are there, judged anew."""
        run = run_at(self.run)
        if not best:
            return run
        marked = tuple(
            msgspec.structs.replace(c, best=c.best or Path(c.path).name == best)
            for c in run.checkpoints
        )
        return msgspec.structs.replace(run, checkpoints=marked)

    def newest(self) -> Checkpoint | None:
        """The newest complete checkpoint."""
        for path in reversed(checkpoint_dirs(self.run)):
            judged = judge(path)
            if judged.complete:
                return judged
        return None

    def tell(
        self,
        kind: str,
        message: str,
        step: int | None = None,
        *,
        grave: bool = False,
        **facts: int | float | str,
    ) -> None:
        """Log an event and hand it to the sink."""
        (_log.warning if grave else _log.info)("%s", message)
        if self._sink is None:
            return
        event = GuardEvent(kind=kind, message=message, step=step, grave=grave, facts=facts)
        try:
            self._sink(event)
        except Exception:  # noqa: BLE001 - the boundary to other people's code; it must not end a run
            _log.exception("The event sink failed.")

    # ---- the acts

    def _facts(self, best: str) -> Facts:
        run = self.found(best)
        exact = any(c.resumes == "exactly" for c in run.checkpoints)
        return Facts(
            whole=self._answer(self.whole),
            smallest=self._answer(self.smallest),
            rotatable=rotation(run.checkpoints, keep=1) if self._rotate else (),
            may_clean=self._clean is not None and not self._cleaned,
            reserve=self.ballast.held.bytes > 0 or self.ballast.held.inodes > 0,
            failures=self._failures,
            exact_older=exact,
        )

    def _answer(self, need: Need) -> Answer:
        answer = fits(self.run, need, self._environ, self._home)
        if answer is Answer.UNKNOWN and self._failures and need is self.whole:
            # Where nothing can be proved, a failure is the measure: what was freed since counts.
            return Answer.YES if self._freed >= need.bytes else Answer.NO
        return answer

    def _do(self, act: Act, facts: Facts, step: int) -> None:
        if act is Act.ROTATE and not self._remove(facts.rotatable[0], step):
            return
        self._done[act] += 1
        if act is Act.CLEAN:
            self._run_clean(step)
        elif act is Act.RELEASE:
            held = self.ballast.release()
            self._freed += held.bytes
            self.tell("released", f"The reserve of {format_size(held.bytes)} was released.", step)

    def _remove(self, checkpoint: Checkpoint, step: int | None = None) -> bool:
        path = Path(checkpoint.path)
        try:
            self.own.remove(path)
        except StorageError as error:
            self._rotate = False  # or the same one would be chosen for ever
            self.tell("rotated", str(error), step, grave=True)
            return False
        self._freed += checkpoint.bytes
        self.tell("rotated", f"{path.name} went for a newer one.", step, bytes=checkpoint.bytes)
        return True

    def _run_clean(self, step: int) -> None:
        self._cleaned = True
        assert self._clean is not None
        try:
            freed = int(self._clean(self.whole.bytes) or 0)
        except Exception as error:  # noqa: BLE001 - the boundary to other people's code: the save goes on
            _log.debug("The cleaning raised.", exc_info=True)
            words = str(error) or type(error).__name__
            self.tell("cleaned", f"Cleaning failed: {words}", step, grave=True)
            return
        self._freed += freed
        self.tell("cleaned", f"Cleaning freed {format_size(freed)}.", step, bytes=freed)
