"""What was done: one directory per trial, named by its id, and done when its result is there.

The disk is the only memory. Every record is written whole or not at all, so a driver or a trial
that is killed at any point leaves a ledger that the next run reads and goes on from.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import msgspec

from gradience import artifacts, files
from gradience.bench.records import (
    RESULT_SCHEMA,
    SETTINGS_SCHEMA,
    TRIAL_SCHEMA,
    Bench,
    Failure,
    Trial,
    TrialResult,
)
from gradience.errors import ArtifactError

FAILED_SCHEMA = "gradience.trial_failed/v1"
EVICTED_SCHEMA = "gradience.trial_evicted/v1"

_LOG_LINES = 200

T = TypeVar("T")


class State(StrEnum):
    """How far a trial is."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """Why a trial has no result: the content of `failed.json`."""

    message: str
    attempt: int
    finished_at: str


class Evicted(msgspec.Struct, frozen=True, kw_only=True):
    """What the disk budget took of a finished trial: the content of `evicted.json`."""

    parts: tuple[str, ...]
    nbytes: int
    at: str


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """Where a running trial is: the content of `progress.json`, replaced as it goes on."""

    stage: str
    done: int
    total: int


SMOKE = "smoke"
"""Below an output directory: that of its smoke run."""


@dataclass(frozen=True, slots=True)
class TrialPaths:
    """The files of a trial, below its directory."""

    directory: Path

    @property
    def trial(self) -> Path:
        """All that its process needs to know."""
        return self.directory / "trial.json"

    @property
    def log(self) -> Path:
        """What its processes printed, attempt after attempt."""
        return self.directory / "log.txt"

    @property
    def progress(self) -> Path:
        """Where it is."""
        return self.directory / "progress.json"

    @property
    def adapter(self) -> Path:
        """The adapter that was evaluated, as PEFT reads it."""
        return self.directory / "adapter"

    @property
    def step0(self) -> Path:
        """A probe's untrained adapter."""
        return self.directory / "step0"

    @property
    def work(self) -> Path:
        """Scratch: nobody needs it once the trial is done."""
        return self.directory / "work"

    @property
    def result(self) -> Path:
        """Written last: its presence means done."""
        return self.directory / "result.json"

    @property
    def old(self) -> Path:
        """A result that no longer counts, until there is a new one."""
        return self.directory / "result.old.json"

    @property
    def failed(self) -> Path:
        """Why the last attempt ended without a result."""
        return self.directory / "failed.json"

    @property
    def evicted(self) -> Path:
        """What the disk budget took."""
        return self.directory / "evicted.json"

    @property
    def lock(self) -> Path:
        """Locked for as long as a process of this trial lives."""
        return self.directory / "running"


