"""One trial, in a process of its own: `python -m gradience.bench.trial TRIAL_DIR [--needs DIR]...`.

    trial.json -action-> adapter/ -PEFT, task-> scores -> result.json

The result is written last and at once: a process that dies at any point leaves a trial that is not
done. Exit code 0: done. 6: failed; the last two lines on standard error say why, and what to do.
"""

import argparse
import math
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import msgspec

from gradience import artifacts, files
from gradience.adapter.read import read_adapter
from gradience.adapter.records import Adapter
from gradience.audit.run import audit_lora_peft_dir
from gradience.bench.actions import ACTIONS
from gradience.bench.actions.action import Action, Attempt, Made, location_of
from gradience.bench.base_model import base_directory
from gradience.bench.ledger import Stage, TrialPaths
from gradience.bench.plan.fingerprints import changed_inputs
from gradience.bench.records import (
    RESULT_SCHEMA,
    TRIAL_SCHEMA,
    AdapterFacts,
    Items,
    Trial,
    TrialResult,
    TrialSpec,
)
from gradience.bench.tasks import TASKS
from gradience.bench.tasks.task import Examinee, ProgressReport
from gradience.compress.rewrite import change_error, factor_bytes
from gradience.errors import ExitCode, GradienceError, TrialError, UnmeasurableError

_EVERY = 1.0
"""Seconds between two writes of progress.json, at least."""


class ProgressFile:
    """Writes where a trial is, at most once a second, and always the beginning of a stage."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._stage = ""
        self._next = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` units of `stage` are done."""
        now = self._clock()
        if stage == self._stage and now < self._next:
            return
        self._stage, self._next = stage, now + _EVERY
        content = msgspec.json.encode(Stage(stage=stage, done=done, total=total))
        files.replace(self._path, content)


def run(
    directory: Path, needs: Sequence[Path] = (), *, progress: ProgressReport | None = None
) -> TrialResult:
    """Make the adapter of a trial, evaluate it, write `result.json`.

    Parameters
    ----------
    directory : Path
        Holds `trial.json`; everything is written below it.
    needs : sequence of Path
        Directory of the probe's trial, for a variant that starts from one.
    progress : callable, optional
        Told (stage, done, total); by default `progress.json` is written.

    Returns
    -------
    TrialResult
        What `result.json` holds.

    Raises
    ------
    GradienceError
        If the trial cannot be done; nothing is left that looks like a result.
    """
    began = time.monotonic()
    paths = TrialPaths(directory)
    trial = _read(paths)
    action = ACTIONS[trial.spec.variant.action]
    for left in (paths.adapter, paths.step0, paths.work):
        files.remove_tree(left)
    attempt = Attempt(
        trial=trial,
        paths=paths,
        probe=_probe(trial, action, needs),
        progress=progress or ProgressFile(paths.progress),
    )
    _refuse_changed(trial.spec)
    result = _carry_out(attempt, action, began)
    _refuse_changed(trial.spec)  # again: it may have happened while the trial was reading
    files.remove_tree(paths.work)
    files.replace(
        paths.result, artifacts.encode(RESULT_SCHEMA, result, now=datetime.now(UTC), indent=0)
    )
    return result


def _carry_out(attempt: Attempt, action: Action, began: float) -> TrialResult:
    """Make the adapter, evaluate it, audit it: what comes of a trial, before it is written."""
    from gradience.bench.trial.host import deterministic, processor  # noqa: PLC0415 - torch, after the checks

    trial, paths = attempt.trial, attempt.paths
    with deterministic():
        made = action.make(attempt)
        items = evaluate(attempt, paths.adapter)
        before = _mean(evaluate(attempt, paths.step0)) if paths.step0.exists() else None
    adapter = read_adapter(location_of(paths.adapter))
    return TrialResult(
        trial=trial,
        metric=TASKS[trial.spec.task.name].metric(trial.spec.task),
        items=items,
        adapter=_facts(attempt, action, made, adapter),
        training=made.training,
        before=before,
        audit=_audit(attempt),
        seconds=time.monotonic() - began,
        peak_bytes=_peak_bytes(),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        ran_on=processor(attempt.host.device),
    )


def evaluate(attempt: Attempt, directory: Path) -> Items:
    """The scores of an adapter as it lies in a directory.

    Raises
    ------
    TrialError
        If a score is no number, or an item is missing or there twice.
    """
    host, spec = attempt.host, attempt.trial.spec
    examinee = Examinee(
        model=host.put_on(directory),
        tokenizer=host.tokenizer,
        batch_size=spec.evaluation.batch_size,
        limit=spec.evaluation.limit,
        max_length=spec.train.max_length,
        progress=attempt.progress,
    )
    items = host.task.evaluate(spec.task, examinee)
    _check(items, spec)
    return items


