"""Weights packed by hand as the specification of each format says, and what they stand for.

Every packer here is written from the layout that the format's own code documents, element by
element, and not from what is tested: slow, plain, and small.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

Array = np.ndarray[Any, Any]

MODULE = "model.layers.0.self_attn.q_proj"
EXPERTS = "model.layers.0.mlp.experts"

# QLoRA, arXiv 2305.14314, appendix E: the sixteen values of NormalFloat4.
NF4 = np.array(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ],
    dtype=np.float32,
)
# OCP Microscaling Formats 1.0, table 6: E2M1.
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


@dataclass(frozen=True, kw_only=True)
class Packed:
    """One packed weight.

    Attributes
    ----------
    tensors : mapping of str to array
        As the checkpoint stores them.
    dense : (m, n) float64
        What they stand for, in the orientation of the parameter.
    steps : (m, n) float64
        The step of each number.
    parameter : str
        Name of the parameter in the running model.
    config : mapping
        `quantization_config`.
    expert : int or None
        Which matrix of a stack `dense` is.
    optional : frozenset of str
        Tensors without which another weight is stored, not a damaged one.
    """

    tensors: Mapping[str, Array]
    dense: Array
    steps: Array
    parameter: str = f"{MODULE}.weight"
    config: Mapping[str, Any] = field(default_factory=dict)
    expert: int | None = None
    optional: frozenset[str] = frozenset()


def write_packed(directory: Path, *weights: Packed) -> Path:
    """A base model of packed weights, with the config of the first."""
    directory.mkdir(exist_ok=True)
    tensors = {name: array for packed in weights for name, array in packed.tensors.items()}
    save_file(tensors, directory / "model.safetensors")
    config = {"quantization_config": dict(weights[0].config)} if weights[0].config else {}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _midpoint_steps(levels: Array) -> Array:
    """Step of each level by trial: the share of a fine line whose nearest level it is."""
    order = np.sort(np.unique(levels[np.isfinite(levels)].astype(np.float64)))
    edges = np.concatenate(
        [
            [order[0] - (order[1] - order[0]) / 2],
            (order[1:] + order[:-1]) / 2,
            [order[-1] + (order[-1] - order[-2]) / 2],
        ]
    )
    return np.array([np.diff(edges)[np.argmax(order == v)] for v in levels.astype(np.float64)])


def pack_bits(codes: Array, bits: int) -> Array:
    """(n, k) codes to (n, k * bits / 32) int32: field j of a row at bit j * bits, one at a time."""
    words = np.zeros((codes.shape[0], codes.shape[1] * bits // 32), dtype=np.uint64)
    for j in range(codes.shape[1]):
        value = codes[:, j].astype(np.uint64)
        word, shift = divmod(j * bits, 32)
        words[:, word] |= (value << np.uint64(shift)) & np.uint64(0xFFFFFFFF)
        if shift + bits > 32:
            words[:, word + 1] |= value >> np.uint64(32 - shift)
    return words.astype(np.uint32).view(np.int32)


def fp8(
    *,
    scale: str = "weight_scale_inv",
    grid: tuple[int, ...] = (2, 3),
    shape: tuple[int, int] = (200, 300),
    tile: tuple[int, int] = (128, 128),
    dtype: Any = ml_dtypes.float8_e4m3fn,
    scale_dtype: Any = np.float32,
    config: Mapping[str, Any] | None = None,
) -> Packed:
    """A float8 weight with scales on a grid."""
    rng = _rng(1)
    weight = (rng.standard_normal(shape) * 40).astype(dtype)
    scales = np.asarray(np.exp(rng.standard_normal(grid)) * 1e-3, np.float32)
    if scale_dtype == np.uint8:
        stored = rng.integers(110, 125, grid).astype(np.uint8)
        scales = 2.0 ** (stored.astype(np.float64) - 127)
    else:
        stored = np.asarray(scales, scale_dtype)
        scales = np.asarray(stored, np.float64)
    flat = scales.reshape(-1, 1) if scales.ndim < 2 else scales
    height, width = shape if scales.size == 1 else tile
    spread = np.repeat(np.repeat(flat, height, 0), width, 1)[: shape[0], : shape[1]]
    levels = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)
    return Packed(
        tensors={f"{MODULE}.weight": weight, f"{MODULE}.{scale}": stored},
        dense=weight.astype(np.float64) * spread,
        steps=_midpoint_steps(levels)[weight.view(np.uint8)] * spread,
        config=config or {},
        # A float8 without any scale is a weight as it stands.
        optional=frozenset({f"{MODULE}.{scale}"}),
    )


def fp8_experts() -> Packed:
    """Stacked float8 experts, each with tiles of its own."""
    rng = _rng(2)
    weight = (rng.standard_normal((3, 40, 64)) * 40).astype(ml_dtypes.float8_e4m3fn)
    scales = np.exp(rng.standard_normal((3, 2, 2))).astype(np.float32)
    spread = np.repeat(np.repeat(scales[1].astype(np.float64), 20, 0), 32, 1)
    levels = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    name = f"{EXPERTS}.gate_up_proj"
    return Packed(
        tensors={name: weight, f"{name}_scale_inv": scales},
        dense=weight[1].astype(np.float64) * spread,
        steps=_midpoint_steps(levels)[weight[1].view(np.uint8)] * spread,
        parameter=name,
        expert=1,
        optional=frozenset({f"{name}_scale_inv"}),
    )


def gptq(
    *,
    bits: int = 4,
    inputs: int = 96,
    outputs: int = 64,
    group: int = 32,
    act_order: bool = False,
    version: int = 1,
    with_g_idx: bool = True,
) -> Packed:
    """A GPTQ weight: `qweight` packs along the inputs, `qzeros` along the outputs."""
    rng = _rng(3)
    groups = -(-inputs // group)
    codes = rng.integers(0, 2**bits, (inputs, outputs))
    zeros = rng.integers(0, 2**bits, (groups, outputs))
    scales = (rng.random((groups, outputs)) * 0.01 + 0.001).astype(np.float16)
    g_idx = np.arange(inputs) // group
    if act_order:
        g_idx = rng.permutation(g_idx)
    stored = (zeros - 1) % 2**bits if version == 1 else zeros
    tensors = {
        f"{MODULE}.qweight": np.ascontiguousarray(pack_bits(codes.T, bits).T),
        f"{MODULE}.qzeros": pack_bits(stored, bits),
        f"{MODULE}.scales": scales,
    }
    if with_g_idx:
        tensors[f"{MODULE}.g_idx"] = g_idx.astype(np.int32)
    wide = scales.astype(np.float64)
    config = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": act_order}
    if version == 2:
        config["checkpoint_format"] = "gptq_v2"
    return Packed(
        tensors=tensors,
        dense=((codes - zeros[g_idx]) * wide[g_idx]).T,
        steps=wide[g_idx].T,
        config=config,
        optional=frozenset({f"{MODULE}.g_idx"}),
    )


def awq_gemm(*, inputs: int = 96, outputs: int = 64, group: int = 32) -> Packed:
    """An AWQ weight, GEMM: eight outputs to a word, in the order 0 2 4 6 1 3 5 7."""
    rng = _rng(4)
    groups = inputs // group
    codes = rng.integers(0, 16, (inputs, outputs))
    zeros = rng.integers(0, 16, (groups, outputs))
    scales = (rng.random((groups, outputs)) * 0.01 + 0.001).astype(np.float16)

    def pack(values: Array) -> Array:
        order = [0, 2, 4, 6, 1, 3, 5, 7]
        words = np.zeros((values.shape[0], outputs // 8), np.uint32)
        for word in range(outputs // 8):
            for nibble, at in enumerate(order):
                words[:, word] |= values[:, 8 * word + at].astype(np.uint32) << np.uint32(
                    4 * nibble
                )
        return words.view(np.int32)

    wide = np.repeat(scales.astype(np.float64), group, 0)
    return Packed(
        tensors={
            f"{MODULE}.qweight": pack(codes),
            f"{MODULE}.qzeros": pack(zeros),
            f"{MODULE}.scales": scales,
        },
        dense=((codes - np.repeat(zeros, group, 0)) * wide).T,
        steps=wide.T,
        config={"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm"},
    )


def awq_gemv(*, inputs: int = 256, outputs: int = 64, group: int = 64) -> Packed:
    """An AWQ weight, GEMV: eight inputs to a word, in order; groups padded to whole words."""
    rng = _rng(5)
    groups = inputs // group
    padded = 16 * ((groups + 15) // 16)
    codes = rng.integers(0, 16, (outputs, inputs))
    zeros = np.zeros((outputs, padded), np.int64)
    zeros[:, :groups] = rng.integers(0, 16, (outputs, groups))
    scales = np.zeros((outputs, padded), np.float16)
    scales[:, :groups] = rng.random((outputs, groups)) * 0.01 + 0.001
    wide = np.repeat(scales[:, :groups].astype(np.float64), group, 1)
    return Packed(
        tensors={
            f"{MODULE}.qweight": pack_bits(codes, 4),
            f"{MODULE}.qzeros": pack_bits(zeros, 4),
            f"{MODULE}.scales": scales,
        },
        dense=(codes - np.repeat(zeros[:, :groups], group, 1)) * wide,
        steps=wide,
        config={"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemv"},
    )


def bitsandbytes_4bit(
    *,
    shape: tuple[int, ...] = (40, 96),
    kind: str = "nf4",
    nested: bool = False,
    storage: Any = np.uint8,
) -> Packed:
    """A bitsandbytes weight: two codes to a byte, the first in the high half, runs of 64."""
    rng = _rng(6)
    levels = NF4 if kind == "nf4" else E2M1 / np.float32(6)
    total = int(np.prod(shape))
    codes = rng.integers(0, 16, total)
    runs = -(-total // 64)
    absmax = (rng.random(runs) * 0.1 + 0.01).astype(np.float32)
    padded = np.append(codes, 0)[: total + total % 2]
    octets = ((padded[::2] << 4) | padded[1::2]).astype(np.uint8)
    state: dict[str, Any] = {
        "quant_type": kind, "blocksize": 64, "dtype": "bfloat16", "shape": list(shape),
    }  # fmt: skip
    name = f"{MODULE}.weight"
    tensors: dict[str, Array] = {f"{name}.quant_map": levels}
    if nested:
        # Dynamic 8-bit levels in runs of 256, about an offset.
        nested_map = np.sort(rng.uniform(-1, 1, 256)).astype(np.float32)
        eight = rng.integers(0, 256, runs).astype(np.uint8)
        nested_absmax = (rng.random(-(-runs // 256)) * 0.01 + 0.01).astype(np.float32)
        offset = 0.05
        absmax = nested_map[eight] * np.repeat(nested_absmax, 256)[:runs] + np.float32(offset)
        state |= {
            "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset,
        }  # fmt: skip
        tensors |= {
            f"{name}.absmax": eight,
            f"{name}.nested_absmax": nested_absmax,
            f"{name}.nested_quant_map": nested_map,
        }
    else:
        tensors[f"{name}.absmax"] = absmax
    tensors[name] = octets.view(storage).reshape(-1, 1)
    tensors[f"{name}.quant_state.bitsandbytes__{kind}"] = np.frombuffer(
        json.dumps(state).encode(), np.uint8
    )
    wide = np.repeat(absmax.astype(np.float64), 64)[:total]
    last = 0 if len(shape) == 2 else shape[0] - 1
    dense = (levels.astype(np.float64)[codes] * wide).reshape(-1, *shape[-2:])[last]
    steps = (_midpoint_steps(levels)[codes] * wide).reshape(-1, *shape[-2:])[last]
    return Packed(
        tensors=tensors,
        dense=dense,
        steps=steps,
        config={"quant_method": "bitsandbytes", "load_in_4bit": True},
        expert=None if len(shape) == 2 else last,
    )


def bitsandbytes_8bit() -> Packed:
    """An LLM.int8 weight: rows of int8, the largest of each row is 127 and `SCB`."""
    rng = _rng(7)
    codes = rng.integers(-127, 128, (40, 96)).astype(np.int8)
    scb = (rng.random(40) * 0.1 + 0.01).astype(np.float32)
    return Packed(
        tensors={
            f"{MODULE}.weight": codes,
            f"{MODULE}.SCB": scb,
            f"{MODULE}.weight_format": np.array(0, np.uint8),
        },
        dense=codes * scb.astype(np.float64)[:, None] / 127,
        steps=np.broadcast_to(scb.astype(np.float64)[:, None] / 127, codes.shape),
        config={"quant_method": "bitsandbytes", "load_in_8bit": True},
        optional=frozenset({f"{MODULE}.weight_format"}),
    )


def compressed_int(
    *,
    bits: int = 4,
    group: int = 32,
    symmetric: bool = True,
    act_order: bool = False,
    columns: int = 96,
) -> Packed:
    """compressed-tensors `pack-quantized`: unsigned codes by rows, zeros along the outputs."""
    rng = _rng(8)
    rows, groups, half = 64, columns // group, 2 ** (bits - 1)
    codes = rng.integers(-half, half, (rows, columns))
    zeros = rng.integers(-half, half, (rows, groups)) * (not symmetric)
    scales = (rng.random((rows, groups)) * 0.01 + 0.001).astype(ml_dtypes.bfloat16)
    g_idx = np.arange(columns) // group
    if act_order:
        g_idx = rng.permutation(g_idx)
    padding = -columns % (32 // bits)
    tensors: dict[str, Array] = {
        f"{MODULE}.weight_packed": pack_bits(np.pad(codes + half, ((0, 0), (0, padding))), bits),
        f"{MODULE}.weight_scale": scales,
        f"{MODULE}.weight_shape": np.array([rows, columns], np.int64),
    }
    if not symmetric:
        tensors[f"{MODULE}.weight_zero_point"] = np.ascontiguousarray(
            pack_bits((zeros + half).T, bits).T
        )
    if act_order:
        tensors[f"{MODULE}.weight_g_idx"] = g_idx.astype(np.int32)
    wide = scales.astype(np.float64)[:, g_idx]
    return Packed(
        tensors=tensors,
        dense=(codes - zeros[:, g_idx]) * wide,
        steps=wide,
        config={"quant_method": "compressed-tensors", "format": "pack-quantized"},
        optional=frozenset({f"{MODULE}.weight_zero_point", f"{MODULE}.weight_g_idx"}),
    )


def compressed_int8(*, symmetric: bool = True) -> Packed:
    """compressed-tensors `int-quantized`: int8 with a scale for each row."""
    rng = _rng(9)
    codes = rng.integers(-128, 128, (64, 96)).astype(np.int8)
    zeros = rng.integers(-9, 9, (64, 1)).astype(np.int8)
    scales = (rng.random((64, 1)) * 0.01).astype(np.float32)
    tensors = {f"{MODULE}.weight": codes, f"{MODULE}.weight_scale": scales}
    if not symmetric:
        tensors[f"{MODULE}.weight_zero_point"] = zeros
    less = np.zeros_like(zeros) if symmetric else zeros
    return Packed(
        tensors=tensors,
        dense=(codes.astype(np.float64) - less) * scales,
        steps=np.broadcast_to(scales.astype(np.float64), codes.shape),
        config={"quant_method": "compressed-tensors", "format": "int-quantized"},
        optional=frozenset({f"{MODULE}.weight_zero_point"}),
    )


def _halves(codes: Array) -> Array:
    """Two codes to a byte, the first in the low half."""
    return (codes[..., ::2] | (codes[..., 1::2] << 4)).astype(np.uint8)


def mxfp4_experts() -> Packed:
    """gpt-oss: (experts, out, groups, 16) bytes; the running model has the experts as (in, out)."""
    rng = _rng(10)
    codes = rng.integers(0, 16, (3, 48, 64))
    exponents = rng.integers(110, 125, (3, 48, 2)).astype(np.uint8)
    name = f"{EXPERTS}.gate_up_proj"
    wide = np.repeat(2.0 ** (exponents[2].astype(np.float64) - 127), 32, 1)
    return Packed(
        tensors={
            f"{name}_blocks": _halves(codes).reshape(3, 48, 2, 16),
            f"{name}_scales": exponents,
        },
        dense=(E2M1.astype(np.float64)[codes[2]] * wide).T,
        steps=(_midpoint_steps(E2M1)[codes[2]] * wide).T,
        parameter=name,
        config={"quant_method": "mxfp4"},
        expert=2,
    )


def mxfp4_linear() -> Packed:
    """compressed-tensors `mxfp4-pack-quantized`."""
    rng = _rng(11)
    codes = rng.integers(0, 16, (48, 64))
    exponents = rng.integers(110, 125, (48, 2)).astype(np.uint8)
    wide = np.repeat(2.0 ** (exponents.astype(np.float64) - 127), 32, 1)
    return Packed(
        tensors={f"{MODULE}.weight_packed": _halves(codes), f"{MODULE}.weight_scale": exponents},
        dense=E2M1.astype(np.float64)[codes] * wide,
        steps=_midpoint_steps(E2M1)[codes] * wide,
        config={"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized"},
    )


def nvfp4(*, modelopt: bool = False) -> Packed:
    """NVFP4: an FP8 scale for each 16, and one for all, which the two writers store inversely."""
    rng = _rng(12)
    codes = rng.integers(0, 16, (48, 64))
    scales = (rng.random((48, 4)) * 100 + 1).astype(ml_dtypes.float8_e4m3fn)
    whole = np.array([0.003 if modelopt else 1 / 0.003], np.float32)
    factor = float(whole[0]) if modelopt else 1 / float(whole[0])
    wide = np.repeat(scales.astype(np.float64) * factor, 16, 1)
    weight, last = (
        ("weight", "weight_scale_2") if modelopt else ("weight_packed", "weight_global_scale")
    )
    return Packed(
        tensors={
            f"{MODULE}.{weight}": _halves(codes),
            f"{MODULE}.weight_scale": scales,
            f"{MODULE}.{last}": whole,
        },
        dense=E2M1.astype(np.float64)[codes] * wide,
        steps=_midpoint_steps(E2M1)[codes] * wide,
        config={"quant_method": "modelopt" if modelopt else "compressed-tensors"},
    )


SAMPLES: Mapping[str, Mapping[str, Callable[[], Packed]]] = {
    "fp8": {
        "DeepSeek's tiles": lambda: fp8(config={"weight_block_size": [128, 128]}),
        "tiles of another size": lambda: fp8(
            grid=(5, 5), tile=(48, 64), config={"weight_block_size": [48, 64]}
        ),
        "tiles without a config": fp8,
        "a scale for all": lambda: fp8(scale="weight_scale", grid=()),
        "a scale for each row": lambda: fp8(
            scale="weight_scale", grid=(200, 1), tile=(1, 300), scale_dtype=ml_dtypes.bfloat16
        ),
        "a list of rows": lambda: fp8(scale="weight_scale", grid=(200,), tile=(1, 300)),
        "ComfyUI": lambda: fp8(scale="scale_weight", grid=(1,)),
        "powers of two, E5M2": lambda: fp8(
            scale="scale", dtype=ml_dtypes.float8_e5m2, scale_dtype=np.uint8
        ),
        "experts": fp8_experts,
    },
    "mxfp4": {"experts": mxfp4_experts, "linear": mxfp4_linear},
    "nvfp4": {"compressed-tensors": nvfp4, "ModelOpt": lambda: nvfp4(modelopt=True)},
    "gptq": {
        "4 bits": gptq,
        "4 bits, version 2": lambda: gptq(version=2),
        "4 bits, activation order": lambda: gptq(act_order=True),
        "4 bits, no g_idx": lambda: gptq(with_g_idx=False),
        "square": lambda: gptq(inputs=64, outputs=64),
        "a shorter last group": lambda: gptq(group=40),
        "a shorter last group, no g_idx": lambda: gptq(group=40, with_g_idx=False),
        "2 bits": lambda: gptq(bits=2),
        "3 bits": lambda: gptq(bits=3),
        "3 bits, activation order, version 2": lambda: gptq(bits=3, act_order=True, version=2),
        "8 bits": lambda: gptq(bits=8, group=96),
    },
    "awq": {"gemm": awq_gemm, "gemv": awq_gemv, "square": lambda: awq_gemm(inputs=64)},
    "bitsandbytes_4bit": {
        "nf4": bitsandbytes_4bit,
        "fp4": lambda: bitsandbytes_4bit(kind="fp4"),
        "double quantisation": lambda: bitsandbytes_4bit(nested=True, shape=(256, 96)),
        "runs across rows": lambda: bitsandbytes_4bit(shape=(41, 80)),
        "narrower than a run": lambda: bitsandbytes_4bit(shape=(64, 32)),
        "odd rows": lambda: bitsandbytes_4bit(shape=(33, 31)),
        "stored as bfloat16": lambda: bitsandbytes_4bit(storage=ml_dtypes.bfloat16),
        "experts": lambda: bitsandbytes_4bit(shape=(3, 40, 96)),
        "experts that end inside a run": lambda: bitsandbytes_4bit(shape=(3, 300, 60), nested=True),
    },
    "bitsandbytes_8bit": {"int8": bitsandbytes_8bit},
    "compressed_tensors": {
        "int4": compressed_int,
        "int4 with zero points": lambda: compressed_int(symmetric=False),
        "int4 in activation order": lambda: compressed_int(act_order=True, symmetric=False),
        "int4, a scale for each row": lambda: compressed_int(group=96),
        "int4, padded": lambda: compressed_int(group=90, columns=90),
        "int8 in words": lambda: compressed_int(bits=8),
        "int2": lambda: compressed_int(bits=2),
        "int8": compressed_int8,
        "int8 with zero points": lambda: compressed_int8(symmetric=False),
    },
}
"""Every registered format that lives in safetensors, with its variants."""
