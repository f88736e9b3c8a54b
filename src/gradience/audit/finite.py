"""NaN and infinity in what an adapter carries beside its factors: magnitudes, biases, heads.

The spectra see every number of the factors; these tensors are in no spectrum, and one NaN among
them breaks the model all the same.
"""

from collections.abc import Iterator

import numpy as np

from gradience.adapter.records import Adapter
from gradience.audit.finding_kinds import NOT_FINITE
from gradience.findings import Finding
from gradience.tensors.stored import StoredTensor

_CHUNK = 1 << 18  # numbers at a time: 2 MiB in float64


def finite_beside(adapter: Adapter) -> tuple[Finding, ...]:
    """A finding when a tensor beside the factors holds NaN or infinity; reads each of them once."""
    bad = {name: found for name, tensor in _beside(adapter) if (found := _not_finite(tensor))}
    if not bad:
        return ()
    first = next(iter(bad))
    return (
        NOT_FINITE.found(
            f"{len(bad)} tensors beside the factors; {first}: {bad[first]}", modules=bad
        ),
    )


def _beside(adapter: Adapter) -> Iterator[tuple[str, StoredTensor]]:
    for layer in adapter.layers:
        # The experts of one stacked parameter share their tensors; the first owns them.
        for tensor in (layer.magnitude, layer.bias) if layer.tensors else ():
            if tensor is not None:
                yield tensor.name, tensor
    for extra in adapter.extras:
        yield extra.tensor.name, extra.tensor


def _not_finite(tensor: StoredTensor) -> str:
    """How many numbers are not finite, in words; empty for none, and for types that have none."""
    if not tensor.dtype.startswith(("F", "BF")):
        return ""
    numbers = tensor.read().reshape(-1)
    # A signalling NaN makes the processor complain of the cast.
    with np.errstate(invalid="ignore"):
        count = sum(
            int(np.count_nonzero(~np.isfinite(numbers[start : start + _CHUNK].astype(np.float64))))
            for start in range(0, len(numbers), _CHUNK)
        )
    tensor.release()
    return f"{count} NaN or Inf" if count else ""
