"""Which GPUs this machine lets us use, without importing torch."""

import re
import subprocess
from collections.abc import Mapping


def visible_gpus(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Names that CUDA_VISIBLE_DEVICES takes, one per GPU (or slice of one) to be used.

    A CUDA_VISIBLE_DEVICES that is set decides, as a scheduler or a user meant it to; an empty one
    means none. Otherwise the driver's own tool is asked.
    """
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return tuple(name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1"))
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return listed_gpus(listed.stdout)


def listed_gpus(text: str) -> tuple[str, ...]:
    """UUIDs in what `nvidia-smi -L` prints; of a GPU that is sliced (MIG), those of the slices.

    Examples
    --------
    >>> listed_gpus("GPU 0: H100 (UUID: GPU-5a)\\nGPU 1: H100 (UUID: GPU-6b)\\n")
    ('GPU-5a', 'GPU-6b')
    >>> listed_gpus("GPU 0: A100 (UUID: GPU-5a)\\n  MIG 3g.40gb Device 0: (UUID: MIG-7c)\\n")
    ('MIG-7c',)
    """
    found: list[str] = []
    for name in re.findall(r"UUID: ((?:GPU|MIG)-[^)\s]+)", text):
        if name.startswith("MIG-") and found and found[-1].startswith("GPU-"):
            found.pop()
        found.append(name)
    return tuple(found)
