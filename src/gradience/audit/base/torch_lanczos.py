"""Block Lanczos for a batch of matrices of one shape, on a torch device.

See `krylov` for the recurrence and `bounds` for what follows from its coefficients. The basis is
orthogonalised in float64 on the device; the coefficients and the small projected matrices are kept
on the host, in numpy. Whatever is not of the common kind is left out of the answer.
"""

from dataclasses import dataclass, field, replace
from math import frexp, isfinite, ldexp

import numpy as np
import torch
from numpy.typing import NDArray

from gradience.audit.base.bounds import excludes
from gradience.audit.base.krylov import DOUBLE, SINGLE, Arithmetic, Step
from gradience.audit.base.spectral_norm import (
    BLOCK,
    FINEST_SINGLE,
    Goal,
    NormInterval,
    Run,
    start_block,
    unscaled,
)

Floats = NDArray[np.float64]

# Numbers of all matrices together that are widened at once: 64 MB, near what a GPU's cache holds.
_WIDENED = 1 << 24
# Rows whose products are summed in float32 before the sum goes to float64.
_SUMMED_ROWS = 512
_REPAIRABLE = 0.1
# Beyond it the scale cannot ride on the vectors.
_LARGEST_EXPONENT = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """The matrices that are still being worked on.

    Attributes
    ----------
    W : (B, m, n) tensor
        All matrices, as stored; none is moved when another is done.
    active : tuple of int
        Those that this is about.
    exponents : tuple of int
        Everything is computed for W / 2^exponent, one for each active matrix.
    """

    W: torch.Tensor
    active: tuple[int, ...]
    exponents: tuple[int, ...]

    @property
    def scale(self) -> torch.Tensor:
        """2^-exponent: (active, 1, 1) float64."""
        scales = [ldexp(1.0, -exponent) for exponent in self.exponents]
        return torch.tensor(scales, dtype=torch.float64, device=self.W.device)[:, None, None]

    def apply(self, X: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """X W^T W / 4^exponent for X (active, b, n) float64: one pass, products in `dtype`."""
        total = torch.zeros_like(X)
        scaled = (X * self.scale).to(dtype)
        for start in range(0, self.W.shape[1], self._height):
            wide = self._rows(start).to(dtype)
            total += ((scaled @ wide.mT) @ wide).double()
        return total * self.scale

    def stretch(self, x: torch.Tensor) -> tuple[Floats, Floats]:
        """||W x|| and ||W||_F over 2^exponent for x (active, n), in float64: one pass."""
        stretched = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        squares = torch.zeros_like(stretched)
        for start in range(0, self.W.shape[1], self._height):
            wide = self._rows(start).double() * self.scale
            stretched += (wide @ x[:, :, None]).square().sum(dim=(1, 2))
            squares += wide.square().sum(dim=(1, 2))
        return stretched.sqrt().cpu().numpy(), squares.sqrt().cpu().numpy()

    def only(self, kept: list[int]) -> "_Batch":
        """Some of those that are active."""
        return replace(
            self,
            active=tuple(self.active[k] for k in kept),
            exponents=tuple(self.exponents[k] for k in kept),
        )

    @property
    def _height(self) -> int:
        return max(1, min(_SUMMED_ROWS, _WIDENED // (len(self.active) * self.W.shape[2])))

    def _rows(self, start: int) -> torch.Tensor:
        rows = self.W[:, start : start + self._height]
        return rows if len(self.active) == len(self.W) else rows[list(self.active)]


@dataclass(slots=True)
class _Recurrence:
    """Where the recurrence of every active matrix is.

    Attributes
    ----------
    basis : (active, k, n) tensor of float64
        On the device.
    T : (active, k, k) float64
        The projected matrices; the newest block is still zero.
    steps : list of Step
        With coefficients of shape (active, b, b).
    """

    basis: torch.Tensor
    T: Floats
    steps: list[Step] = field(default_factory=list)

    def only(self, kept: list[int]) -> "_Recurrence":
        """That of some matrices."""
        return _Recurrence(self.basis[kept], self.T[kept], [_of(step, kept) for step in self.steps])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ritz:
    """What a step gave: the top of every projected matrix.

    Attributes
    ----------
    values : (active,) float64
    weights : (active, k) float64
        Of the Ritz vectors in the basis.
    regular : (active,) bool
        Whether the step found as many new directions as it had vectors.
    """

    values: Floats
    weights: Floats
    regular: NDArray[np.bool_]


def intervals_of_batch(W: torch.Tensor, goal: Goal) -> list[NormInterval | None]:
    """The interval of every matrix; None for those that need the recurrence of the CPU.

    Parameters
    ----------
    W : (B, m, n) tensor
        In the type it is stored in; more than 64 rows and columns.
    goal : Goal

    Raises
    ------
    UnmeasurableError
        If float64 cannot hold a norm.
    """
    answers: list[NormInterval | None] = [None] * len(W)
    arithmetic = DOUBLE if goal.width < FINEST_SINGLE else SINGLE
    batch = _scaled(W)
    passes = 1
    V, R = np.linalg.qr(start_block(goal, W.shape[2]).T)
    start_inverse = np.asarray(np.linalg.inv(R), dtype=np.float64)
    start = torch.from_numpy(np.ascontiguousarray(V.T)).to(W.device)
    count = len(batch.active)
    recurrence = _Recurrence(start.expand(count, -1, -1), np.zeros((count, BLOCK, BLOCK)))
    while batch.active:
        ritz = _advance(batch, recurrence, arithmetic)
        passes += 1
        done = np.full(len(batch.active), passes >= goal.max_passes - 1)
        if len(recurrence.steps) > 1:
            done |= excludes(start_inverse, recurrence.steps, ritz.values * goal.reach, goal.eta)
        ready = np.flatnonzero(done & ritz.regular).tolist()
        if ready:
            runs = _runs(
                batch.only(ready),
                recurrence,
                ritz,
                ready,
                start_inverse=start_inverse,
                arithmetic=arithmetic,
            )
            for k, run in zip(ready, runs, strict=True):
                interval = run.interval((W.shape[1], W.shape[2]), goal.eta, passes + 1)
                answers[batch.active[k]] = unscaled(interval, batch.exponents[k])
        kept = np.flatnonzero(~done & ritz.regular).tolist()
        if len(kept) < len(batch.active):
            batch, recurrence = batch.only(kept), recurrence.only(kept)
    return answers


def _scaled(W: torch.Tensor) -> _Batch:
    """The matrices with an exponent near their largest entry, less zeros, NaN and extremes."""
    largest = [
        torch.stack([part.abs().amax().double() for part in matrix.split(_SUMMED_ROWS)]).amax()
        for matrix in W
    ]
    found = [float(value) for value in torch.stack(largest).cpu()]
    exponents = {k: frexp(v)[1] for k, v in enumerate(found) if isfinite(v) and v > 0.0}
    usable = {k: e for k, e in exponents.items() if abs(e) <= _LARGEST_EXPONENT}
    return _Batch(W=W, active=tuple(usable), exponents=tuple(usable.values()))


def _advance(batch: _Batch, recurrence: _Recurrence, arithmetic: Arithmetic) -> _Ritz:
    """One step for every active matrix: one pass over each."""
    dtype = torch.float32 if arithmetic is SINGLE else torch.float64
    basis = recurrence.basis
    image = batch.apply(basis[:, -BLOCK:], dtype)
    inner = basis @ image.mT
    image -= inner.mT @ basis
    again = basis @ image.mT
    image -= again.mT @ basis
    # CholeskyQR twice: a batched QR of tall blocks is slow on a GPU. What it cannot factor is of
    # a low rank, and not for this path.
    L, Q = _row_factors(image)
    L_again, Q = _row_factors(Q)
    coefficients = torch.stack([(inner + again)[:, -BLOCK:], L @ L_again, L_again]).cpu().numpy()
    A, B = coefficients[0], coefficients[1].swapaxes(1, 2)
    finite = np.isfinite(coefficients).all(axis=(0, 2, 3))
    eye = np.eye(BLOCK)
    # The second time repairs what the first left, if that was near orthonormal.
    repaired = np.abs(np.where(finite[:, None, None], coefficients[2], np.inf) - eye)
    finite &= repaired.max(axis=(1, 2)) < _REPAIRABLE
    A = np.where(finite[:, None, None], (A + A.swapaxes(1, 2)) / 2, eye)
    B = np.where(finite[:, None, None], B, eye)
    recurrence.T[:, -BLOCK:, -BLOCK:] = A
    values, vectors = np.linalg.eigh(recurrence.T)
    smallest = np.linalg.svd(B, compute_uv=False)[:, -1]
    regular = finite & (smallest > arithmetic.noise * values[:, -1])
    B = np.where(regular[:, None, None], B, eye)
    nothing = np.zeros((len(B), BLOCK, 0))
    recurrence.steps.append(Step(A=A, B=B, B_inverse=np.linalg.inv(B), dropped=nothing))
    recurrence.basis = torch.cat([basis, Q], dim=1)
    recurrence.T = _grown(recurrence.T, B)
    return _Ritz(values=values[:, -1], weights=vectors[:, :, -1], regular=regular)


def _row_factors(X: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """L and Q with X = L Q, Q with orthonormal rows; not finite where X has no full rank."""
    L, failed = torch.linalg.cholesky_ex(X @ X.mT)
    L = L.masked_fill((failed != 0)[:, None, None], torch.nan)  # what is in it is half a factor
    return L, torch.linalg.solve_triangular(L, X, upper=False)


def _grown(T: Floats, B: Floats) -> Floats:
    """The projected matrices with the coupling to the next block."""
    size = T.shape[1]
    grown = np.zeros((len(T), size + BLOCK, size + BLOCK))
    grown[:, :size, :size] = T
    grown[:, size:, size - BLOCK : size] = B
    grown[:, size - BLOCK : size, size:] = B.swapaxes(1, 2)
    return grown


def _runs(
    ended: _Batch,
    recurrence: _Recurrence,
    ritz: _Ritz,
    ready: list[int],
    *,
    start_inverse: Floats,
    arithmetic: Arithmetic,
) -> list[Run]:
    """What the runs that ended leave: the Rayleigh quotients are made in float64, by one pass."""
    weights = torch.from_numpy(ritz.weights[ready]).to(ended.W.device)
    x = torch.einsum("ak,akn->an", weights, recurrence.basis[ready, : weights.shape[1]])
    x = x / x.norm(dim=1, keepdim=True)
    quotients, frobenii = ended.stretch(x)
    return [
        Run(
            start_inverse=start_inverse,
            steps=[_of(step, k) for step in recurrence.steps],
            ritz_value=float(ritz.values[k]),
            noise=arithmetic.noise,
            quotient=float(quotients[at]),
            frobenius=float(frobenii[at]),
            rounded=arithmetic is SINGLE and ended.W.dtype == torch.float64,
        )
        for at, k in enumerate(ready)
    ]


def _of(step: Step, at: int | list[int]) -> Step:
    """The coefficients of one matrix, or of some."""
    return Step(A=step.A[at], B=step.B[at], B_inverse=step.B_inverse[at], dropped=step.dropped[at])
