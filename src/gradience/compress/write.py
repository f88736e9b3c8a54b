"""Write an adapter as PEFT does: adapter_model.safetensors, then adapter_config.json.

The config comes last and each file is replaced as a whole, so that a directory with a config has
its weights, and a process killed in between leaves nothing that loads.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from gradience import files
from gradience.adapter.layout import CONFIG, PEFT_WEIGHTS
from gradience.compress.rewrite import Rewritten
from gradience.tensors.stored import Array

_WEIGHTS = PEFT_WEIGHTS[0]


def weights_bytes(tensors: Mapping[str, Array]) -> bytes:
    """A safetensors file of some tensors, marked as torch's, as PEFT writes it."""
    plain = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    return save(plain, metadata={"format": "pt"})


def config_bytes(config: Mapping[str, Any]) -> bytes:
    """adapter_config.json; the order of keys is kept, since it decides between patterns."""
    return (json.dumps(config, indent=2, allow_nan=False) + "\n").encode()


def write_peft(directory: Path, adapter: Rewritten) -> int:
    """Write an adapter into a directory, replacing one that is there.

    Returns
    -------
    int
        Bytes of the weights file.

    Raises
    ------
    StorageError
        If the disk refuses; no file is left half-written.
    """
    # A config of another adapter must not stand beside new weights, not even for a moment.
    if (directory / CONFIG).exists():
        files.remove(directory / CONFIG)
    data = weights_bytes(adapter.tensors)
    files.replace(directory / _WEIGHTS, data)
    files.replace(directory / CONFIG, config_bytes(adapter.config))
    return len(data)
