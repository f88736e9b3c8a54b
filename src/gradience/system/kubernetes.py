"""A pod's limit on ephemeral storage: the kubelet evicts a pod that passes it, without an error.

Nothing inside the container shows the limit; the Downward API can pass it in, as a variable or as
a file (`resourceFieldRef: limits.ephemeral-storage`).

References
----------
Kubernetes documentation, "Local ephemeral storage", "Quantity", "Downward API".
"""

import math
import re
from pathlib import Path

from gradience.errors import UsageError
from gradience.system.records import Mount

_SUFFIXES = {
    "m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
}  # fmt: skip


def ephemeral_limit(value: str) -> int:
    """The limit in bytes: a quantity of Kubernetes, or the path of a file that holds one.

    Raises
    ------
    UsageError
        If it is neither.

    Examples
    --------
    >>> ephemeral_limit("2Gi"), ephemeral_limit("500M"), ephemeral_limit("1e9")
    (2147483648, 500000000, 1000000000)
    """
    text = value.strip()
    if text.startswith("/"):
        try:
            text = Path(text).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"the Downward API file {value} cannot be read: {error}",
                remedy="Mount limits.ephemeral-storage there, or give the size itself.",
            ) from error
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)([A-Za-z]{0,2}?)B?", text)
    size = float(match[1]) * _SUFFIXES.get(match[2], math.nan) if match else math.nan
    if not math.isfinite(size):
        raise UsageError(
            f"{text!r} is not a quantity of Kubernetes",
            remedy="Write a size such as 20Gi, 500M or 1073741824.",
        )
    return int(size)


def is_ephemeral(mount: Mount) -> bool:
    """Writes here count against the pod's ephemeral storage: its layer, and emptyDir on disk."""
    return mount.fs_type == "overlay" or "kubernetes.io~empty-dir" in mount.root
