"""Norms held against the base model: a sample is computed again, from other random starts."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isclose

from gradience.audit.base.base_norm import BaseNorm
from gradience.audit.base.devices import Device, DeviceChoice
from gradience.audit.base.measured import measure
from gradience.audit.base.norms_only import GivenNorms
from gradience.audit.base.rows import stored_rows
from gradience.audit.base.source import BaseModel
from gradience.audit.base.spectral_norm import Goal
from gradience.audit.base.weights import BaseWeight
from gradience.audit.norms.matrices import weight_of
from gradience.audit.norms.proof import is_proved
from gradience.audit.norms.records import Verification, WeightCheck
from gradience.errors import UnmeasurableError

Progress = Callable[[str, int, int], None]
Notice = Callable[[str], None]

# Two sums of the same squares in another order.
_SAME = 1e-9

# A proof takes something off the bound for its own rounding. The norm of a matrix of one row is its
# Frobenius norm: its upper bound is the norm, and nothing can be taken off.
_PROVED_TO = 1e-7

SAMPLE = 8
"""Weights that are measured again where nothing else is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How norms are checked.

    Attributes
    ----------
    sample : int or None
        How many weights are measured again; None for all.
    prove : int
        For how many of them the upper bound is proved; the smallest ones of the sample.
    seed : int
        Of the choice, and of the starts: another seed is another check.
    devices : DeviceChoice
    progress : callable, optional
        Told (stage, done, total).
    notice : callable, optional
        Told in a sentence what comes over the network.
    """

    sample: int | None = SAMPLE
    prove: int = 0
    seed: int
    devices: DeviceChoice
    progress: Progress | None = None
    notice: Notice | None = None


def verify(given: GivenNorms, base: BaseModel, how: Check) -> Verification:
    """Compute a sample of norms again, and prove some of the upper bounds.

    Parameters
    ----------
    given : GivenNorms
    base : BaseModel
    how : Check

    Raises
    ------
    BaseModelError, TransferError
        If a shard cannot be had.
    DownloadRefusedError
        If more would come over the network than may.
    """
    keys = sorted(given.norms)
    if how.sample is not None and how.sample < len(keys):
        keys = sorted(random.Random(how.seed).sample(keys, how.sample))
    weights = {key: weight_of(key, given.norms[key], base.tensors) for key in keys}
    for key in base.absent.keys() & keys:
        raise base.not_here(base.absent[key], key)
    present = {key: weight for key, weight in weights.items() if weight is not None}
    numbers = sum(w.stored_shape[0] * w.stored_shape[1] for w in present.values())
    work = _Work(given, base, how, how.devices.device(numbers))
    to_prove = _smallest(present, how.prove)
    again = [w for members in work.goals(present).values() for w in work.device.order(members)]
    expected = base.expect([*again, *to_prove])
    if expected and how.notice:
        how.notice(expected)
    seen, reasons = work.measured(present)
    proved = work.proved(to_prove)
    checks = (
        held_against(key, given.norms[key], seen.get(key), reasons.get(key, ""), proved.get(key))
        if key in present
        else _absent(key, given.norms[key])
        for key in keys
    )
    return Verification(
        source=given.source,
        model=given.content.model,
        revision=given.content.revision,
        fingerprint=given.content.fingerprint,
        base_model=base.model,
        base_revision=base.revision,
        base_fingerprint=base.fingerprint,
        weights=len(given.norms),
        seed=how.seed,
        checked=tuple(checks),
    )


@dataclass(frozen=True, slots=True)
class _Work:
    """What is checked against what, and how."""

    given: GivenNorms
    base: BaseModel
    how: Check
    device: Device

    def tell(self, stage: str, done: int, total: int) -> None:
        """Say how far a stage is, if anybody listens."""
        if self.how.progress:
            self.how.progress(stage, done, total)

    def goals(self, present: Mapping[str, BaseWeight]) -> Mapping[Goal, list[BaseWeight]]:
        """The weights by how finely the file says they were measured, from another start."""
        goals: dict[Goal, list[BaseWeight]] = {}
        for key, weight in present.items():
            norm = self.given.norms[key]
            # The start of the file was drawn from seed 0.
            goal = Goal(width=norm.width, eta=norm.eta, seed=self.how.seed + 1)
            goals.setdefault(goal, []).append(weight)
        return goals

    def measured(
        self, present: Mapping[str, BaseWeight]
    ) -> tuple[dict[str, BaseNorm], dict[str, str]]:
        """Norms of the weights, and why others have none."""
        seen: dict[str, BaseNorm] = {}
        reasons: dict[str, str] = {}
        for goal, members in self.goals(present).items():
            before = len(seen) + len(reasons)

            def tell(count: int, before: int = before) -> None:
                self.tell("measured again", before + count, len(present))

            found = measure(self.base, members, goal=goal, device=self.device, done=tell)
            seen |= found.norms
            reasons |= found.reasons
        return seen, reasons

    def proved(self, weights: Sequence[BaseWeight]) -> dict[str, bool]:
        """Whether no norm is above its upper bound by more than `_PROVED_TO`, for certain.

        Nothing is said of weights that are too large for a proof.
        """
        proved: dict[str, bool] = {}
        for count, weight in enumerate(weights, start=1):
            stored = stored_rows(self.base, weight)
            try:
                upper = self.given.norms[weight.key].upper
                proved[weight.key] = is_proved(stored, upper * (1.0 + _PROVED_TO))
            except UnmeasurableError:
                continue
            finally:
                stored.release()
            self.tell("proved", count, len(weights))
        return proved


def _smallest(present: Mapping[str, BaseWeight], count: int) -> list[BaseWeight]:
    """Those whose proof is cheapest."""
    order = sorted(
        present.values(), key=lambda w: min(w.stored_shape) * w.stored_shape[0] * w.stored_shape[1]
    )
    return order[:count]


def held_against(
    key: str, told: BaseNorm, seen: BaseNorm | None, reason: str, proved: bool | None = None
) -> WeightCheck:
    """What is told beside what is seen: both intervals hold the norm, so they must meet.

    Parameters
    ----------
    key : str
        Of the weight.
    told, seen : BaseNorm
        `seen` is None where the weight has no norm, and `reason` says why.
    reason : str
    proved : bool or None
        Whether the upper bound was proved.
    """
    if seen is not None:
        apart = max(told.lower, seen.lower) > min(told.upper, seen.upper) * (1.0 + _SAME)
        other_sum = abs(told.frobenius - seen.frobenius) > _SAME * seen.frobenius
        if apart:
            reason = "the two intervals do not meet"
        elif other_sum:
            reason = "the Frobenius norm is another"
        elif told.is_much_wider(max(told.width, seen.reached)):
            # It holds the norm and says nothing: UDR stands on its lower end.
            reason = f"its interval is wider than the {told.width:g} it was measured to"
        elif not _same_rounding(told, seen):
            reason = "the rounding error of its format is another"
    return WeightCheck(
        key=key,
        told=_three(told),
        seen=None if seen is None else _three(seen),
        outcome="disagrees" if reason else "agrees",
        reason=reason,
        proved=proved,
    )


def _same_rounding(told: BaseNorm, seen: BaseNorm) -> bool:
    """Whether the file tells nothing of the rounding, or what is so."""
    if told.rounding is None or seen.rounding is None:
        return told.rounding is None
    return isclose(told.rounding, seen.rounding, rel_tol=_SAME)


def _absent(key: str, told: BaseNorm) -> WeightCheck:
    return WeightCheck(
        key=key,
        told=_three(told),
        seen=None,
        outcome="absent",
        reason=f"the base has no {key} of shape {told.shape} and type {told.dtype}",
    )


def _three(norm: BaseNorm) -> tuple[float, float, float]:
    return norm.lower, norm.upper, norm.frobenius
