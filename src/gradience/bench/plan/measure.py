"""How long trials take, from the beginning of one: a probe is started, timed, and stopped.

A trial says at every stage how much of it is done, so its first minutes tell the speed of
evaluation and of training without any model of the hardware.
"""

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gradience.bench.executors import EXECUTORS
from gradience.bench.executors.executor import Ended, Job
from gradience.bench.ledger import Ledger, Stage
from gradience.bench.plan.defaults import HEAL_SHARE
from gradience.bench.plan.trials import variants
from gradience.bench.records import PROBE, Bench, TrialResult
from gradience.errors import TrialError

_LOOK_SECONDS = 0.2
_TRAIN, _EVALUATE = "train", "evaluate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A stage at a moment.

    Attributes
    ----------
    at : float
        Seconds since the start of the process.
    """

    at: float
    stage: Stage


def measured_seconds(
    bench: Bench, *, seconds: float, progress: Callable[[str, int, int], None] | None = None
) -> Mapping[str, float]:
    """Seconds of a trial of each action, as far as a timed start of a probe tells.

    Parameters
    ----------
    bench : Bench
    seconds : float
        How long to look, at most.
    progress : callable, optional
        Told ("measure", seconds passed, seconds in all).

    Returns
    -------
    mapping of str to float
        Actions of which nothing can be said yet are absent.

    Raises
    ------
    TrialError
        If the probe fails.
    """
    with tempfile.TemporaryDirectory(prefix="gradience-measure-") as place:
        seen, probe = _look(bench, Path(place), seconds, progress)
    return of_probe(bench, probe) if probe is not None else estimate(bench, seen)


def _look(
    bench: Bench,
    place: Path,
    seconds: float,
    progress: Callable[[str, int, int], None] | None,
) -> tuple[list[Seen], TrialResult | None]:
    """What a probe said of its stages, and its result if it was done in the time."""
    ledger = Ledger(place)
    trial = bench.trials[0]
    ledger.write_bench(msgspec.structs.replace(bench, trials=(trial,)), now=datetime.now(UTC))
    settings = msgspec.structs.replace(bench.settings.executor, name="local", options={})
    executor = EXECUTORS["local"].open(settings, os.environ, lambda told: None)
    seen: list[Seen] = []
    gone: Sequence[Ended] = ()
    began = time.monotonic()
    try:
        directory = ledger.paths(trial.id).directory
        executor.submit(
            Job(
                trial=trial.id,
                name=trial.name,
                directory=directory,
                needs=(),
                device="cuda" if trial.spec.device == "cuda" else "cpu",
            )
        )
        while (now := time.monotonic() - began) < seconds:
            gone = executor.ended(_LOOK_SECONDS)
            stage = ledger.stage(trial.id)
            if stage is not None and (not seen or seen[-1].stage != stage):
                seen.append(Seen(at=now, stage=stage))
            if progress is not None:
                progress("measure", round(now), round(seconds))
            if gone:
                break
        result = ledger.result(trial)
        if gone and result is None:
            raise TrialError(
                f"the probe failed: {ledger.reason(trial.id, gone[0].message)}",
                remedy="Mend that first; a run would fail with it too.",
            )
        return seen, result
    finally:
        executor.close()


def of_probe(bench: Bench, probe: TrialResult) -> dict[str, float]:
    """Seconds by action from a whole probe. Pure.

    A variant is evaluated once where the probe was twice, so this is rather too much.
    """
    train = 0.0 if probe.training is None else probe.training.seconds
    return {"probe": probe.seconds, **_variants(bench, probe.seconds - train, train)}


def estimate(bench: Bench, seen: list[Seen]) -> dict[str, float]:
    """Seconds by action from what the beginning of a probe showed. Pure.

    A probe is loaded, trained and evaluated twice (after and before); a variant is loaded and
    evaluated once, and trained as its action says. Nothing is said of what was not seen.
    """
    evaluate = _whole(seen, _EVALUATE)
    if evaluate is None:
        return {}
    train, quick = _whole(seen, _TRAIN), seen[0].at + evaluate
    found = _variants(bench, quick, train)
    return found if train is None else {**found, "probe": quick + train + evaluate}


def _variants(bench: Bench, quick: float, train: float | None) -> dict[str, float]:
    """Seconds by action, the probe's apart; those that train are absent where that is unknown."""
    shares = {"retrain": 1.0, "heal": HEAL_SHARE}
    actions = {variant.action for variant in variants(bench.settings)} - {PROBE}
    return {
        action: quick + shares.get(action, 0.0) * (train or 0.0)
        for action in actions
        if train is not None or action not in shares
    }


def _whole(seen: list[Seen], name: str) -> float | None:
    """Seconds of a whole stage, from its first sight to the last of that stretch."""
    first = next((i for i, s in enumerate(seen) if s.stage.stage == name), None)
    if first is None:
        return None
    stretch = [seen[first]]
    for one in seen[first + 1 :]:
        if one.stage.stage != name or one.stage.done < stretch[-1].stage.done:
            break
        stretch.append(one)
    begin, end = stretch[0], stretch[-1]
    moved = end.stage.done - begin.stage.done
    if moved <= 0:
        return None
    return (end.at - begin.at) * end.stage.total / moved
