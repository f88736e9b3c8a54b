"""What becomes of a change that is merged into a packed base: the number against real merges."""

import json
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from factories_bases import lora_layer
from factories_layers import make_byte_use, make_layer
from factories_packed import NF4, pack_bits
from gradience.audit.base.match import match
from gradience.audit.base.measured import measure
from gradience.audit.base.source import open_base
from gradience.audit.health import health
from gradience.audit.run import audit_lora_peft_dir

pytestmark = pytest.mark.usefixtures("one_blas_thread")

MODULE = "model.layers.0.self_attn.q_proj"
OUT, INTO = 128, 256
RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((OUT, INTO)) * 0.02
Array = np.ndarray


class Nf4:
    """bitsandbytes nf4 without double quantisation, written from its paper."""

    def pack(self, dense: Array) -> dict[str, Array]:
        absmax = np.abs(dense).reshape(-1, 64).max(axis=1).astype(np.float32)
        codes = np.abs((dense.reshape(-1, 64) / absmax[:, None])[..., None] - NF4).argmin(axis=-1)
        self.values = (NF4.astype(np.float64)[codes] * absmax[:, None]).reshape(dense.shape)
        flat = codes.reshape(-1)
        state = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": dense.shape}
        name = f"{MODULE}.weight"
        return {
            name: ((flat[::2] << 4) | flat[1::2]).astype(np.uint8).reshape(-1, 1),
            f"{name}.absmax": absmax,
            f"{name}.quant_map": NF4,
            f"{name}.quant_state.bitsandbytes__nf4": np.frombuffer(
                json.dumps(state).encode(), np.uint8
            ),
        }


class Gptq4:
    """Rounding to the nearest of 16 evenly spaced numbers for each 64 inputs, packed as GPTQ."""

    def pack(self, dense: Array) -> dict[str, Array]:
        groups = dense.T.reshape(-1, 64, OUT)
        low, high = groups.min(axis=1), groups.max(axis=1)
        scales = ((high - low) / 15).astype(np.float16)
        zeros = np.round(-low / scales.astype(np.float64)).clip(0, 15).astype(np.int64)
        wide = scales.astype(np.float64)[:, None]
        codes = np.round(groups / wide + zeros[:, None]).clip(0, 15).astype(np.int64)
        self.values = ((codes - zeros[:, None]) * wide).reshape(-1, OUT).T
        return {
            f"{MODULE}.qweight": np.ascontiguousarray(pack_bits(codes.reshape(-1, OUT).T, 4).T),
            f"{MODULE}.qzeros": pack_bits((zeros - 1) % 16, 4),
            f"{MODULE}.scales": scales,
        }


