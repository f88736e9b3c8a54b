"""What a metric may know of one adapted weight: its spectrum, its factors' norms, its base norm."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from gradience.errors import UnmeasurableError


class BaseFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Norms of the base weight that a layer changes.

    Attributes
    ----------
    lower, upper : float
        Interval that holds the spectral norm; `lower` is rigorous, see `audit.base.spectral_norm`.
    frobenius : float
        Exact to rounding.
    rounding : float or None
        Frobenius norm of the error that packing makes; None where the weight is not packed.
    """

    lower: float
    upper: float
    frobenius: float
    rounding: float | None = None


class LayerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of one adapted weight, in units of the base weight.

    Attributes
    ----------
    values : (k,) float64 or None
        Singular values of the scaled change, descending. None where only norms are known; then
        `no_values` says why.
    spectral, frobenius : float
        Norms of the scaled change.
    rank : int
        Rank that the adapter allocates.
    relative_error : float
        Predicted bound on the relative error of every value above 1e-6 of the largest.
    left_norm, right_norm : float or None
        Frobenius norms of B and A; None where the change is not a product of two factors.
    base : BaseFacts or None
    no_base : str
        Why `base` is None.
    """

    values: NDArray[np.float64] | None
    spectral: float
    frobenius: float
    rank: int
    relative_error: float = 0.0
    left_norm: float | None = None
    right_norm: float | None = None
    base: BaseFacts | None = None
    no_base: str = "no base model was given"
    no_values: str = ""

    def spectrum(self) -> NDArray[np.float64]:
        """The singular values of a weight that changed.

        Raises
        ------
        UnmeasurableError
            If they are not known, or all zero.
        """
        if self.values is None:
            raise UnmeasurableError(self.no_values, remedy="Use the norms, which are measured.")
        if self.values.size == 0 or self.values[0] == 0.0:
            raise UnmeasurableError(
                "every singular value is zero", remedy="Check that this module was trained."
            )
        return self.values

    def base_norms(self) -> BaseFacts:
        """Norms of the base weight.

        Raises
        ------
        UnmeasurableError
            If there is none, or it is the zero matrix.
        """
        if self.base is None:
            raise UnmeasurableError(self.no_base, remedy="Name the base model.")
        if self.base.lower == 0.0:
            raise UnmeasurableError("the base weight is zero", remedy="Check the base model.")
        return self.base
