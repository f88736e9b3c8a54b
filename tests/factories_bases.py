"""Base models and layers made by hand: names and shapes at will, no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from gradience.adapter.delta import Matrix, Product
from gradience.adapter.records import LoraLayer
from gradience.audit.base.weights import TensorFacts


def facts(shapes: Mapping[str, tuple[int, ...]], dtype: str = "F32") -> dict[str, TensorFacts]:
    """What a checkpoint of these shapes says of itself."""
    return {name: TensorFacts(shape=shape, dtype=dtype) for name, shape in shapes.items()}


def decoder_shapes(
    hidden: int = 16, layers: int = 2, prefix: str = "model."
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a small decoder, as Llama has them."""
    shapes: dict[str, tuple[int, ...]] = {f"{prefix}embed_tokens.weight": (40, hidden)}
    for at in range(layers):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"{prefix}layers.{at}.self_attn.{name}.weight"] = (hidden, hidden)
        for name in ("gate_proj", "up_proj"):
            shapes[f"{prefix}layers.{at}.mlp.{name}.weight"] = (3 * hidden, hidden)
        shapes[f"{prefix}layers.{at}.mlp.down_proj.weight"] = (hidden, 3 * hidden)
        shapes[f"{prefix}layers.{at}.input_layernorm.weight"] = (hidden,)
    return shapes


def layers_of(shapes: Mapping[str, tuple[int, ...]]) -> list[LoraLayer]:
    """A layer on every linear weight of a model of these shapes."""
    return [
        lora_layer(name.removesuffix(".weight"), (shape[0], shape[1]))
        for name, shape in shapes.items()
        if len(shape) == 2 and "embed" not in name
    ]


def write_base(
    directory: Path, shapes: Mapping[str, tuple[int, ...]], *, seed: int = 0
) -> dict[str, np.ndarray]:
    """A directory with one safetensors file of random float32 tensors; gives the tensors."""
    rng = np.random.default_rng(seed)
    tensors = {n: rng.standard_normal(s, dtype=np.float32) for n, s in shapes.items()}
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "model.safetensors")
    return tensors


def lora_layer(name: str, shape: tuple[int, int], **rest: Any) -> LoraLayer:
    """A layer of that name and shape; its factors are zero, only their shapes matter here."""
    out, into = shape

    def zeros(rows: int, columns: int) -> Matrix:
        return Matrix(shape=(rows, columns), load=lambda: np.zeros((rows, columns), np.float32))

    delta = Product(left=zeros(out, 1), right=zeros(1, into))
    return LoraLayer(name=name, delta=delta, scale=1.0, rank=1, **rest)
