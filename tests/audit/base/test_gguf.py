"""A base model in llama.cpp's format: the library's own writer, quantiser and dequantiser judge."""

from pathlib import Path

import numpy as np
import pytest

from factories_bases import lora_layer
from gradience.audit.base.match import match
from gradience.audit.base.measured import measure
from gradience.audit.base.packed.gguf import LOWEST_BITS
from gradience.audit.base.rows import rows
from gradience.audit.base.source import open_base
from gradience.audit.norms.matrices import matrices
from gradience.errors import BaseModelError, UnmeasurableError

gguf = pytest.importorskip("gguf", reason="GGUF is read by the extra gradience[gguf]")

pytestmark = pytest.mark.usefixtures("one_blas_thread")

HIDDEN, FF = 256, 512
SHAPES = {
    "token_embd": (320, HIDDEN),
    "blk.0.attn_q": (HIDDEN, HIDDEN),
    "blk.0.attn_output": (HIDDEN, HIDDEN),
    "blk.0.ffn_gate": (FF, HIDDEN),
    "blk.0.ffn_down": (HIDDEN, FF),
}
LIVE = {
    "model.layers.0.self_attn.q_proj": "blk.0.attn_q",
    "model.layers.0.self_attn.o_proj": "blk.0.attn_output",
    "model.layers.0.mlp.gate_proj": "blk.0.ffn_gate",
    "model.layers.0.mlp.down_proj": "blk.0.ffn_down",
}
# Types that the library packs itself, and those of which it only unpacks: for these any bytes do.
PACKS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "BF16", "F16", "F32"]
ONLY_UNPACKS = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "IQ4_NL", "IQ2_XS", "IQ3_S"]
EVEN = [kind for kind in PACKS + ONLY_UNPACKS if kind[0] == "Q"]


