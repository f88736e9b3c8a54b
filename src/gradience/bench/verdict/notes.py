"""What a reader must know before the verdicts: failed controls, undertrained probes, gaps."""

from collections.abc import Iterator, Sequence

import numpy as np

from gradience.bench.records import PROBE, Control, Failure
from gradience.bench.verdict import words
from gradience.bench.verdict.pairing import Scored
from gradience.units import plural


def notes(
    scored: Scored,
    controls: Sequence[Control],
    failures: Sequence[Failure],
    waiting: Sequence[str] = (),
) -> tuple[str, ...]:
    """Sentences, the gravest first."""
    return (
        *_waiting(waiting),
        *_failed_controls(controls),
        *_untrained(scored),
        *_gaps(scored),
        *_failures(failures),
        *_environments(scored),
        *_processors(scored),
    )


def _waiting(waiting: Sequence[str]) -> Iterator[str]:
    if waiting:
        yield (
            f"Not run yet: {plural(len(waiting), 'trial')} of the plan ({_first(waiting)}). A "
            "verdict seen before they ran would be a look of its own: if it decided whether they "
            "run, the level would not hold."
        )


def _failed_controls(controls: Sequence[Control]) -> Iterator[str]:
    for control in controls:
        if control.passed is False:
            yield (
                f"Control {control.variant} failed: expected {control.expectation}; observed "
                f"{control.observed}. Verdicts that rest on it are withheld."
            )


def _untrained(scored: Scored) -> Iterator[str]:
    falling = [
        str(seed)
        for seed, probe in scored.probes.items()
        if probe.training is not None and probe.training.still_falling
    ]
    if falling:
        yield (
            f"The probe of {_seeds(falling)} is undertrained: its training loss was still falling "
            "at the end. What is safe for it need not be safe for one trained to the end."
        )
    for seed, probe in scored.probes.items():
        mean = float(np.mean(probe.items.scores))
        if probe.before is not None and mean <= probe.before:
            yield (
                f"The probe of seed {seed} scores {words.score(mean, binary=scored.binary)}, not "
                f"better than {words.score(probe.before, binary=scored.binary)} before training: "
                "it learned nothing that a smaller adapter could lose."
            )


def _gaps(scored: Scored) -> Iterator[str]:
    seeds = sorted({seed for found in scored.by_variant.values() for seed in found})
    without = [seed for seed in seeds if seed not in scored.probes]
    if without:
        yield (f"There is no probe for {_seeds(without)}: what else ran with it is not judged.")
    for name, found in scored.by_variant.items():
        missing = [seed for seed in scored.probes if seed not in found]
        if missing and name != PROBE:
            have = len(scored.probes) - len(missing)
            yield (
                f"{name} has no result for {_seeds(missing)}: judged on {have} of "
                f"{len(scored.probes)} seeds."
            )


def _failures(failures: Sequence[Failure]) -> Iterator[str]:
    if failures:
        named = _first([f"{f.variant} (seed {f.seed})" for f in failures])
        yield f"{plural(len(failures), 'trial')} failed: {named}."


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more}"


def _environments(scored: Scored) -> Iterator[str]:
    """Seeds that ran under other versions: their variance then holds that too."""
    found = {
        (*sorted(p.trial.spec.versions.items()), p.trial.spec.code, p.trial.spec.device)
        for p in scored.probes.values()
    }
    if len(found) > 1:
        yield (
            f"The seeds ran in {len(found)} environments (versions, code or device differ): what "
            "that changes counts as variance of seeds."
        )


def _processors(scored: Scored) -> Iterator[str]:
    """Pairs of which each half was computed by another: rounding then counts as a difference."""
    apart = [
        (name, seed, result.ran_on, scored.probes[seed].ran_on)
        for name, found in scored.by_variant.items()
        for seed, result in found.items()
        if seed in scored.probes and result.ran_on != scored.probes[seed].ran_on
    ]
    if apart:
        name, seed, here, there = apart[0]
        more = f", and {len(apart) - 1} more like it" if len(apart) > 1 else ""
        yield (
            f"{name} (seed {seed}) ran on {here or 'an unknown processor'} and its probe on "
            f"{there or 'an unknown one'}{more}: differences of rounding count as the variant's."
        )


def _seeds(seeds: Sequence[int | str]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
