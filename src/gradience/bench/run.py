"""A bench from settings to verdict: plan, run what is not done, judge, write the report."""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gradience import files
from gradience.bench.driver.drive import Driver
from gradience.bench.driver.progress import Snapshot
from gradience.bench.driver.room import Room
from gradience.bench.executors import EXECUTORS
from gradience.bench.executors.executor import Executor
from gradience.bench.ledger import Ledger, State
from gradience.bench.plan.adopt import Accept
from gradience.bench.plan.prepare import Prepared, prepare
from gradience.bench.records import Bench
from gradience.bench.settings import BenchSettings
from gradience.units import parse_size

_LOCK_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a bench is run; none of it changes a number.

    Attributes
    ----------
    retry_failed : bool
        Run trials again that failed before.
    accept : collection of str
        Use results of other `code`, or other `versions` of libraries.
    executor : Executor, optional
        In the place of the one that the settings name.
    environ : mapping, optional
        By default that of the process.
    watch : callable, optional
        Told a snapshot about twice a second.
    notice : callable
        Takes sentences for the user.
    """

    retry_failed: bool = False
    accept: Collection[Accept] = ()
    executor: Executor | None = None
    environ: Mapping[str, str] | None = None
    watch: Callable[[Snapshot], None] | None = None
    notice: Callable[[str], None] = lambda sentence: None


def run_bench(settings: BenchSettings, root: Path, options: RunOptions | None = None) -> Bench:
    """Run every trial of a bench that has no result yet.

    Parameters
    ----------
    settings : BenchSettings
        Resolved, as `config.load` gives them.
    root : Path
        The output directory. Nothing is written outside of it but caches.
    options : RunOptions, optional

    Returns
    -------
    Bench
        The plan, as it was written to `settings.json`: `Ledger(root)` has what came of it.

    Raises
    ------
    StorageError
        If another driver works there, the disk refuses, or the next trial does not fit.
    BaseModelError, MissingExtraError, UsageError
        If it cannot begin.
    """
    options = options or RunOptions()
    environ = os.environ if options.environ is None else options.environ
    with files.locked(root / "bench", timeout=_LOCK_SECONDS):
        prepared = prepare(settings, root, accept=options.accept, environ=environ)
        _tell_refused(prepared, options.notice)
        if prepared.shapes.doubt:
            options.notice(prepared.shapes.doubt)
        ledger = Ledger(root)
        bench = ledger.with_history(prepared.bench)
        ledger.write_bench(bench, now=datetime.now(UTC))
        _drive(ledger, prepared, options, environ)
        # Before the verdict is computed: a driver that is killed may count one look too many.
        looked = ledger.with_look(bench)
        if looked != bench:
            ledger.write_bench(looked, now=datetime.now(UTC))
    return looked


def _drive(
    ledger: Ledger, prepared: Prepared, options: RunOptions, environ: Mapping[str, str]
) -> None:
    bench = prepared.bench
    settings = bench.settings.executor
    # What the fingerprints say was asked for; and so a GPU that goes missing is an error.
    settings = msgspec.structs.replace(settings, device=bench.trials[0].spec.device)
    if options.executor is not None:
        executor = options.executor
    elif all(ledger.state(trial.id) is State.DONE for trial in bench.trials):
        return
    else:
        executor = EXECUTORS[settings.name].open(settings, environ, options.notice)
    budget = bench.settings.disk_budget
    Driver(
        ledger=ledger,
        trials=bench.trials,
        executor=executor,
        shapes=prepared.shapes,
        items=prepared.items,
        room=Room(ledger=ledger, cap=None if budget is None else parse_size(budget)),
        accepted=bench.accepted,
        retry_failed=options.retry_failed,
        watch=options.watch,
        notice=options.notice,
    ).run()


def _tell_refused(prepared: Prepared, notice: Callable[[str], None]) -> None:
    if not prepared.refused:
        return
    what = sorted(set(prepared.refused.values()))
    code = any("code of Gradience" in told for told in what)
    other = any(told != "code of Gradience" for told in what)
    options = [f"--accept {name}" for name, there in (("code", code), ("versions", other)) if there]
    notice(
        f"{len(prepared.refused)} results here come from other software ({'; '.join(what[:3])}) "
        f"and do not count; {' '.join(options)} uses them."
    )
