"""What a server accepts, in the units a rank is worth money in.

A rank that does not cross one of these lines saves nothing there: vLLM allocates every adapter
slot at `max_lora_rank`, whatever the adapter's own rank is.
"""

from collections.abc import Iterable

import msgspec

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM takes for `max_lora_rank` (vLLM 0.33, `vllm/config/lora.py`)."""


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """A limit of a server on the rank, and perhaps the bytes, of an adapter."""

    name: str
    rank: int
    nbytes: int | None = None

    def meets(self, rank: int, nbytes: int) -> bool:
        """Whether an adapter of this largest rank and size is accepted."""
        return rank <= self.rank and (self.nbytes is None or nbytes < self.nbytes)


LIMITS = (
    Limit(name="Cloudflare Workers AI (rank <= 8, < 100 MB)", rank=8, nbytes=100_000_000),
    Limit(name="vLLM default (max_lora_rank 16)", rank=16),
    Limit(name="Fireworks (rank <= 64)", rank=64),
)


def server_rank(rank: int) -> int | None:
    """The smallest `max_lora_rank` of vLLM that holds this rank; None above all of them.

    Examples
    --------
    >>> server_rank(24), server_rank(32), server_rank(513)
    (32, 32, None)
    """
    return next((bucket for bucket in VLLM_RANKS if rank <= bucket), None)


def cleared(before: tuple[int, int], after: tuple[int, int]) -> Iterable[str]:
    """Names of the limits that (rank, bytes) misses before and meets after."""
    return (x.name for x in LIMITS if x.meets(*after) and not x.meets(*before))
