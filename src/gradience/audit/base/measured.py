"""Norms of base weights, measured one weight at a time.

On a CPU memory is bounded by the largest weight: its data is mapped, streamed in blocks of rows by
all cores together, and given back before the next is read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gradience.audit.base.base_norm import BaseNorm
from gradience.audit.base.devices import ONE_THREAD, Device
from gradience.audit.base.rows import StoredRows, TensorSource, stored_rows
from gradience.audit.base.spectral_norm import DEFAULT_GOAL, Goal
from gradience.audit.base.weights import BaseWeight
from gradience.errors import UnmeasurableError


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What came out for each weight, by its key.

    Attributes
    ----------
    norms : dict of str to BaseNorm
    reasons : dict of str to str
        Why the others have no norm.
    nbytes : int
        Stored bytes of the weights that were read.
    """

    norms: dict[str, BaseNorm]
    reasons: dict[str, str]
    nbytes: int


def measure(
    base: TensorSource,
    weights: Sequence[BaseWeight],
    *,
    goal: Goal = DEFAULT_GOAL,
    device: Device = ONE_THREAD,
    done: Callable[[int], None] = lambda count: None,
) -> Measured:
    """Measure the norms of base weights.

    Parameters
    ----------
    base : TensorSource
    weights : sequence of BaseWeight
    goal : Goal
    device : Device
    done : callable
        Told after each weight how many are measured.

    Raises
    ------
    BaseModelError
        If a shard cannot be had. A weight without a norm (NaN, infinity) raises nothing: its
        reason is in the answer.
    """
    norms: dict[str, BaseNorm] = {}
    reasons: dict[str, str] = {}
    # Taken where a weight is opened: the device releases it.
    rounding: dict[str, float | None] = {}
    nbytes = 0

    def opened(weight: BaseWeight) -> StoredRows:
        nonlocal nbytes
        stored = stored_rows(base, weight)
        nbytes += stored.nbytes
        if weight.key not in rounding:
            rounding[weight.key] = _rounding(stored)
        return stored

    for weight, found in device.intervals(weights, opened, goal):
        if isinstance(found, UnmeasurableError):
            reasons[weight.key] = f"the base weight {weight.key} has no norm: {found}"
        else:
            norms[weight.key] = BaseNorm(
                lower=found.lower,
                upper=found.upper,
                frobenius=found.frobenius,
                shape=weight.stored_shape,
                dtype=weight.dtype,
                width=goal.width,
                eta=goal.eta,
                passes=found.passes,
                rounding=rounding[weight.key],
            )
        done(len(norms) + len(reasons))
    return Measured(norms=norms, reasons=reasons, nbytes=nbytes)


def _rounding(stored: StoredRows) -> float | None:
    """As `StoredRows.rounding`; None also for a weight that has no norm, which then says why."""
    try:
        return stored.rounding()
    except UnmeasurableError:
        return None