def packed(kind: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    qtype = gguf.GGMLQuantizationType[kind]
    dense = (rng.standard_normal(shape) * 0.02).astype(np.float32)
    if kind in PACKS:
        return gguf.quants.quantize(dense, qtype)
    block, size = gguf.GGML_QUANT_SIZES[qtype]
    data = rng.integers(0, 256, (*shape[:-1], shape[-1] // block, size), dtype=np.uint8)
    # Halves among the scales must be finite: positive, and below 1.
    halves = {"Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
    for at in halves.get(kind, [0]):
        data[..., at + 1] &= 0x3B
    return data.reshape(*shape[:-1], -1)


def write(path: Path, kind: str, *, arch: str = "llama", shapes=SHAPES) -> dict[str, np.ndarray]:
    """A model of one type; gives its weights as the library unpacks them."""
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(1)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
    qtype = gguf.GGMLQuantizationType[kind]
    dense = {}
    for seed, (name, shape) in enumerate(shapes.items()):
        data = packed(kind, shape, seed)
        raw = None if kind in ("F16", "F32") else qtype
        writer.add_tensor(f"{name}.weight", data, raw_dtype=raw)
        dense[name] = np.asarray(gguf.quants.dequantize(data, qtype), dtype=np.float64)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return dense


def layers():
    return [lora_layer(name, SHAPES[stored]) for name, stored in LIVE.items()]


@pytest.mark.parametrize("kind", PACKS + ONLY_UNPACKS)
def test_every_type_is_matched_by_live_names_and_measured(kind: str, tmp_path: Path) -> None:
    dense = write(tmp_path / "model.gguf", kind)
    with open_base(tmp_path) as base:
        matches = match(layers(), base.tensors, aliases=base.aliases, refused=base.refused)
        assert matches.unmatched == {}
        norms = measure(base, matches.found.values()).norms
        for name, stored in LIVE.items():
            weight = matches.found[name]
            assert weight.key == f"{stored}.weight"
            largest = np.linalg.svd(dense[stored], compute_uv=False)[0]
            norm = norms[weight.key]
            assert norm.lower <= largest * (1 + 1e-6) <= norm.upper * (1 + 2e-6)
            assert norm.upper <= norm.lower * 1.001
            assert (norm.rounding is not None) == (kind in EVEN)


@pytest.mark.parametrize("kind", EVEN)
def test_the_step_is_the_distance_to_the_next_number_the_block_can_hold(
    kind: str, tmp_path: Path
) -> None:
    """Among hundreds of numbers of a sub-block's level set, the next one up is one step away."""
    data = packed(kind, (8, 512), 3)
    qtype = gguf.GGMLQuantizationType[kind]
    size = gguf.GGML_QUANT_SIZES[qtype][1]
    first = gguf.quants.dequantize(data, qtype).astype(np.float64)
    # Every code in turn, by filling all code bytes of a block with each byte: all levels show up.
    start, stop, _ = LOWEST_BITS[kind]
    seen = []
    for byte in range(256):
        filled = data.copy()
        filled.reshape(-1, size)[:, start:stop] = byte
        seen.append(gguf.quants.dequantize(filled, qtype))
    levels = np.sort(np.stack(seen), axis=0).astype(np.float64)
    gaps = np.diff(levels, axis=0)
    smallest = np.where(gaps > 0, gaps, np.inf).min(axis=0)
    steps = np.where(np.isfinite(smallest), smallest, 0.0)
    with np.errstate(invalid="ignore"):
        expected = np.sqrt(np.sum(steps**2) / 12)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_block_count(1)
    writer.add_tensor("blk.0.attn_q.weight", data, raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    layer = lora_layer("model.layers.0.self_attn.q_proj", first.shape)
    with open_base(tmp_path / "m.gguf") as base:
        weight = match([layer], base.tensors, aliases=base.aliases).found[layer.label]
        rounding = measure(base, [weight]).norms[weight.key].rounding
    assert rounding == pytest.approx(expected, rel=1e-3)


def test_a_split_model_is_whole_or_refused(tmp_path: Path) -> None:
    names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    halves = [dict(list(SHAPES.items())[:2]), dict(list(SHAPES.items())[2:])]
    for name, shapes in zip(names, halves, strict=True):
        write(tmp_path / name, "Q8_0", shapes=shapes)
    with open_base(tmp_path) as base:
        assert match(layers(), base.tensors, aliases=base.aliases).unmatched == {}
    (tmp_path / names[1]).unlink()
    with pytest.raises(BaseModelError, match=names[1]):
        open_base(tmp_path)


def test_a_head_that_is_not_stored_is_the_embedding(tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", "Q8_0")
    head = lora_layer("lm_head", SHAPES["token_embd"])
    with open_base(tmp_path) as base:
        matches = match([*layers(), head], base.tensors, tied=base.tied, aliases=base.aliases)
    assert matches.found["lm_head"].key == "token_embd.weight"


def test_an_architecture_that_the_library_does_not_map_matches_nothing(tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", "Q8_0", arch="no-such-architecture")
    with open_base(tmp_path) as base:
        assert base.aliases == {}
        assert match(layers(), base.tensors, aliases=base.aliases).found == {}


EXPERTS, WIDE = 3, 64
STACKS = {
    "blk.0.ffn_gate_exps": (EXPERTS, WIDE, HIDDEN),
    "blk.0.ffn_up_exps": (EXPERTS, WIDE, HIDDEN),
    "blk.0.ffn_down_exps": (EXPERTS, HIDDEN, 256),
}
FUSED = {"blk.0.ffn_gate_up_exps": (EXPERTS, 2 * WIDE, HIDDEN)}


def expert_layers(stem: str, names: tuple[str, str, str]):
    """A layer on each projection of each expert, as transformers 4 had them."""
    gate, up, down = names
    shapes = {gate: (WIDE, HIDDEN), up: (WIDE, HIDDEN), down: (HIDDEN, 256)}
    return [
        lora_layer(f"{stem}.experts.{e}.{n}", s) for e in range(EXPERTS) for n, s in shapes.items()
    ]


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K", "F16", "F32"])
@pytest.mark.parametrize(
    ("arch", "stem", "names"),
    [
        ("qwen2moe", "model.layers.0.mlp", ("gate_proj", "up_proj", "down_proj")),
        ("llama", "model.layers.0.block_sparse_moe", ("w1", "w3", "w2")),
    ],
)
def test_the_experts_of_a_stack_are_measured_one_by_one(
    kind: str, arch: str, stem: str, names: tuple[str, str, str], tmp_path: Path
) -> None:
    dense = write(tmp_path / "model.gguf", kind, arch=arch, shapes=STACKS)
    layers = expert_layers(stem, names)
    with open_base(tmp_path) as base:
        matches = match(layers, base.tensors, aliases=base.aliases)
        assert matches.unmatched == {}
        norms = measure(base, matches.found.values()).norms
    gate, up, down = names
    stored = dict(zip((gate, up, down), STACKS, strict=True))
    for layer in layers:
        expert, projection = layer.name.split(".")[-2:]
        key = matches.found[layer.label].key
        assert key == f"{stored[projection]}.weight[{expert}]"
        largest = np.linalg.svd(dense[stored[projection]][int(expert)], compute_uv=False)[0]
        assert norms[key].lower <= largest * (1 + 1e-6) <= norms[key].upper * (1 + 2e-6)


@pytest.mark.parametrize("shapes", [STACKS, {**FUSED, **dict([*STACKS.items()][2:])}])
def test_experts_that_the_running_model_fuses_are_put_together(
    shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    """transformers 5 has one parameter of gate above up for all experts; adapters target that."""
    dense = write(tmp_path / "model.gguf", "Q8_0", arch="qwen3next", shapes=shapes)
    layers = [
        lora_layer("model.layers.0.mlp.experts", s, parameter=n, expert=e, kind="expert")
        for e in range(EXPERTS)
        for n, s in {"gate_up_proj": (2 * WIDE, HIDDEN), "down_proj": (HIDDEN, 256)}.items()
    ]
    with open_base(tmp_path) as base:
        matches = match(layers, base.tensors, aliases=base.aliases)
        assert matches.unmatched == {}
        norms = measure(base, matches.found.values()).norms
    for layer in layers:
        if layer.parameter == "gate_up_proj":
            stacks = [name for name in shapes if "down" not in name]
            whole = np.concatenate([dense[name][layer.expert] for name in stacks])
        else:
            whole = dense["blk.0.ffn_down_exps"][layer.expert]
        norm = norms[matches.found[layer.label].key]
        largest = np.linalg.svd(whole, compute_uv=False)[0]
        assert norm.lower <= largest * (1 + 1e-6) <= norm.upper * (1 + 2e-6)


@pytest.mark.parametrize("kind", ["Q8_0", "F16"])
def test_every_expert_of_a_file_has_a_norm_of_its_own(kind: str, tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", kind, arch="qwen2moe", shapes=STACKS)
    with open_base(tmp_path) as base:
        weights, left_out = matrices(base.tensors)
    assert sorted(weights) == sorted(f"{n}.weight[{e}]" for n in STACKS for e in range(EXPERTS))
    assert left_out == {}


def test_rows_in_an_order_that_may_be_another_are_not_given(tmp_path: Path) -> None:
    """The converter permutes the rows of q and k of a Llama: a DoRA magnitude would not fit."""
    write(tmp_path / "model.gguf", "Q8_0")
    with open_base(tmp_path) as base:
        weight = match(layers(), base.tensors, aliases=base.aliases).found[next(iter(LIVE))]
        with pytest.raises(UnmeasurableError, match="another order"):
            rows(base, weight)


@pytest.mark.parametrize("length", [4, 24, 60, 400, 3000])
def test_a_truncated_file_is_refused(length: int, tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", "Q8_0")
    data = (tmp_path / "model.gguf").read_bytes()
    (tmp_path / "model.gguf").write_bytes(data[:length])
    with pytest.raises(BaseModelError, match="GGUF"):
        open_base(tmp_path)
