"""Adapters made by PEFT itself, and what PEFT says their change is: the oracle of the reader."""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from gradience.adapter.config import AdapterConfig, parse_config
from gradience.adapter.delta import Delta, Kronecker, Product
from gradience.adapter.dialects.peft import DIALECT
from gradience.adapter.parts import Parts
from gradience.adapter.read import read_config
from gradience.adapter.records import LoraLayer
from gradience.tensors.opening import open_tensor_file, tensors_in_memory

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedAdapter:
    """A directory that PEFT wrote, and the model it was loaded into again."""

    path: Path
    reloaded: Any

    @property
    def config(self) -> AdapterConfig:
        return read_config(self.path / "adapter_config.json")

    def parts(self) -> Parts:
        tensors = open_tensor_file(self.path / "adapter_model.safetensors").tensors
        return DIALECT.read(tensors, self.config, {})

    def peft_delta(self, module: str) -> NDArray[np.float64]:
        """What PEFT adds to the weight of a module, in the shape of that weight."""
        found = self.reloaded.base_model.model.get_submodule(module)
        with torch.no_grad():
            return numpy(found.get_delta_weight("default"))


def numpy(tensor: torch.Tensor) -> NDArray[np.float64]:
    return np.asarray(tensor.detach().double().numpy())


def save_and_reload(
    make_model: Callable[[], nn.Module],
    config: Any,
    path: Path,
    *,
    change: Callable[[Any], None] | None = None,
    **save: Any,
) -> SavedAdapter:
    """Train nothing: fill every adapter weight with noise, save, load into a fresh base."""
    from peft import PeftModel, get_peft_model  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = get_peft_model(make_model(), config)
        randomise(model)
        if change is not None:
            change(model)
        model.save_pretrained(str(path), **save)
        torch.manual_seed(0)
        reloaded = PeftModel.from_pretrained(make_model(), str(path))
    return SavedAdapter(path=path, reloaded=reloaded)


def randomise(model: nn.Module, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(mark in name for mark in ("lora_", "hada_", "lokr_")) and "ranknum" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))


def dense(delta: Delta) -> NDArray[np.float64]:
    """A delta multiplied out in float64."""
    if isinstance(delta, Kronecker):
        return np.kron(dense(delta.left), dense(delta.right))
    matrices = (delta.left, delta.right) if isinstance(delta, Product) else (delta.matrix,)
    loaded = []
    for matrix in matrices:
        array = np.asarray(matrix.load(), dtype=np.float64)
        assert array.shape == matrix.shape
        loaded.append(array)
        matrix.release()
    return loaded[0] @ loaded[1] if len(loaded) == 2 else loaded[0]


def scaled(layer: LoraLayer) -> NDArray[np.float64]:
    """A layer's change in the orientation of its base weight."""
    delta = layer.scale * dense(layer.delta)
    return delta.T if layer.base_transposed else delta


def distance(found: Array, wanted: Array) -> float:
    """Relative distance in the Frobenius norm, after `found` took the shape of `wanted`."""
    difference = np.linalg.norm(found.reshape(wanted.shape) - wanted)
    return float(difference / np.linalg.norm(wanted))


def one_layer(parts: Parts, name: str) -> LoraLayer:
    return next(layer for layer in parts.layers if layer.name == name)


def read_arrays(arrays: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> Parts:
    """The dialect's answer to arrays in memory, for files that PEFT of today cannot write."""
    parsed = None if config is None else parse_config(json.dumps(dict(config)).encode(), "config")
    return DIALECT.read(tensors_in_memory(dict(arrays)), parsed, {})


def noise(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


class TinyNet(nn.Module):
    """One module of each kind that PEFT adapts."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(20, 12)
        self.lin = nn.Linear(12, 18)
        self.out = nn.Linear(18, 10)
        self.conv = nn.Conv2d(6, 10, 3)
        self.point = nn.Conv2d(6, 10, 1)
        self.grouped = nn.Conv2d(8, 12, 3, groups=2)
        self.line = nn.Conv1d(6, 10, 3)
        self.volume = nn.Conv3d(4, 6, 2)
        self.mha = nn.MultiheadAttention(12, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.lin(x))
