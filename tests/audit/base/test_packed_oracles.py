"""Packed weights as the libraries write them, beside what these libraries unpack them to."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from factories_bases import lora_layer
from gradience.audit.base.match import match
from gradience.audit.base.measured import measure
from gradience.audit.base.rows import rows
from gradience.audit.base.source import open_base

torch = pytest.importorskip("torch", reason="the oracles are torch code")
safetensors_torch = pytest.importorskip("safetensors.torch")

pytestmark = pytest.mark.usefixtures("one_blas_thread")

MODULE = "model.layers.0.self_attn.q_proj"
SHAPE = (192, 256)


def weight(shape: tuple[int, ...] = SHAPE) -> Any:
    return torch.tensor(np.random.default_rng(5).standard_normal(shape) * 0.02).float()


def save(directory: Path, tensors: dict[str, Any], config: str = "{}") -> None:
    whole = {name: t.contiguous().clone() for name, t in tensors.items()}
    safetensors_torch.save_file(whole, directory / "model.safetensors")
    (directory / "config.json").write_text(config)


def unpacked_rows(directory: Path, tensors: dict[str, Any], shape: tuple[int, int]) -> np.ndarray:
    save(directory, tensors)
    wanted = lora_layer(MODULE, shape)
    with open_base(directory) as base:
        found = match([wanted], base.tensors, refused=base.refused).found[MODULE]
        return np.concatenate(list(rows(base, found).blocks(50)))


def check(
    directory: Path,
    tensors: dict[str, Any],
    expected: Any,
    *,
    config: str = "{}",
    tolerance: float = 1e-6,
    **layer: Any,
) -> None:
    """Matched by name, equal row for row, and the norm of the dense weight inside the interval."""
    save(directory, tensors, config)
    dense = expected.double().numpy()
    wanted = lora_layer(layer.pop("name", MODULE), dense.shape, **layer)
    with open_base(directory) as base:
        found = match([wanted], base.tensors, refused=base.refused).found[wanted.label]
        blocks = list(rows(base, found).blocks(50))
        norm = measure(base, [found]).norms[found.key]
    np.testing.assert_allclose(np.concatenate(blocks), dense, rtol=tolerance, atol=1e-12)
    largest = np.linalg.svd(dense, compute_uv=False)[0]
    assert norm.lower <= largest * (1 + tolerance)
    assert largest <= norm.upper * (1 + tolerance)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("shape", [SHAPE, (70, 64)])
def test_bitsandbytes_4bit(kind: str, nested: bool, shape: tuple[int, int], tmp_path: Path) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    packed, state = functional.quantize_4bit(
        weight(shape), blocksize=64, quant_type=kind, compress_statistics=nested
    )
    parts = {f"{MODULE}.weight.{k}": v for k, v in state.as_dict(packed=True).items()}
    expected = functional.dequantize_4bit(packed, state)
    assert expected.dtype == torch.float32
    check(tmp_path, {f"{MODULE}.weight": packed, **parts}, expected)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_bitsandbytes_runs_go_on_across_rows(kind: str, tmp_path: Path) -> None:
    """Where rows end inside a run, the CPU kernel of 0.50 unpacks wrong numbers: the weight that
    was packed judges in its place."""
    functional = pytest.importorskip("bitsandbytes.functional")
    dense = weight((48, 272))
    packed, state = functional.quantize_4bit(dense, blocksize=64, quant_type=kind)
    parts = {f"{MODULE}.weight.{k}": v for k, v in state.as_dict(packed=True).items()}
    unpacked = unpacked_rows(tmp_path, {f"{MODULE}.weight": packed, **parts}, dense.shape)
    error = np.linalg.norm(unpacked - dense.numpy()) / np.linalg.norm(dense.numpy())
    assert error < 0.15


def test_bitsandbytes_8bit(tmp_path: Path) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    codes, scb, _ = functional.int8_vectorwise_quant(weight().half())
    expected = functional.int8_vectorwise_dequant(codes, scb)
    check(
        tmp_path,
        {
            f"{MODULE}.weight": codes,
            f"{MODULE}.SCB": scb,
            f"{MODULE}.weight_format": torch.tensor(0, dtype=torch.uint8),
        },
        expected,
    )


def compressed(scheme: dict[str, Any], state: dict[str, Any], directory: Path, **how: Any) -> None:
    """Packed and unpacked by compressed-tensors."""
    compressors = pytest.importorskip("compressed_tensors.compressors.base")
    schemes = pytest.importorskip("compressed_tensors.quantization")
    args = schemes.QuantizationScheme(
        targets=["Linear"], weights=schemes.QuantizationArgs(**scheme)
    )
    compressor = compressors.BaseCompressor.get_value_from_registry(how.pop("format"))
    packed = compressor.compress(state, args)
    expected = compressor.decompress(packed, args)["weight"]
    check(
        directory,
        {f"{MODULE}.{name}": tensor for name, tensor in packed.items()},
        expected,
        config='{"quantization_config": {"quant_method": "compressed-tensors"}}',
        **how,
    )


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [64, 0])
def test_compressed_tensors_integers_in_words(
    bits: int, symmetric: bool, group: int, tmp_path: Path
) -> None:
    groups = SHAPE[1] // group if group else 1
    scale = torch.rand(SHAPE[0], groups) * 0.01 + 0.005
    zeros = torch.randint(-3, 4, (SHAPE[0], groups), dtype=torch.int8)
    state = {"weight": weight(), "weight_scale": scale}
    if not symmetric:
        state["weight_zero_point"] = zeros
    scheme: dict[str, Any] = {"num_bits": bits, "symmetric": symmetric, "strategy": "channel"}
    if group:
        scheme |= {"strategy": "group", "group_size": group}
    compressed(scheme, state, tmp_path, format="pack-quantized")


@pytest.mark.parametrize("strategy", ["tensor", "channel"])
@pytest.mark.parametrize("kind", ["int", "float"])
def test_compressed_tensors_eight_bits(strategy: str, kind: str, tmp_path: Path) -> None:
    rows_ = 1 if strategy == "tensor" else SHAPE[0]
    scale = torch.rand(rows_, 1) * 0.001 + 0.001
    state = {"weight": weight(), "weight_scale": scale.reshape(1) if rows_ == 1 else scale}
    scheme = {"num_bits": 8, "type": kind, "symmetric": True, "strategy": strategy}
    compressed(scheme, state, tmp_path, format=f"{kind}-quantized")


def test_compressed_tensors_nvfp4(tmp_path: Path) -> None:
    whole = torch.tensor([200.0])
    scale = (torch.rand(SHAPE[0], SHAPE[1] // 16) + 0.2).to(torch.float8_e4m3fn).float()
    state = {"weight": weight(), "weight_scale": scale, "weight_global_scale": whole}
    scheme = {
        "num_bits": 4, "type": "float", "symmetric": True, "strategy": "tensor_group",
        "group_size": 16,
    }  # fmt: skip
    # Its reference rounds to bfloat16.
    compressed(scheme, state, tmp_path, format="nvfp4-pack-quantized", tolerance=2**-7)


def test_compressed_tensors_mxfp4(tmp_path: Path) -> None:
    scale = 2.0 ** torch.randint(-9, -5, (SHAPE[0], SHAPE[1] // 32)).float()
    state = {"weight": weight(), "weight_scale": scale}
    scheme = {
        "num_bits": 4, "type": "float", "symmetric": True, "strategy": "group", "group_size": 32,
    }  # fmt: skip
    compressed(scheme, state, tmp_path, format="mxfp4-pack-quantized")


@pytest.mark.parametrize("grid", [(2, 2), (1, 1), (192, 1)])
@pytest.mark.parametrize("scales", ["float32", "uint8"])
def test_fp8_as_transformers_unpacks_it(grid: tuple[int, int], scales: str, tmp_path: Path) -> None:
    fp8 = pytest.importorskip("transformers.integrations.finegrained_fp8")
    codes = (weight() * 5000).to(torch.float8_e4m3fn)
    scale = torch.rand(grid) * 1e-4
    if scales == "uint8":
        scale = torch.randint(110, 120, grid, dtype=torch.uint8)
    expected = fp8.Fp8Dequantize(None)._dequantize_one(codes, scale, torch.float32)
    tile = [SHAPE[0] // grid[0], SHAPE[1] // grid[1]]
    check(
        tmp_path,
        {f"{MODULE}.weight": codes, f"{MODULE}.weight_scale_inv": scale},
        expected,
        config=f'{{"quantization_config": {{"weight_block_size": {tile}}}}}',
    )


def test_mxfp4_experts_as_transformers_unpacks_them(tmp_path: Path) -> None:
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
    rng = np.random.default_rng(3)
    blocks = torch.tensor(rng.integers(0, 256, (4, 96, 2, 16), dtype=np.uint8))
    scales = torch.tensor(rng.integers(115, 122, (4, 96, 2), dtype=np.uint8))
    # (experts, in, out): the running model multiplies from the right.
    expected = mxfp4.convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    name = "model.layers.0.mlp.experts"
    check(
        tmp_path,
        {f"{name}.gate_up_proj_blocks": blocks, f"{name}.gate_up_proj_scales": scales},
        expected[3].T,
        name=name,
        parameter="gate_up_proj",
        expert=3,
        kind="expert",
        base_transposed=True,
    )
