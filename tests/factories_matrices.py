"""Matrices whose spectral norm was ever trouble, and what a dense SVD says of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def orthonormal(rows: int, columns: int, rng: np.random.Generator) -> Array:
    return np.asarray(np.linalg.qr(rng.standard_normal((rows, columns)))[0])


def with_spectrum(sigma: Array, m: int, n: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    k = len(sigma)
    return np.asarray((orthonormal(m, k, rng) * sigma) @ orthonormal(n, k, rng).T)


def gaussian(m: int, n: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((m, n))


def trained_like(m: int, n: int, seed: int = 0) -> Array:
    """A Gaussian bulk under a few outliers that decay as a power."""
    rng = np.random.default_rng(seed)
    k = 24
    spikes = 4.0 * (m**0.5 + n**0.5) * np.arange(1, k + 1) ** -0.6
    outliers = (orthonormal(m, k, rng) * spikes) @ gaussian(k, n) / n**0.5
    return np.asarray(0.02 * (gaussian(m, n, seed) + outliers))


def clustered(size: int, m: int = 300, n: int = 260) -> Array:
    sigma = np.concatenate([np.full(size, 3.0), np.linspace(2.0, 0.1, 200 - size)])
    return with_spectrum(sigma, m, n)


MATRICES: dict[str, Callable[[], Array]] = {
    "zero": lambda: np.zeros((200, 150)),
    "identity": lambda: np.eye(200),
    "rank one": lambda: with_spectrum(np.array([2.5]), 300, 200),
    "rank three": lambda: with_spectrum(np.array([2.5, 2.4, 0.1]), 300, 200),
    "rank three, equal": lambda: with_spectrum(np.array([2.0, 2.0, 2.0]), 300, 200),
    "rank four": lambda: with_spectrum(np.array([2.5, 2.4, 1.0, 0.1]), 300, 200),
    "rank eight": lambda: with_spectrum(np.linspace(2.5, 0.5, 8), 300, 200),
    "rank twelve, graded": lambda: with_spectrum(10.0 ** -np.arange(12.0), 300, 200),
    "flat": lambda: with_spectrum(np.full(200, 0.7), 300, 200),
    "orthogonal-like": lambda: with_spectrum(np.linspace(1.0, 1.0 - 1e-4, 250), 250, 250),
    "cluster of 8": lambda: clustered(8),
    "cluster of 64": lambda: clustered(64),
    "gaussian": lambda: gaussian(400, 400),
    "power law": lambda: with_spectrum(np.arange(1, 301) ** -0.5, 400, 300),
    "steep power law": lambda: with_spectrum(np.arange(1, 301) ** -3.0, 400, 300),
    "trained-like": lambda: trained_like(400, 300),
    "one huge entry": lambda: gaussian(200, 200) + 1e6 * (np.eye(200, k=3) * (np.arange(200) == 7)),
    "zero first rows": lambda: np.concatenate([np.zeros((300, 120)), gaussian(40, 120)]),
    "equal entries": lambda: np.full((200, 130), 0.3),
    "tall": lambda: gaussian(5000, 70),
    "wide": lambda: gaussian(70, 9000),
    "tiny": lambda: gaussian(2, 3),
    "small": lambda: gaussian(64, 500),
    "small, tall": lambda: gaussian(500, 64),
    "one number": lambda: np.array([[-0.25]]),
    "one row": lambda: gaussian(1, 4000),
    "one column": lambda: gaussian(4000, 1),
}


def true_norm(W: Array) -> float:
    return float(np.linalg.svd(W.astype(np.float64), compute_uv=False)[0])