class Ledger:
    """The directory of a bench.

    Parameters
    ----------
    root : Path
        The output directory; it need not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def paths(self, trial_id: str) -> TrialPaths:
        """Where the files of a trial are, or will be."""
        return TrialPaths(self.root / "trials" / trial_id)

    # The plan.

    def write_bench(self, bench: Bench, *, now: datetime) -> None:
        """Write the settings and every trial's own file; those that stand as they are, stay.

        The file of an accepted result stays too: it says which software made it.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        for trial in bench.trials:
            path = self.paths(trial.id).trial
            if trial.id not in bench.accepted and _read(path, TRIAL_SCHEMA, Trial) != trial:
                files.replace(path, artifacts.encode(TRIAL_SCHEMA, trial, now=now))
        files.replace(self._settings, artifacts.encode(SETTINGS_SCHEMA, bench, now=now))

    def bench(self) -> Bench:
        """The plan that was written last.

        Raises
        ------
        ArtifactError
            If there is none, or it cannot be read.
        """
        found = _read(self._settings, SETTINGS_SCHEMA, Bench)
        if found is None:
            raise ArtifactError(
                f"{self.root} is not the output directory of a bench: it has no settings.json",
                remedy="Name the directory that was given as `gradience bench --output-dir`.",
            )
        return found

    def with_history(self, bench: Bench) -> Bench:
        """A new plan that remembers what was claimed and looked at here before.

        A claim belongs to that once it had results; the present one may follow.

        Raises
        ------
        ArtifactError
            If `settings.json` is there and cannot be read.
        """
        before = _read(self._settings, SETTINGS_SCHEMA, Bench)
        if before is None:
            return bench
        claims, last = before.earlier_claims, before.settings.claim
        if last != bench.settings.claim and self.done(before.trials):
            claims = (*claims, last)
        return msgspec.structs.replace(bench, earlier_claims=claims, looks=before.looks)

    def with_look(self, bench: Bench, *, at_all: bool = False) -> Bench:
        """The plan after its results were looked at: the seeds of a ladder that have any.

        With `at_all`, as it will be when every trial has a result.
        """
        trials = bench.trials if at_all else self.done(bench.trials)
        seeds = tuple(sorted({t.spec.seed for t in trials if t.spec.variant.ladder}))
        if not seeds or bench.looks[-1:] == (seeds,):
            return bench
        return msgspec.structs.replace(bench, looks=(*bench.looks, seeds))

    @property
    def _settings(self) -> Path:
        return self.root / "settings.json"

    # What came of it.

    def state(self, trial_id: str) -> State:
        """Done, failed or pending; who runs is known to the driver alone."""
        paths = self.paths(trial_id)
        if paths.result.exists():
            return State.DONE
        return State.FAILED if paths.failed.exists() else State.PENDING

    def result(self, trial: Trial) -> TrialResult | None:
        """The result of a trial under the labels of the present plan, or None without one.

        Raises
        ------
        ArtifactError
            If it is there and cannot be read.
        """
        again = "Delete it, and the same command runs its trial again."
        found = _read(self.paths(trial.id).result, RESULT_SCHEMA, TrialResult, remedy=again)
        return None if found is None else msgspec.structs.replace(found, trial=trial)

    def results(self, trials: Iterable[Trial]) -> tuple[TrialResult, ...]:
        """The results that are there, in the order of the trials.

        Raises
        ------
        ArtifactError
            If one cannot be read.
        """
        found = (self.result(trial) for trial in trials)
        return tuple(result for result in found if result is not None)

    def failures(self, trials: Iterable[Trial]) -> tuple[Failure, ...]:
        """The trials that ended without a result, with the reason and the log."""
        found = []
        for trial in trials:
            reason = self.failure(trial.id)
            if reason is not None and self.state(trial.id) is State.FAILED:
                found.append(
                    Failure(
                        trial=trial.id,
                        variant=trial.spec.variant.name,
                        seed=trial.spec.seed,
                        message=reason.message,
                        log=str(self.paths(trial.id).log.relative_to(self.root)),
                    )
                )
        return tuple(found)

    def failure(self, trial_id: str) -> Failed | None:
        """Why the last attempt failed; None where none did."""
        return _read(self.paths(trial_id).failed, FAILED_SCHEMA, Failed)

    def blocked(self, trial_id: str) -> Failed | None:
        """Why nothing can be made from a trial: it failed, or its adapter is gone and that did."""
        paths = self.paths(trial_id)
        whole = paths.result.exists() and paths.adapter.is_dir()
        return None if whole else self.failure(trial_id)

    def write_failure(self, trial_id: str, message: str, *, now: datetime) -> Failed:
        """Keep why a trial failed; the log stays, scratch goes.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        before = self.failure(trial_id)
        failed = Failed(
            message=message,
            attempt=1 + (before.attempt if before else 0),
            finished_at=now.isoformat(timespec="seconds"),
        )
        paths = self.paths(trial_id)
        files.replace(paths.failed, artifacts.encode(FAILED_SCHEMA, failed, now=now))
        files.remove_tree(paths.work)
        return failed

    def reason(self, trial_id: str, ending: str) -> str:
        """Why the last attempt failed: what the trial said, or its last words.

        Parameters
        ----------
        trial_id : str
        ending : str
            How its process ended, for where it said nothing.
        """
        try:
            text = self.paths(trial_id).log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ending
        last = text.rpartition("\n$ ")[2].splitlines()[-_LOG_LINES:]
        errors = [line for line in last if line.startswith("error: ")]
        if errors:
            return errors[-1].removeprefix("error: ").strip()
        words = [line.strip() for line in last[1:] if line.strip()]
        return f"{ending}; last words: {words[-1]}" if words else ending

    def stage(self, trial_id: str) -> Stage | None:
        """Where a running trial says it is; None where it has not said, or in other words."""
        try:
            return msgspec.json.decode(self.paths(trial_id).progress.read_bytes(), type=Stage)
        except (OSError, msgspec.DecodeError):
            return None  # a hint for people who wait: never worth an error

    # What an attempt leaves behind.

    def begin(self, trial_id: str) -> None:
        """Make way for a new attempt: what an earlier one left half done goes, the log stays.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        paths = self.paths(trial_id)
        for directory in (paths.work, paths.adapter, paths.step0):
            files.remove_tree(directory)
        _remove(paths.progress)
        if not paths.old.exists():
            _remove(paths.evicted)  # else it belongs to the old result, which may come back
        files.remove_leftovers(paths.directory)

    def end(self, trial_id: str) -> None:
        """Tidy up after a result: scratch, and the reason of an earlier failure, go.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        paths = self.paths(trial_id)
        files.remove_tree(paths.work)
        for path in (paths.progress, paths.failed):
            _remove(path)

    def set_aside(self, trial_id: str) -> None:
        """Take a result out of the count and keep it, as `result.old.json`: the trial runs again.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        paths = self.paths(trial_id)
        files.replace(paths.old, paths.result.read_bytes())
        files.remove(paths.result)

    def old_result(self, trial: Trial) -> TrialResult | None:
        """The result that was set aside; None where there is none.

        Raises
        ------
        ArtifactError
            If it is there and cannot be read.
        """
        return _read(self.paths(trial.id).old, RESULT_SCHEMA, TrialResult)

    def forget_old(self, trial_id: str) -> None:
        """Remove a result that was set aside, and what was said of its adapter: there is a new one.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        paths = self.paths(trial_id)
        for path in (paths.evicted, paths.old):  # last what leads a killed driver here again
            _remove(path)

    def bring_back(self, trial_id: str) -> None:
        """Let a result count again that was set aside; `failed.json` stays, and says why.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        paths = self.paths(trial_id)
        for directory in (paths.adapter, paths.step0):
            files.remove_tree(directory)  # half made, and not what the result speaks of
        files.replace(paths.result, paths.old.read_bytes())
        files.remove(paths.old)

    # What the budget took.

    def evict(self, trial_id: str, part: str, nbytes: int, *, now: datetime) -> None:
        """Remove one part of a trial (`work`, `step0`, `adapter`) and write down that it is gone.

        The note comes first: a crash in between says too much is gone, and never too little.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        paths = self.paths(trial_id)
        if part != "work":
            before = self.evicted(trial_id)
            note = Evicted(
                parts=tuple(sorted({*(before.parts if before else ()), part})),
                nbytes=nbytes + (before.nbytes if before else 0),
                at=now.isoformat(timespec="seconds"),
            )
            files.replace(paths.evicted, artifacts.encode(EVICTED_SCHEMA, note, now=now))
        files.remove_tree(paths.directory / part)

    def evicted(self, trial_id: str) -> Evicted | None:
        """What the budget took of a trial; None where it is whole."""
        return _read(self.paths(trial_id).evicted, EVICTED_SCHEMA, Evicted)

    def known(self) -> Mapping[str, Trial]:
        """Every trial with a directory here, of whatever plan; what cannot be read is left out."""
        found = {}
        for path in sorted(self.root.glob("trials/*/trial.json")):
            try:
                trial = _read(path, TRIAL_SCHEMA, Trial)
            except ArtifactError:
                continue  # an earlier release's: no trial of this plan
            # What stands elsewhere than its id says was put there by hand: it names no directory.
            if trial is not None and trial.id == path.parent.name:
                found[trial.id] = trial
        return found

    def done(self, trials: Sequence[Trial]) -> tuple[Trial, ...]:
        """Those that have a result."""
        return tuple(trial for trial in trials if self.state(trial.id) is State.DONE)


def _remove(path: Path) -> None:
    if path.exists():
        files.remove(path)  # which syncs the directory: not for nothing


def _read(path: Path, schema: str, content: type[T], *, remedy: str = artifacts.REMEDY) -> T | None:
    """An artifact, or None where there is no file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ArtifactError(
            f"{path} cannot be read: {error.strerror or error}",
            remedy="Give this user the right to read it.",
        ) from error
    return artifacts.decode(data, schema, content, source=str(path), remedy=remedy)
