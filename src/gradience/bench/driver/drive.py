"""Run what has no result yet: start trials, wait for them, keep within the budget.

The driver decides and the executor runs. Nothing here is remembered but in the ledger: a driver
that is stopped at any point is followed by one that goes on with what is not done.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from gradience.bench.driver import budget
from gradience.bench.driver.budget import Part
from gradience.bench.driver.progress import RunningTrial, Snapshot, stage_left, whole_left
from gradience.bench.driver.room import Room
from gradience.bench.executors.executor import Ended, Executor, Job
from gradience.bench.ledger import Ledger, State
from gradience.bench.plan.costs import Cost, Shapes, cost
from gradience.bench.records import Trial, TrialResult
from gradience.errors import StorageError, UsageError
from gradience.units import format_size

_WAIT_SECONDS = 0.5
_LOOK_SECONDS = 5.0  # between two looks at the size of the directory
_LET_GO = "set disk_budget, which lets adapters go that nothing needs any more"


@dataclass(slots=True)
class _Attempt:
    """A trial that runs."""

    trial: Trial
    started: float
    cost: Cost
    stage: str = ""
    stage_started: float = 0.0


@dataclass(slots=True, kw_only=True)
class Driver:
    """One run over a plan.

    Parameters
    ----------
    ledger : Ledger
    trials : sequence of Trial
        The plan, a probe before what needs it.
    executor : Executor
    shapes : Shapes or None
        Of the base model, for estimates of bytes.
    items : int
        Test items of a trial.
    room : Room
        With the budget.
    accepted : collection of str
        Trials whose results come from other software: they cannot be made again as they were.
    retry_failed : bool
    watch : callable, optional
        Told a snapshot about twice a second.
    notice : callable
        Takes sentences for the user.
    """

    ledger: Ledger
    trials: Sequence[Trial]
    executor: Executor
    shapes: Shapes | None
    items: int
    room: Room
    accepted: Collection[str] = ()
    retry_failed: bool = False
    watch: Callable[[Snapshot], None] | None = None
    notice: Callable[[str], None]
    _running: dict[str, _Attempt] = field(default_factory=dict)
    _waiting: list[Trial] = field(default_factory=list)
    _results: dict[str, TrialResult] = field(default_factory=dict)
    _began: float = 0.0
    _looked: float = 0.0
    _failed: int = 0
    _costs: dict[tuple[str, int], Cost] = field(default_factory=dict)
    _stopped: dict[str, str] = field(default_factory=dict)

    def run(self) -> None:
        """Run every trial that is not done; returns when none is left that could run.

        Raises
        ------
        StorageError
            If the next trial does not fit into the budget or on the disk, with the arithmetic.
        """
        self._began = time.monotonic()
        self._sort_out()
        try:
            while self._start_what_fits() or self._running:
                for ended in self.executor.ended(_WAIT_SECONDS):
                    self._finish(ended)
                self._hold_the_cap()
                self._tell()
        finally:
            self.executor.close()
        self._tell()

    # What there is to do.

    def _sort_out(self) -> None:
        """Done, failed, or to be run; a probe whose adapter is gone runs again if it is needed."""
        for trial in self.trials:
            state = self.ledger.state(trial.id)
            if state is State.DONE:
                self._keep(trial)
            elif state is State.FAILED and not self.retry_failed:
                self._failed += 1
                self._bring_back(trial)  # a driver was killed before it could
            else:
                self._waiting.append(trial)
        for trial in [t for t in self.trials if t.id in self._results]:
            if trial.id in self._results:
                self._hold_against_the_old(trial)  # a driver was killed before it could
        hollow = [trial for trial in self.trials if self._is_hollow(trial)]
        for trial in self.trials:
            if trial.id in self._results and trial not in hollow:
                self.ledger.end(trial.id)
        self._waiting[:0] = [trial for trial in hollow if self._train_again(trial)]

    def _train_again(self, trial: Trial) -> bool:
        """Whether a trial whose result stands runs again for its adapter; not if that failed."""
        del self._results[trial.id]
        if self.ledger.failure(trial.id) is not None and not self.retry_failed:
            self._failed += 1
            return False
        self._check_own(trial)
        self.notice(
            f"The adapter of {trial.name} was removed for the budget and is needed: "
            "it is trained again."
        )
        self.ledger.set_aside(trial.id)
        return True

    def _check_own(self, trial: Trial) -> None:
        if trial.id in self.accepted:
            raise UsageError(
                f"the adapter of {trial.name} was removed for the budget and is needed, and "
                f"other software made it ({self.ledger.paths(trial.id).directory})",
                remedy="Run without --accept: its trials then run again.",
            )

    def _is_hollow(self, trial: Trial) -> bool:
        """Whether a trial is done, and what waiting trials need of it is gone."""
        needers = [t.spec.variant.action for t in self._waiting if trial.id in t.needs]
        if trial.id not in self._results or not needers:
            return False
        paths = self.ledger.paths(trial.id)
        whole = paths.adapter.is_dir() and ("retrain" not in needers or paths.step0.is_dir())
        return not whole

    def _keep(self, trial: Trial) -> None:
        result = self.ledger.result(trial)
        if result is not None:
            self._results[trial.id] = result

    # Starting.

    def _start_what_fits(self) -> bool:
        """Fill the free slots; whether anything was started."""
        started = False
        while len(self._running) < self.executor.slots:
            trial = next((t for t in self._waiting if self._is_ready(t)), None)
            if trial is None or not self._make_room(trial):
                break
            self._start(trial)
            started = True
        return started

    def _is_ready(self, trial: Trial) -> bool:
        return all(need in self._results for need in trial.needs)

    def _start(self, trial: Trial) -> None:
        self._waiting.remove(trial)
        self.ledger.begin(trial.id)
        job = Job(
            trial=trial.id,
            name=trial.name,
            directory=self.ledger.paths(trial.id).directory.absolute(),
            needs=tuple(self.ledger.paths(n).directory.absolute() for n in trial.needs),
            device="cuda" if trial.spec.device == "cuda" else "cpu",
        )
        self.executor.submit(job)
        now = time.monotonic()
        self._running[trial.id] = _Attempt(
            trial=trial, started=now, cost=self._cost(trial), stage_started=now
        )

    def _cost(self, trial: Trial) -> Cost:
        """Of a trial, as far as the results so far tell; the same for every seed."""
        key = (trial.spec.variant.name, len(self._results))
        if key not in self._costs:
            self._costs[key] = cost(
                trial.spec.variant,
                lora=trial.spec.lora,
                shapes=self.shapes,
                results=list(self._results.values()),
                items=self.items,
            )
        return self._costs[key]

    # Room.

    def _promised(self) -> int:
        """Bytes that running trials may still write."""
        return sum(
            max(0, (attempt.cost.peak or 0) - self.room.size(attempt.trial.id))
            for attempt in self._running.values()
        )

    def _removable(self) -> list[Part]:
        needers = [*self._waiting, *(attempt.trial for attempt in self._running.values())]
        needed = {need for trial in needers for need in trial.needs}
        parts = self.room.removable(self.trials, busy=self._running, needed=needed)
        if self.room.cap is None:
            # Adapters are somebody's work: only a budget that was asked for lets them go.
            return [part for part in parts if part.worth is budget.Worth.SCRATCH]
        return parts

    def _make_room(self, trial: Trial) -> bool:
        """Whether a trial may start now, after removing what may go."""
        estimate = self._cost(trial).peak or 0
        books = self.room.books(self._promised())
        wanted = budget.excess(books, estimate)
        if not wanted:
            return True
        parts = self._removable()
        if sum(part.nbytes for part in parts) >= wanted:
            self.notice(self.room.evict(budget.evictions(parts, wanted)))
            return True
        if self._running:
            return False  # what runs will end, and its scratch goes
        raise StorageError(
            f"no room for the next trial: {budget.arithmetic(books, trial.name, estimate, parts)}",
            remedy="Free space there, name another --output-dir, or "
            + ("raise disk_budget" if self.room.cap is not None else _LET_GO)
            + "; what is done stays done.",
        )

    def _hold_the_cap(self) -> None:
        """Now and then: a trial that grows beyond what was expected must not break the budget."""
        now = time.monotonic()
        if self.room.cap is None or now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        over = self.room.used() - self.room.cap
        if over <= 0:
            return
        parts = budget.evictions(self._removable(), over)
        if parts:
            self.notice(self.room.evict(parts))
        if sum(part.nbytes for part in parts) < over and self._running:
            largest = max(self._running, key=self.room.size)
            size = format_size(self.room.size(largest))
            self._stopped[largest] = f"stopped: it had grown to {size} and the budget was used up"
            self.executor.stop(largest)

    # Ending.

    def _finish(self, ended: Ended) -> None:
        attempt = self._running.pop(ended.trial, None)
        if attempt is None:
            return
        trial = attempt.trial
        if self.ledger.state(trial.id) is State.DONE:
            self.ledger.end(trial.id)
            self._keep(trial)
            self._hold_against_the_old(trial)
            return
        message = self._stopped.pop(trial.id, "") or self.ledger.reason(trial.id, ended.message)
        self.ledger.write_failure(trial.id, message, now=_now())
        self._failed += 1
        self.notice(f"{trial.name} failed: {message}")
        self._bring_back(trial)

    def _bring_back(self, trial: Trial) -> None:
        """The result of a probe that was only to give its adapter again; what waits for that waits.

        Nothing else comes back: what was made from a probe that came out different is void.
        """
        if not trial.needs and self.ledger.old_result(trial) is not None:
            self.ledger.bring_back(trial.id)
            self.notice(
                f"The result that {trial.name} had stays; what needs its adapter waits for "
                "--retry-failed."
            )

    def _hold_against_the_old(self, trial: Trial) -> None:
        """A probe that was made again: what was made from another adapter does not count."""
        old = self.ledger.old_result(trial)
        if old is None:
            return
        if old.adapter.fingerprint != self._results[trial.id].adapter.fingerprint:
            self._set_aside_what_came_of(trial)
        # Last: a driver that is killed before it leaves the comparison to the next one.
        self.ledger.forget_old(trial.id)

    def _set_aside_what_came_of(self, trial: Trial) -> None:
        made = [t for t in self.trials if trial.id in t.needs and t.id in self._results]
        for other in made:
            self.ledger.set_aside(other.id)
            del self._results[other.id]
            self._waiting.append(other)
        if made:
            self.notice(
                f"{trial.name} came out different from the first time: what was made from it "
                "runs again."
            )

    # Telling.

    def _tell(self) -> None:
        if self.watch is None:
            return
        now = time.monotonic()
        running = tuple(self._look_at(attempt, now) for attempt in self._running.values())
        pending = {t.id: self._cost(t).seconds for t in self._waiting if self._can_come(t)}
        left, at_least = whole_left(pending, {r.id: r.left for r in running}, self.executor.slots)
        self.watch(
            Snapshot(
                total=len(self.trials),
                done=len(self._results),
                failed=self._failed,
                running=running,
                elapsed=now - self._began,
                left=left,
                at_least=at_least,
            )
        )

    def _can_come(self, trial: Trial) -> bool:
        """Whether what it needs is there or will be: not after its probe failed."""
        alive = {*self._results, *self._running, *(t.id for t in self._waiting)}
        return all(need in alive for need in trial.needs)

    def _look_at(self, attempt: _Attempt, now: float) -> RunningTrial:
        stage = self.ledger.stage(attempt.trial.id)
        elapsed = now - attempt.started
        known = attempt.cost.seconds
        if stage is None:
            left = None if known is None else max(0.0, known - elapsed)
            return RunningTrial(
                id=attempt.trial.id, name=attempt.trial.name, elapsed=elapsed, left=left
            )
        if stage.stage != attempt.stage:
            attempt.stage, attempt.stage_started = stage.stage, now
        of_stage = stage_left(stage.done, stage.total, now - attempt.stage_started)
        return RunningTrial(
            id=attempt.trial.id,
            name=attempt.trial.name,
            stage=stage.stage,
            done=stage.done,
            total=stage.total,
            elapsed=elapsed,
            left=of_stage if known is None else max(known - elapsed, 0.0),
        )


def _now() -> datetime:
    return datetime.now(UTC)
