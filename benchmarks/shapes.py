"""An adapter with the shapes of a 7B model, made in seconds: what the benchmarks read.

The factors are drawn, not trained, but with what training leaves in them: A near its random start,
B with columns that lean on few common directions, so that the spectra fall as those of trained
adapters do. kappa^2 of B with unit columns is about 100 here; in four real adapters of rank 4 to 16
its median was 2 to 40 and its maximum 600.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

HIDDEN, KEY_VALUE, INNER, LAYERS = 4096, 1024, 14336, 32
"""Mistral-7B: grouped-query attention with 8 of 32 heads for keys and values."""

MODULES: dict[str, tuple[int, int]] = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEY_VALUE, HIDDEN),
    "self_attn.v_proj": (KEY_VALUE, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
"""Name to (out, in)."""

DTYPES: dict[str, Any] = {
    "bf16": ml_dtypes.bfloat16,
    "fp16": np.float16,
    "fp32": np.float32,
}


def write_adapter(directory: Path, *, rank: int, dtype: str, layers: int = LAYERS) -> Path:
    """Write a PEFT adapter for every linear module of a 7B model.

    Parameters
    ----------
    directory : Path
        Made if missing.
    rank : int
    dtype : str
        A key of `DTYPES`.
    layers : int
        Fewer than 32 for a quick run.

    Returns
    -------
    Path
        The safetensors file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, NDArray[Any]] = {}
    for name, A, B in _factors(rank, layers):
        tensors[f"{name}.lora_A.weight"] = A.astype(DTYPES[dtype])
        tensors[f"{name}.lora_B.weight"] = B.astype(DTYPES[dtype])
    path = directory / "adapter_model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "mistralai/Mistral-7B-v0.1",
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": sorted(module.rpartition(".")[2] for module in MODULES),
        "bias": "none",
        "fan_in_fan_out": False,
    }
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=2))
    return path


def _factors(
    rank: int, layers: int
) -> Iterator[tuple[str, NDArray[np.float32], NDArray[np.float32]]]:
    rng = np.random.default_rng(7)
    for layer in range(layers):
        for module, (rows, columns) in MODULES.items():
            A = rng.uniform(-1, 1, (rank, columns)).astype(np.float32) / np.sqrt(columns)
            shared = rng.standard_normal((rank, rank), dtype=np.float32)
            shared *= (np.arange(1, rank + 1, dtype=np.float32) ** -1.5)[:, None]
            B = rng.standard_normal((rows, rank), dtype=np.float32) @ shared
            B += np.float32(0.1) * rng.standard_normal((rows, rank), dtype=np.float32)
            yield f"base_model.model.model.layers.{layer}.{module}", A, B * np.float32(1e-3)
