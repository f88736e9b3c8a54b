"""The largest singular value of a big weight between two bounds, from a few passes over it.

Block Lanczos from a random start reaches the top of the spectrum in about eight passes. The lower
bound is a Rayleigh quotient recomputed in float64, certain. The upper bound follows from the
recurrence and the distribution of its random start, and fails with probability eta at most. A
single Rayleigh quotient that stopped changing would be no bound: on clustered spectra it stops low.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from math import inf, isfinite, ldexp, sqrt

import numpy as np
from numpy.typing import NDArray

from gradience.audit.base.bounds import excludes, upper_bound
from gradience.audit.base.gram import GramStream
from gradience.audit.base.krylov import DOUBLE, SINGLE, Arithmetic, BlockLanczos, Step
from gradience.audit.base.row_blocks import Array, RowBlocks, row_blocks
from gradience.blas import one_thread
from gradience.errors import UnmeasurableError, UsageError

__all__ = ["Crew", "Goal", "NormInterval", "RowBlocks", "row_blocks", "spectral_norm"]

Floats = NDArray[np.float64]

# Four vectors cost 1.5 times one and need a third of the passes at eta = 1e-9; one vector in
# float32 could not honour that eta at all.
BLOCK = 4
# Up to this smaller dimension a Gram matrix in float64 is cheaper than the passes, and certain.
SMALL = 64
# Narrower intervals than this need float64: the float32 allowance would eat the margin.
FINEST_SINGLE = 2e-4
_EPS = float(np.finfo(np.float64).eps)
_HALF_ULP_SINGLE = 2.0**-24


@dataclass(frozen=True, slots=True, kw_only=True)
class NormInterval:
    """Where the spectral norm of a matrix lies.

    Attributes
    ----------
    lower : float
        Certain: a Rayleigh quotient in float64, less its rounding.
    upper : float
        Holds with probability at least 1 - eta; never above `frobenius`.
    frobenius : float
        Frobenius norm, exact to float64 rounding.
    passes : int
        How often the matrix was read.
    """

    lower: float
    upper: float
    frobenius: float
    passes: int

    @property
    def width(self) -> float:
        """upper / lower - 1; 0 for a zero matrix."""
        return self.upper / self.lower - 1.0 if self.lower > 0.0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """When to stop, and how surely the bound must hold.

    Attributes
    ----------
    width : float
        Relative width of the interval at which to stop. What was really reached is reported: it is
        usually less, and more where `max_passes` or the end of float64 came first.
    eta : float
        Probability that `upper` is below the norm, over the random start; in (0, 1).
    max_passes : int
        Passes after which to stop with the interval reached; at least 2.
    seed : int
        Of the random start: the same seed gives the same interval.
    """

    width: float = 1e-3
    eta: float = 1e-9
    max_passes: int = 200
    seed: int = 0

    @property
    def reach(self) -> float:
        """Factor on the top Ritz value at which to stop once it is excluded.

        A twentieth of the width is left for the roundings that are added in the end.
        """
        return (1.0 + 0.95 * self.width) ** 2


DEFAULT_GOAL = Goal()


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """Threads that share the rows of a matrix, where it can be divided.

    Attributes
    ----------
    pool : Executor or None
    threads : int
        How many; another number changes the interval by rounding.
    """

    pool: Executor | None = None
    threads: int = 1


ALONE = Crew()


def spectral_norm(
    matrix: RowBlocks | Array,
    goal: Goal = DEFAULT_GOAL,
    *,
    crew: Crew = ALONE,
    environ: Mapping[str, str] | None = None,
) -> NormInterval:
    """Bound the largest singular value of a matrix.

    Parameters
    ----------
    matrix : RowBlocks or (m, n) array of any real dtype
        Streamed by rows. The basis takes 32 n bytes per pass in memory. A matrix stored transposed
        may be given as it is stored: its norms are the same, and rows apart in memory are slow.
    goal : Goal
    crew : Crew
    environ : mapping of str to str, optional
        The environment of the process: BLAS is held at one thread for the call, unless the user
        set its threads there. Left out, the caller holds `gradience.blas.one_thread` around many
        calls; without either the answer is the same and slower on a busy machine.

    Returns
    -------
    NormInterval

    Raises
    ------
    UnmeasurableError
        If the matrix holds NaN or Inf, has no elements, is not real, or has a norm that float64
        cannot hold.
    UsageError
        If `width`, `eta` or `max_passes` of the goal is out of range.

    References
    ----------
    See `gradience.audit.base.bounds` and `gradience.audit.base.krylov`.

    Examples
    --------
    >>> interval = spectral_norm(np.diag([3.0, 2.0, 1.0]))
    >>> round(interval.lower, 6), round(interval.upper, 6)
    (3.0, 3.0)
    """
    check(goal)
    source = _rows_of(matrix) if isinstance(matrix, np.ndarray) else matrix
    if 0 in source.shape:
        raise UnmeasurableError(
            f"a matrix of shape {source.shape} has no elements, so no norm",
            remedy="Check that the file was written completely.",
        )
    with nullcontext() if environ is None else one_thread(environ):
        gram = GramStream(source, crew.pool, crew.threads)
        if gram.zero:
            interval = NormInterval(lower=0.0, upper=0.0, frobenius=0.0, passes=gram.passes)
        elif min(gram.shape) <= SMALL:
            interval = _of_small(gram)
        else:
            interval = _of_large(gram, goal)
    return unscaled(interval, gram.exponent)


def _rows_of(array: Array) -> RowBlocks:
    """The array or its transpose, which has the same norms: whichever has its rows together."""
    if array.ndim == 2 and abs(array.strides[0]) < abs(array.strides[1]):
        return row_blocks(array.T)
    return row_blocks(array)


def check(goal: Goal) -> None:
    """Refuse options that cannot be meant.

    Raises
    ------
    UsageError
    """
    for name, value, good in (
        ("width", goal.width, 0.0 < goal.width < inf),
        ("eta", goal.eta, 0.0 < goal.eta < 1.0),
        ("max_passes", goal.max_passes, goal.max_passes >= 2),
    ):
        if not good:
            raise UsageError(
                f"{name} = {value} is out of range",
                remedy="width is above 0, eta between 0 and 1, max_passes at least 2.",
            )


def _of_small(gram: GramStream) -> NormInterval:
    """Interval of a matrix with at most `SMALL` rows or columns, from its Gram matrix."""
    G = gram.small()
    if not np.isfinite(G).all():
        gram.rescale()
        G = gram.small()
    largest = max(float(np.linalg.eigvalsh(G)[-1]), 0.0)
    frobenius = sqrt(float(np.trace(G)))
    # |G - W^T W| <= gamma ||W||_F^2 <= gamma min(m, n) sigma_1^2; the root halves it.
    slack = _EPS * (gram.shape[0] * gram.shape[1] + 100)
    return NormInterval(
        lower=min(sqrt(largest) * (1 - slack), frobenius),
        upper=min(sqrt(largest) * (1 + slack), frobenius),
        frobenius=frobenius,
        passes=gram.passes,
    )


def start_block(goal: Goal, columns: int) -> Floats:
    """The random start: `BLOCK` rows of standard Gaussian numbers, (b, n) float64."""
    return np.random.default_rng(goal.seed).standard_normal((BLOCK, columns))


def _of_large(gram: GramStream, goal: Goal) -> NormInterval:
    """Interval of a big matrix: float32 products, float64 where they cannot reach the width."""
    X = start_block(goal, gram.shape[1])
    if goal.width < FINEST_SINGLE:
        return _iterate(gram, X, DOUBLE, goal)[0]
    interval, exhausted = _iterate(gram, X, SINGLE, goal)
    if not exhausted or interval.width <= goal.width or gram.passes + 2 > goal.max_passes:
        return interval
    # A spectrum so flat that float32 sees one eigenvalue. The start is the same, so both intervals
    # fail on the same event, and their intersection keeps eta.
    finer, _ = _iterate(gram, X, DOUBLE, goal)
    return replace(
        finer, lower=max(interval.lower, finer.lower), upper=min(interval.upper, finer.upper)
    )


def _iterate(
    gram: GramStream, X: Floats, arithmetic: Arithmetic, goal: Goal
) -> tuple[NormInterval, bool]:
    """One run of block Lanczos, and whether it ended with an invariant basis."""
    lanczos = BlockLanczos(gram, X, arithmetic)
    while not lanczos.steps or gram.passes < goal.max_passes - 1:
        if not lanczos.advance():
            gram.rescale()
        elif lanczos.exhausted or (len(lanczos.steps) > 1 and _is_enough(lanczos, goal)):
            break
    quotient, frobenius = gram.stretch(lanczos.ritz_vector())
    run = Run(
        start_inverse=lanczos.start_inverse,
        steps=lanczos.steps,
        ritz_value=lanczos.ritz_value,
        noise=lanczos.arithmetic.noise,
        quotient=quotient,
        frobenius=frobenius,
        rounded=gram.lossy and arithmetic.dtype == np.float32,
    )
    return run.interval(gram.shape, goal.eta, gram.passes), lanczos.exhausted


def _is_enough(lanczos: BlockLanczos, goal: Goal) -> bool:
    """Whether the interval would be as narrow as asked."""
    value = np.array(lanczos.ritz_value * goal.reach)
    return bool(excludes(lanczos.start_inverse, lanczos.steps, value, goal.eta))


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run of block Lanczos leaves, wherever it ran: all that the interval follows from.

    Attributes
    ----------
    start_inverse : (b, b) float64
    steps : sequence of Step
        Coefficients of the recurrence.
    ritz_value : float
        Largest eigenvalue of the projected matrix.
    noise : float
        Of the arithmetic, relative; see `Arithmetic`.
    quotient : float
        ||W x|| of the top Ritz vector x, in float64.
    frobenius : float
        ||W||_F, in float64.
    rounded : bool
        Whether W was rounded to float32 on the way.
    """

    start_inverse: Floats
    steps: Sequence[Step]
    ritz_value: float
    noise: float
    quotient: float
    frobenius: float
    rounded: bool

    def interval(self, shape: tuple[int, int], eta: float, passes: int) -> NormInterval:
        """Both bounds, with what rounding can have done to them."""
        lower = self._lower(shape)
        upper = max(self._upper(eta), lower)
        if self.rounded:
            # ||W - float32(W)||_2 <= ||W - float32(W)||_F <= 2^-24 ||W||_F: certain.
            upper += _HALF_ULP_SINGLE * self.frobenius
        upper = min(upper, self.frobenius)
        return NormInterval(lower=lower, upper=upper, frobenius=self.frobenius, passes=passes)

    def _lower(self, shape: tuple[int, int]) -> float:
        """The Rayleigh quotient less all that float64 can have added to it.

        Each inner product of n terms errs by n eps |w||x| at most, the sums of squares by
        (m + n) eps.
        """
        m, n = shape
        less = self.quotient * (1.0 - (m + n) * _EPS) - n * _EPS * self.frobenius
        return min(less, self.frobenius)

    def _upper(self, eta: float) -> float:
        """The probabilistic bound with its allowance for rounding in the products."""
        floor = max(self.ritz_value, self.quotient * self.quotient)
        ceiling = max(self.frobenius * self.frobenius, floor)
        value = upper_bound(self.start_inverse, self.steps, eta, floor=floor, ceiling=ceiling)
        # The allowance is measured; where this very matrix rounds worse, it grows with it.
        seen = abs(sqrt(self.ritz_value) / self.quotient - 1.0)
        return sqrt(value) * (1.0 + max(self.noise, 4.0 * seen))


def unscaled(interval: NormInterval, exponent: int) -> NormInterval:
    """The interval of W from that of W / 2^exponent.

    Raises
    ------
    UnmeasurableError
        If float64 cannot hold it.
    """
    lower, upper, frobenius = (
        _times_power(value, exponent)
        for value in (interval.lower, interval.upper, interval.frobenius)
    )
    return replace(interval, lower=lower, upper=upper, frobenius=frobenius)


def _times_power(value: float, exponent: int) -> float:
    """value * 2^exponent, refused where float64 overflows."""
    try:
        scaled = ldexp(value, exponent)
    except OverflowError:
        scaled = inf
    if not isfinite(scaled):
        raise UnmeasurableError(
            f"the norm of the matrix is above what float64 holds ({value} * 2^{exponent})",
            remedy="Scale the matrix down before it is measured.",
        )
    return scaled
