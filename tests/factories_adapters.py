"""Adapter files for tests: safetensors written byte by byte, so that no reader tests itself.

`Arrays` maps tensor names to numpy arrays; names and shapes are those the libraries write.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from gradience.adapter.delta import Delta, Dense, Kronecker, Product
from gradience.adapter.records import LoraLayer

Arrays = Mapping[str, NDArray[Any]]

_DTYPES = {
    np.dtype(np.float64): "F64",
    np.dtype(np.float32): "F32",
    np.dtype(np.float16): "F16",
    np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(np.int64): "I64",
    np.dtype(np.int32): "I32",
}


def safetensors_bytes(arrays: Arrays, metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file: 8 bytes of length, a JSON header, the data in the order given."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for name, array in arrays.items():
        span = [start, start + array.nbytes]
        header[name] = {
            "dtype": _DTYPES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": span,
        }
        start = span[1]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(a.tobytes() for a in arrays.values())


def write_safetensors(
    path: Path, arrays: Arrays, metadata: Mapping[str, str] | None = None
) -> Path:
    """Write such a file, its directory included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(safetensors_bytes(arrays, metadata))
    return path


def factor(*shape: int, seed: int = 0, dtype: Any = np.float32) -> NDArray[Any]:
    """Numbers of order one that differ from one seed and shape to the next."""
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(dtype)


def peft_arrays(rank: int = 2, layers: int = 2, seed: int = 0) -> dict[str, NDArray[Any]]:
    """q_proj of a small Llama as PEFT names it."""
    arrays = {}
    for i in range(layers):
        stem = f"base_model.model.model.layers.{i}.self_attn.q_proj"
        arrays[f"{stem}.lora_A.weight"] = factor(rank, 6, seed=seed + 2 * i)
        arrays[f"{stem}.lora_B.weight"] = factor(8, rank, seed=seed + 2 * i + 1)
    return arrays


def peft_config(**changes: Any) -> dict[str, Any]:
    """The adapter_config.json that belongs to `peft_arrays`."""
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": "org/base",
        "revision": None,
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
        **changes,
    }


def write_peft(directory: Path, *, seed: int = 0, **changes: Any) -> Path:
    """A PEFT directory: config and weights."""
    write_safetensors(directory / "adapter_model.safetensors", peft_arrays(seed=seed))
    (directory / "adapter_config.json").write_text(json.dumps(peft_config(**changes)))
    return directory


def kohya_arrays(
    modules: Mapping[str, tuple[int, int]] | None = None,
    *,
    rank: int = 2,
    alpha: float | None = 1.0,
    dtype: Any = np.float32,
) -> dict[str, NDArray[Any]]:
    """lora_down, lora_up and alpha of some modules, `(out, in)` each."""
    modules = modules or {"lora_unet_mid_block_attentions_0_proj_in": (6, 5)}
    arrays = {}
    for seed, (name, (out, in_)) in enumerate(modules.items()):
        arrays[f"{name}.lora_down.weight"] = factor(rank, in_, seed=2 * seed, dtype=dtype)
        arrays[f"{name}.lora_up.weight"] = factor(out, rank, seed=2 * seed + 1, dtype=dtype)
        if alpha is not None:
            arrays[f"{name}.alpha"] = np.array(alpha, dtype=dtype)
    return arrays


def diffusers_arrays(rank: int = 2) -> dict[str, NDArray[Any]]:
    """Two modules as diffusers' training scripts name them today."""
    stem = "unet.mid_block.attentions.0.transformer_blocks.0.attn1"
    return {
        f"{stem}.to_q.lora.down.weight": factor(rank, 5, seed=1),
        f"{stem}.to_q.lora.up.weight": factor(6, rank, seed=2),
        f"{stem}.to_out.0.lora.down.weight": factor(rank, 5, seed=3),
        f"{stem}.to_out.0.lora.up.weight": factor(6, rank, seed=4),
    }


def dense(layer: LoraLayer) -> NDArray[np.float64]:
    """scale * delta as one float64 matrix: what a loader adds to the base weight."""
    return layer.scale * _dense(layer.delta)


def _dense(delta: Delta) -> NDArray[np.float64]:
    match delta:
        case Product():
            left = delta.left.load().astype(np.float64)
            return left @ delta.right.load().astype(np.float64)
        case Dense():
            return delta.matrix.load().astype(np.float64)
        case Kronecker():
            return np.kron(_dense(delta.left), _dense(delta.right))


def make_tiny_unet() -> Any:
    """UNet2DConditionModel with 8 channels at most; skips where diffusers or PEFT is absent."""
    diffusers = pytest.importorskip("diffusers")
    pytest.importorskip("peft")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside diffusers and torch
        return diffusers.UNet2DConditionModel(
            sample_size=8,
            layers_per_block=1,
            block_out_channels=(4, 8),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=6,
            attention_head_dim=2,
            norm_num_groups=2,
        )
