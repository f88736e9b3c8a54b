"""The noun of a compression: what was made of an adapter, and what it costs."""

import msgspec

SCHEMA = "gradience.compression/v1"


class Compression(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A smaller adapter beside the one that it was made from.

    Attributes
    ----------
    source : str
        What was named.
    output : str
        The directory; it holds nothing yet if not `written`.
    asked : str
        In words: "rank 4", "90% of the energy, per module", "bf16".
    ranks_before, ranks : mapping of str to int
        By module.
    predicted : mapping of str to float
        ||dW - dW'||_F / ||dW||_F by module, from the singular values that are cut off (Eckart and
        Young, 1936); empty where no rank was changed.
    relative_error : float or None
        The same over the whole adapter, measured on the factors as they are stored, rounding
        included. None where the factors alone do not give it (DoRA, LoHa, LoKr).
    predicted_error : float or None
        The same before rounding; None where no rank was changed.
    factor_bytes_before, factor_bytes : int
    nbytes_before, nbytes : int
        Of the weights file.
    """

    source: str
    output: str
    asked: str
    written: bool
    ranks_before: dict[str, int]
    ranks: dict[str, int]
    factor_bytes_before: int
    factor_bytes: int
    nbytes_before: int
    nbytes: int
    predicted: dict[str, float] = {}
    predicted_error: float | None = None
    relative_error: float | None = None