def _read(paths: TrialPaths) -> Trial:
    try:
        data = paths.trial.read_bytes()
    except OSError as error:
        raise TrialError(
            f"{paths.trial} cannot be read: {error.strerror}",
            remedy="Start trials with `gradience bench`, which writes it.",
        ) from error
    return artifacts.decode(data, TRIAL_SCHEMA, Trial, source=str(paths.trial))


def _probe(trial: Trial, action: Action, needs: Sequence[Path]) -> TrialPaths | None:
    if not action.needs_probe:
        return None
    if len(needs) != 1:
        raise TrialError(
            f"{trial.spec.variant.action} starts from one probe, and {len(needs)} were given",
            remedy="Give the directory of the probe's trial with --needs.",
        )
    return TrialPaths(needs[0])


def _refuse_changed(spec: TrialSpec) -> None:
    changed = changed_inputs(spec)
    if changed:
        raise TrialError(
            f"{changed[0]} has changed since the bench was started"
            + (f", and {len(changed) - 1} more" if len(changed) > 1 else ""),
            remedy="Start the bench again: trials of the new content then run under ids of their "
            "own.",
        )


def _check(items: Items, spec: TrialSpec) -> None:
    expected = TASKS[spec.task.name].test_items(spec.task)
    if spec.evaluation.limit is not None:
        expected = min(expected, spec.evaluation.limit)
    bad = [i for i, s in zip(items.ids, items.scores, strict=True) if not math.isfinite(s)]
    if bad:
        raise TrialError(
            f"the score of item {bad[0]} is no number, and {len(bad) - 1} more",
            remedy="The model gives NaN or Inf: lower `train.learning_rate`, or set `model.dtype` "
            "to bfloat16 or float32.",
        )
    clusters = len(items.clusters) in (0, len(items.ids))
    if len(items.ids) != expected or len(set(items.ids)) != expected or not clusters:
        raise TrialError(
            f"{len(items.ids)} items were scored, {len(set(items.ids))} of them different, and "
            f"there are {expected}",
            remedy="Report it: the task counts other items than it asks.",
        )


def _facts(attempt: Attempt, action: Action, made: Made, adapter: Adapter) -> AdapterFacts:
    """The adapter as it was written, read back."""
    error = None
    if action.from_weights:
        try:
            error = change_error(attempt.of_probe("adapter"), adapter)
        except UnmeasurableError as reason:
            print(f"no error of the change: {reason}")  # noqa: T201 - the log of the trial
    on_disk = factor_bytes(adapter)
    return AdapterFacts(
        ranks={layer.label: layer.rank for layer in adapter.layers},
        scale={layer.label: layer.scale for layer in adapter.layers},
        parameters=sum(layer.parameters for layer in adapter.layers),
        nbytes=Path(adapter.files[0]).stat().st_size,
        factor_bytes=on_disk if made.factor_bytes is None else made.factor_bytes,
        factor_bytes_on_disk=on_disk,
        fingerprint=adapter.fingerprint,
        relative_error=error,
    )


def _audit(attempt: Attempt) -> dict[str, float | int | str]:
    """Summary of the adapter's audit, beside its base where the audit can read that."""
    adapter, base = attempt.paths.adapter, base_directory(attempt.trial.spec.model)

    def progress(stage: str, done: int, total: int) -> None:
        attempt.progress(f"audit: {stage}", done, total)

    try:
        audit = audit_lora_peft_dir(adapter, base_model_id=base, use_cache=False, progress=progress)
    except GradienceError as reason:
        print(f"audited without its base: {reason}")  # noqa: T201 - the log of the trial
        audit = audit_lora_peft_dir(adapter, use_cache=False, progress=progress)
    return audit.summary()


def _mean(items: Items) -> float:
    return sum(items.scores) / len(items.scores)


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux: getrusage(2)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the trial of a directory and exit."""
    parser = argparse.ArgumentParser(prog="python -m gradience.bench.trial", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="TRIAL_DIR")
    parser.add_argument("--needs", type=Path, action="append", default=[], metavar="DIR")
    parsed = parser.parse_args(arguments)
    try:
        run(parsed.directory, parsed.needs)
    except GradienceError as error:
        print(f"error: {error}\nhint: {error.remedy}", file=sys.stderr)  # noqa: T201
        sys.exit(int(ExitCode.TRIAL_FAILED))
    except Exception as error:  # noqa: BLE001 - the boundary of the process: all is reported
        traceback.print_exc()
        print(f"error: {_first_line(error)}\nhint: {_hint(error)}", file=sys.stderr)  # noqa: T201
        sys.exit(int(ExitCode.TRIAL_FAILED))
    sys.exit(int(ExitCode.OK))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _hint(error: Exception) -> str:
    if type(error).__name__ == "OutOfMemoryError":  # torch's; it need not be imported here
        return "Lower train.batch_size (and raise gradient_accumulation), or evaluation.batch_size."
    return "The traceback above says where; report it if it is not your data."


if __name__ == "__main__":
    # Read by the libraries when they are imported, and needed however the process was started.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
