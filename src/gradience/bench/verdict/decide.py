"""From an estimate and a level to SAFE, NOT SAFE or UNDERPOWERED, with the numbers that decided."""

from dataclasses import dataclass

from gradience.bench.records import Decision
from gradience.bench.settings import ClaimSettings
from gradience.bench.verdict import power, words
from gradience.bench.verdict.estimate import Estimate
from gradience.bench.verdict.ladders import Tested


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision and its reason, one or two sentences."""

    decision: Decision
    reason: str


def passes(found: Estimate, claim: ClaimSettings, level: float) -> bool:
    """Whether it is SAFE at this level: shown, with the power that was asked for."""
    return (
        found.seeds > 1
        and found.p_value(claim.margin) <= level
        and found.power(claim.margin, level) >= claim.power
    )


def decide(found: Estimate, claim: ClaimSettings, tested: Tested, above: Decided | None) -> Decided:
    """The decision on one step.

    Parameters
    ----------
    above : Decided or None
        On the step at which its ladder stopped, for a step that was not tested.
    """
    if found.p_worse(claim.margin) <= tested.level:
        return Decided(decision="NOT SAFE", reason=_loss_shown(found, claim, tested.level))
    if above is not None:
        return Decided(
            decision=above.decision,
            reason=f"Not tested: its ladder stopped at {tested.stopped_at}, which is "
            f"{above.decision}, and below that nothing can be SAFE. "
            f"Measured: {_measured(found, tested.level)}.",
        )
    if found.seeds == 1:
        return Decided(decision="UNDERPOWERED", reason=_one_seed(found, tested.level))
    has_power = found.power(claim.margin, tested.level) >= claim.power
    if tested.passed:
        return Decided(decision="SAFE", reason=_safe(found, claim, tested.level))
    if has_power:
        return Decided(decision="NOT SAFE", reason=_not_shown(found, claim, tested.level))
    return Decided(decision="UNDERPOWERED", reason=_underpowered(found, claim, tested.level))


def _safe(found: Estimate, claim: ClaimSettings, level: float) -> str:
    if found.identical:
        return (
            f"Every score equals the probe's ({found.items} items, {found.seeds} seeds; "
            f"p {words.p_value(found.p_value(claim.margin))})."
        )
    return (
        f"A loss of {_margin(found, claim)} is ruled out: {_measured(found, level)}, "
        f"p {words.p_value(found.p_value(claim.margin))} against {words.level(level)}; "
        f"{_power(found, claim, level)}."
    )


def _not_shown(found: Estimate, claim: ClaimSettings, level: float) -> str:
    return (
        f"A loss of {_margin(found, claim)} is not ruled out: {_measured(found, level)}, "
        f"p {words.p_value(found.p_value(claim.margin))} against {words.level(level)}, although "
        f"{_power(found, claim, level)}."
    )


def _loss_shown(found: Estimate, claim: ClaimSettings, level: float) -> str:
    only = " for this one seed" if found.seeds == 1 else ""
    return (
        f"A loss of more than {_margin(found, claim)} is shown{only}: {_measured(found, level)}, "
        f"p {words.p_value(found.p_worse(claim.margin))} against {words.level(level)}."
    )


def _one_seed(found: Estimate, level: float) -> str:
    return (
        "One seed shows nothing about another, so nothing can be SAFE; for this adapter alone: "
        f"{_measured(found, level)}."
    )


def _underpowered(found: Estimate, claim: ClaimSettings, level: float) -> str:
    if found.identical:
        return (
            f"Every score equals the probe's, but {found.clusters} independent items are too few "
            f"to rule out a loss of {_margin(found, claim)}."
        )
    if found.too_few(level):
        return (
            f"{found.clusters} {_kind(found)} are too few for any test: that all of them agree may "
            f"be chance. Measured: {_measured(found, level)}."
        )
    p = found.p_value(claim.margin)
    although = (
        f" (its p {words.p_value(p)} is below {words.level(level)}, but a test this weak passes "
        "by luck)"
        if p <= level
        else ""
    )
    return (
        f"The test could not tell: {_power(found, claim, level)}, and "
        f"{words.chance(claim.power)} is asked for{although}. "
        f"Measured: {_measured(found, level)}{_some_loss(found, level)}. "
        f"{_remedy(found, claim, level)}"
    )


def _some_loss(found: Estimate, level: float) -> str:
    return ": a loss, though not whether of the margin" if found.p_worse() <= level else ""


def _remedy(found: Estimate, claim: ClaimSettings, level: float) -> str:
    need = power.enough(
        found.design(claim.margin, level), margin=claim.margin, level=level, power=claim.power
    )
    ways = [
        f"{count} {name}"
        for count, name in ((need.seeds, "seeds"), (need.items, _kind(found)))
        if count is not None
    ]
    if not ways:
        return "Neither more seeds nor more items alone would be enough."
    told = f"Enough, if these variances hold: {' or '.join(ways)}."
    return told if need.seeds is None else f"{told} {_another_look(claim)}"


def _another_look(claim: ClaimSettings) -> str:
    if claim.looks > 1:
        return f"Seeds added now are another look: the claim allows for {claim.looks} in all."
    return (
        "Seeds added now are another look, which the claim does not allow for: the level would not "
        "hold. A new bench can plan it with claim.looks."
    )


def _kind(found: Estimate) -> str:
    return "items" if found.clusters == found.items else "clusters"


def _measured(found: Estimate, level: float) -> str:
    lower, upper = found.bounds(level)
    return words.interval(found.mean, lower, upper, binary=found.binary)


def _power(found: Estimate, claim: ClaimSettings, level: float) -> str:
    return f"the test had {words.chance(found.power(claim.margin, level))} power at no loss"


def _margin(found: Estimate, claim: ClaimSettings) -> str:
    return words.amount(claim.margin, binary=found.binary)