class Fp8Tiles:
    """E4M3 with a scale for each tile of 128 by 128."""

    def pack(self, dense: Array) -> dict[str, Array]:
        tiles = dense.reshape(OUT // 128, 128, INTO // 128, 128)
        scales = (np.abs(tiles).max(axis=(1, 3)) / 448).astype(np.float32)
        wide = np.repeat(np.repeat(scales.astype(np.float64), 128, 0), 128, 1)
        codes = (dense / wide).astype(ml_dtypes.float8_e4m3fn)
        self.values = codes.astype(np.float64) * wide
        return {f"{MODULE}.weight": codes, f"{MODULE}.weight_scale_inv": scales}


def change(size: float) -> Array:
    """A change of rank 8 and this root mean square."""
    dense = RNG.standard_normal((OUT, 8)) @ RNG.standard_normal((8, INTO))
    return dense * (size / np.sqrt(np.mean(dense**2)))


def rounding_of(directory: Path, tensors: dict[str, Array]) -> float:
    save_file(tensors, directory / "model.safetensors")
    with open_base(directory) as base:
        layer = lora_layer(MODULE, (OUT, INTO))
        weight = match([layer], base.tensors).found[MODULE]
        found = measure(base, [weight]).norms[weight.key].rounding
    assert found is not None
    return found


@pytest.mark.parametrize("make", [Nf4, Gptq4, Fp8Tiles])
def test_rounding_is_the_error_of_packing_a_weight(make: Callable, tmp_path: Path) -> None:
    format = make()
    found = rounding_of(tmp_path, format.pack(WEIGHT))
    assert found == pytest.approx(np.linalg.norm(format.values - WEIGHT), rel=0.1)


@pytest.mark.parametrize("make", [Nf4, Gptq4, Fp8Tiles])
@pytest.mark.parametrize(
    ("ratio", "least", "most"), [(0.2, 0.95, 1.05), (1.0, 0.35, 0.9), (4.0, -0.1, 0.3)]
)
def test_a_change_survives_a_merge_as_its_ratio_says(
    make: Callable, ratio: float, least: float, most: float, tmp_path: Path
) -> None:
    """Quantise, merge, quantise again: well below 1 the change is there, well above it is gone."""
    format = make()
    rounding = rounding_of(tmp_path, format.pack(WEIGHT))
    before = format.values
    dense = change(rounding / ratio / np.sqrt(OUT * INTO))
    format.pack(before + dense)
    kept = np.sum((format.values - before) * dense) / np.sum(dense**2)
    assert least <= kept <= most


@pytest.mark.parametrize("make", [Nf4, Gptq4, Fp8Tiles])
def test_the_remedy_keeps_the_change(make: Callable, tmp_path: Path) -> None:
    """Merged into the weight in full precision, what is lost above is there, under noise."""
    format = make()
    rounding = rounding_of(tmp_path, format.pack(WEIGHT))
    before = format.values
    dense = change(rounding / 4.0 / np.sqrt(OUT * INTO))
    format.pack(WEIGHT + dense)
    kept = np.sum((format.values - before) * dense) / np.sum(dense**2)
    assert kept == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(("ratio", "found"), [(0.9, False), (1.1, True)])
def test_the_finding_comes_with_a_ratio_above_one(ratio: float, found: bool) -> None:
    layers = [
        make_layer(f"model.layers.{i}.q_proj", [1.0], base=9.0, rounding=ratio if i == 2 else 0.1)
        for i in range(4)
    ]
    use = make_byte_use(factors=1000)
    codes = {f.code: f for f in health(layers, use, zero_factors=(), chosen_blocks=False)}
    assert ("merge_rounded_away" in codes) is found
    if found:
        assert codes["merge_rounded_away"].modules == ("model.layers.2.q_proj",)


@pytest.mark.parametrize(("size", "survives"), [(2e-5, False), (2e-2, True)])
def test_a_qlora_adapter_is_audited_as_peft_will_merge_it(
    size: float, survives: bool, tmp_path: Path
) -> None:
    """A real nf4 base with double quantisation, a real adapter, PEFT's own merge."""
    bnb = pytest.importorskip("bitsandbytes", reason="packs and merges in nf4 as users do")
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    safetensors_torch = pytest.importorskip("safetensors.torch")

    class Model(torch.nn.Module):
        is_loaded_in_4bit = True

        def __init__(self) -> None:
            super().__init__()
            self.q_proj = bnb.nn.Linear4bit(
                INTO, OUT, bias=False, compute_dtype=torch.float32, quant_type="nf4"
            )

    torch.manual_seed(0)
    model = Model()
    model.q_proj.weight.data.copy_(torch.tensor(WEIGHT, dtype=torch.float32))
    model = model.to("cpu")
    (tmp_path / "base").mkdir()
    safetensors_torch.save_file(model.state_dict(), tmp_path / "base" / "model.safetensors")
    tuned = peft.get_peft_model(
        model, peft.LoraConfig(r=8, lora_alpha=8, target_modules=["q_proj"])
    )
    layer = tuned.base_model.model.q_proj
    torch.nn.init.normal_(layer.lora_A["default"].weight, std=1.0)
    torch.nn.init.normal_(layer.lora_B["default"].weight, std=size / 8**0.5)
    tuned.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        dense = layer.get_delta_weight("default").numpy().astype(np.float64)
        packed = layer.base_layer.weight
        before = bnb.functional.dequantize_4bit(packed.data, packed.quant_state).numpy()
        with pytest.warns(UserWarning, match="rounding errors"):
            merged = tuned.merge_and_unload().q_proj.weight
        after = bnb.functional.dequantize_4bit(merged.data, merged.quant_state).numpy()
    kept = np.sum((after.astype(np.float64) - before) * dense) / np.sum(dense**2)

    audit = audit_lora_peft_dir(
        tmp_path / "adapter",
        base_model_id=tmp_path / "base",
        base_norms_cache=tmp_path / "norms",
        use_cache=False,
    )
    (measured,) = audit.layers
    assert measured.base is not None
    largest = np.linalg.svd(before.astype(np.float64), compute_uv=False)[0]
    assert measured.base.lower <= largest * (1 + 1e-6)
    assert largest <= measured.base.upper * (1 + 1e-6)
    found = "merge_rounded_away" in {f.code for f in audit.findings}
    if survives:
        assert kept > 0.95
        assert not found
        assert measured.metrics["merge_rounding"] < 0.3
    else:
        assert abs(kept) < 0.5
        assert found
        assert measured.metrics["merge_rounding"] > 10
