"""Controls: what must come out the same, what must come out worse, and the yardsticks.

A bench that cannot tell a random subspace from the probe could not have told a bad truncation
either: an argument of clinical trials, where it is called assay sensitivity (ICH E10, section 1.5).
"""

from collections.abc import Iterator

import numpy as np

from gradience.bench.records import Control
from gradience.bench.settings import ClaimSettings
from gradience.bench.verdict import words
from gradience.bench.verdict.estimate import estimate
from gradience.bench.verdict.pairing import Paired, Scored

_RESAVE, _RANDOM = "resave", "random"
YARDSTICKS = ("bf16", "int8")
ACTIONS = (_RESAVE, _RANDOM, *YARDSTICKS)
"""Actions of `gradience.bench.actions.ACTIONS` that make controls."""

EXPECTATIONS = {
    _RESAVE: "the probe, saved again: every difference exactly 0",
    _RANDOM: "a random subspace: shown to be worse than the probe, and not SAFE",
    "bf16": "the probe's factors in bfloat16",
    "int8": "the probe's factors in int8",
}


def judge(scored: Scored, claim: ClaimSettings) -> tuple[Control, ...]:
    """Every control that ran, and those that had to and did not."""
    return tuple(_controls(scored, claim))


def withheld(controls: tuple[Control, ...]) -> tuple[bool, bool]:
    """Whether controls take back every verdict, and whether they take back every SAFE.

    A probe that scores otherwise when saved again shows that the evaluation is not the same twice:
    no verdict stands. A random subspace that does as well as the probe shows that the bench cannot
    see harm: NOT SAFE stands, SAFE does not.
    """
    failed = {c.expectation for c in controls if c.passed is False}
    return EXPECTATIONS[_RESAVE] in failed, EXPECTATIONS[_RANDOM] in failed


def _controls(scored: Scored, claim: ClaimSettings) -> Iterator[Control]:
    for action in ACTIONS:
        names = [
            name
            for name, found in scored.by_variant.items()
            if next(iter(found.values())).trial.spec.variant.action == action
        ]
        pairs = [pair for name in names if (pair := scored.pair(name)) is not None]
        if not pairs and action not in YARDSTICKS:
            yield Control(
                variant=names[0] if names else f"control-{action}",
                expectation=EXPECTATIONS[action],
                passed=False,
                observed="no result: it failed, or has not run yet",
            )
        for pair in pairs:
            yield _control(pair, action, claim)


def _control(pair: Paired, action: str, claim: ClaimSettings) -> Control:
    found = estimate(pair)
    passed: bool | None = None
    if action == _RESAVE:
        passed = found.identical
        observed = _differing(pair)
    else:
        lower, upper = found.bounds(claim.level)
        observed = words.interval(found.mean, lower, upper, binary=found.binary)
        if action == _RANDOM:
            passed = upper < 0 and found.p_value(claim.margin) > claim.level
    return Control(
        variant=pair.variant.name,
        expectation=EXPECTATIONS[action],
        passed=passed,
        observed=observed,
    )


def _differing(pair: Paired) -> str:
    changed = int(np.count_nonzero(pair.differences))
    seeds = f"{len(pair.seeds)} seed{'s' if len(pair.seeds) > 1 else ''}"
    if not changed:
        return f"0 of {pair.differences.size} scores differ ({seeds})"
    largest = float(np.max(np.abs(pair.differences)))
    return f"{changed} of {pair.differences.size} scores differ ({seeds}), by up to {largest:.3g}"
