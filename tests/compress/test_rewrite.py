"""Adapters that were rewritten, loaded by PEFT itself: the change is the one that was meant."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("peft", reason="the oracle is PEFT; install gradience[dev]")

import torch
from peft import AdaLoraConfig, LoHaConfig, LoraConfig, PeftModel
from torch import nn

from factories_architectures import ARCHITECTURES, adapt, quiet, tiny_model
from factories_peft import TinyNet, numpy, randomise, save_and_reload, scaled
from gradience.adapter.read import adapter_from_state_dict, open_adapter
from gradience.adapter.records import Adapter
from gradience.audit.run import audit_lora_peft_dir
from gradience.compress import rewrite
from gradience.compress.rewrite import Rewritten
from gradience.compress.slots import alpha_for
from gradience.compress.write import write_peft
from gradience.errors import UnmeasurableError, UnsupportedAdapterError, UsageError
from gradience.tensors.opening import open_tensor_file

LINEAR = {"r": 6, "lora_alpha": 12, "target_modules": ["lin", "out"]}


def deltas(model: Any) -> dict[str, np.ndarray]:
    """What PEFT adds to each weight, of every kind of module, experts apart."""
    found = {}
    for path, module in model.base_model.model.named_modules():
        if hasattr(module, "get_delta_weight") and getattr(module, "scaling", None):
            with torch.no_grad():
                found[path] = numpy(module.get_delta_weight("default"))
    assert found
    return found


def saved(tmp_path: Path, config: Any, make_model: Any = TinyNet, **save: Any) -> Adapter:
    save_and_reload(make_model, config, tmp_path / "adapter", **save)
    return open_adapter(tmp_path / "adapter")


def loaded(directory: Path, make_model: Any = TinyNet) -> Any:
    with quiet():
        torch.manual_seed(0)
        return PeftModel.from_pretrained(make_model(), str(directory))


def written(tmp_path: Path, rewritten: Rewritten) -> Path:
    write_peft(tmp_path / "new", rewritten)
    return tmp_path / "new"


def best(matrix: np.ndarray, rank: int) -> np.ndarray:
    flat = matrix.reshape(len(matrix), -1)
    u, s, vt = np.linalg.svd(flat, full_matrices=False)
    return ((u[:, :rank] * s[:rank]) @ vt[:rank]).reshape(matrix.shape)


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(**LINEAR),
        LoraConfig(**LINEAR, use_rslora=True),
        LoraConfig(**LINEAR, rank_pattern={"out": 4}, alpha_pattern={"lin": 7}, use_rslora=True),
        LoraConfig(r=4, lora_alpha=3, target_modules=["emb", "conv", "point", "line", "volume"]),
    ],
    ids=["plain", "rslora", "patterns", "kinds"],
)
@pytest.mark.parametrize("rank", [1, 3])
def test_peft_adds_the_best_change_of_that_rank(tmp_path: Path, config: Any, rank: int) -> None:
    adapter = saved(tmp_path, config)
    before = deltas(loaded(tmp_path / "adapter"))
    cut = rewrite.truncate(adapter, rank)
    after = deltas(loaded(written(tmp_path, cut)))
    lost = whole = 0.0
    for name, delta in before.items():
        wanted = best(delta, rank)
        assert np.linalg.norm(after[name] - wanted) <= 3e-6 * np.linalg.norm(delta)
        lost += np.sum((delta - wanted) ** 2)
        whole += np.sum(delta**2)
    assert cut.relative_error == pytest.approx(np.sqrt(lost / whole), rel=1e-5)


def test_ranks_may_differ_by_module_and_the_scales_stay(tmp_path: Path) -> None:
    adapter = saved(tmp_path, LoraConfig(**LINEAR, use_rslora=True))
    ranks = {"lin": 2, "out": 5}
    cut = rewrite.truncate(adapter, ranks)
    new = open_adapter(written(tmp_path, cut))
    assert {x.name: x.rank for x in new.layers} == ranks == cut.ranks
    assert {x.name: x.scale for x in new.layers} == {x.name: x.scale for x in adapter.layers}
    assert new.config["r"] == 5
    live = loaded(tmp_path / "new").base_model.model
    assert live.lin.scaling["default"] == adapter.layers[0].scale
    assert live.out.scaling["default"] == adapter.layers[1].scale


class Nested(nn.Module):
    """`inner.lin` ends in `lin`: a pattern for one must not catch the other."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 8)
        self.inner = nn.ModuleDict({"lin": nn.Linear(8, 8)})
        self.other = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.other(self.inner["lin"](self.lin(x)))


@pytest.mark.parametrize(
    "ranks",
    [
        {"lin": 2, "inner.lin": 4, "other": 4},
        {"lin": 4, "inner.lin": 2, "other": 4},
        {"lin": 1, "inner.lin": 2, "other": 3},
    ],
)
def test_a_name_that_ends_in_another_gets_its_own_rank(
    tmp_path: Path, ranks: dict[str, int]
) -> None:
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["lin", "other"])
    adapter = saved(tmp_path, config, Nested)
    directory = written(tmp_path, rewrite.truncate(adapter, ranks))
    live = loaded(directory, Nested)
    found = {n: m.r["default"] for n, m in live.base_model.model.named_modules() if hasattr(m, "r")}
    assert found == ranks
    scales = {m.scaling["default"] for m in live.modules() if hasattr(m, "scaling")}
    assert scales == {1.5}
    with quiet():
        live.save_pretrained(str(tmp_path / "again"))  # PEFT sorts the keys of the patterns
    again = loaded(tmp_path / "again", Nested)
    assert {
        n: m.r["default"] for n, m in again.base_model.model.named_modules() if hasattr(m, "r")
    } == ranks


@pytest.mark.parametrize("architecture", ["mixtral", "qwen3_moe", "gpt2", "bert", "t5"])
def test_every_module_of_an_architecture_is_cut_and_loads(
    tmp_path: Path, architecture: str
) -> None:
    targets = ARCHITECTURES[architecture].target_parameters
    model = adapt(tiny_model(architecture), target_parameters=targets, rank=4)
    randomise(model)
    with quiet():
        model.save_pretrained(str(tmp_path / "adapter"))
    adapter = open_adapter(tmp_path / "adapter")
    directory = written(tmp_path, rewrite.truncate(adapter, 2))
    after = deltas(loaded(directory, lambda: tiny_model(architecture)))
    for name, delta in deltas(model).items():
        # Stacked experts are cut one by one.
        single = delta.ndim < 3 or "conv" in name
        wanted = best(delta, 2) if single else np.stack([best(x, 2) for x in delta])
        assert np.linalg.norm(after[name] - wanted) <= 3e-6 * np.linalg.norm(delta), name


def test_adalora_becomes_plain_lora_of_the_same_change(tmp_path: Path) -> None:
    config = AdaLoraConfig(
        init_r=6, target_r=3, lora_alpha=5, total_step=10, target_modules=["lin", "out"]
    )
    adapter = saved(tmp_path, config)
    before = deltas(loaded(tmp_path / "adapter"))
    after = deltas(loaded(written(tmp_path, rewrite.truncate(adapter, 4))))
    for name, delta in before.items():
        assert np.linalg.norm(after[name] - best(delta, 4)) <= 3e-6 * np.linalg.norm(delta)
    assert json.loads((tmp_path / "new" / "adapter_config.json").read_text())["peft_type"] == "LORA"


def test_an_attention_and_its_output_projection_share_a_rank(tmp_path: Path) -> None:
    """nn.MultiheadAttention: PEFT matches both with the name of the attention."""
    adapter = saved(tmp_path, LoraConfig(r=4, lora_alpha=6, target_modules=["mha", "lin"]))
    assert [x.label for x in adapter.layers] == ["lin", "mha.in_proj_weight", "mha.out_proj"]
    ranks = {"lin": 1, "mha.in_proj_weight": 2, "mha.out_proj": 3}
    cut = rewrite.truncate(adapter, ranks)
    assert cut.ranks == {"lin": 1, "mha.in_proj_weight": 3, "mha.out_proj": 3}
    directory = written(tmp_path, cut)
    loaded(directory)
    for old, new in zip(adapter.layers, open_adapter(directory).layers, strict=True):
        wanted = best(scaled(old), cut.ranks[old.label])
        assert np.linalg.norm(scaled(new) - wanted) <= 3e-6 * np.linalg.norm(wanted)


def test_what_has_no_more_than_the_rank_keeps_its_bits(tmp_path: Path) -> None:
    adapter = saved(tmp_path, LoraConfig(**LINEAR, rank_pattern={"out": 2}))
    cut = rewrite.truncate(adapter, 3)
    assert cut.errors["out"] == 0.0
    assert cut.errors["lin"] > 0.0
    for tensor in adapter.layers[1].tensors:
        assert np.array_equal(cut.tensors[tensor.name], tensor.read())


def test_heads_biases_and_embeddings_are_carried_over_byte_by_byte(tmp_path: Path) -> None:
    config = LoraConfig(r=4, target_modules=["lin"], modules_to_save=["point"], bias="all")
    adapter = saved(tmp_path, config)
    assert {extra.kind for extra in adapter.extras} >= {"other", "bias"}
    for rewritten in (
        rewrite.truncate(adapter, 2),
        rewrite.encoded(adapter, "bf16"),
        rewrite.encoded(adapter, "int8"),
        rewrite.random_subspace(adapter, None, seed=0),
    ):
        for extra in adapter.extras:
            new = rewritten.tensors[extra.tensor.name]
            assert new.tobytes() == extra.tensor.read().tobytes()
            assert new.dtype == extra.tensor.read().dtype


def test_a_bias_of_lora_is_carried_over(tmp_path: Path) -> None:
    adapter = saved(tmp_path, LoraConfig(**LINEAR, lora_bias=True, init_lora_weights=True))
    new = open_adapter(written(tmp_path, rewrite.truncate(adapter, 2)))
    for old, layer in zip(adapter.layers, new.layers, strict=True):
        assert old.bias is not None
        assert layer.bias is not None
        assert np.array_equal(old.bias.read(), layer.bias.read())
        assert old.scale == layer.scale


def test_a_resaved_adapter_has_the_same_bytes_in_every_tensor(tmp_path: Path) -> None:
    adapter = saved(tmp_path, LoraConfig(**LINEAR, modules_to_save=["point"]))
    directory = written(tmp_path, rewrite.resaved(adapter))
    old = open_tensor_file(tmp_path / "adapter" / "adapter_model.safetensors").tensors
    new = open_tensor_file(directory / "adapter_model.safetensors").tensors
    assert {n: (t.dtype, t.shape, t.read().tobytes()) for n, t in old.items()} == {
        n: (t.dtype, t.shape, t.read().tobytes()) for n, t in new.items()
    }
    assert rewrite.change_error(adapter, open_adapter(directory)) < 1e-15


def test_the_ranks_written_are_the_ranks_suggested(tmp_path: Path) -> None:
    """An earlier tool gave modules the full rank where the suggestion was the commonest one."""
    adapter = saved(tmp_path, LoraConfig(**LINEAR, rank_pattern={"out": 4}))
    suggestions = audit_lora_peft_dir(tmp_path / "adapter", use_cache=False).suggestions
    assert {s.rule for s in suggestions} >= {"per_module", "uniform_median", "uniform_max"}
    for suggestion in suggestions:
        ranks = rewrite.ranks_by_energy(adapter, suggestion.energy, suggestion.rule)
        cut = rewrite.truncate(adapter, ranks)
        new = open_adapter(written(tmp_path, cut))
        found = {layer.label: layer.rank for layer in new.layers}
        assert max(found.values()) == suggestion.rank
        if suggestion.rule == "per_module":
            assert found == suggestion.ranks
        else:
            own = {layer.label: layer.rank for layer in adapter.layers}
            assert found == {name: min(suggestion.rank, r) for name, r in own.items()}
        assert cut.relative_error == pytest.approx(suggestion.relative_error, rel=1e-9)
        assert sum(t.size for x in new.layers for t in x.tensors) == suggestion.parameters


@pytest.mark.parametrize(
    ("encoding", "least", "most"), [("bf16", 5e-4, 5e-3), ("int8", 2e-3, 3e-2)]
)
def test_an_encoding_has_the_error_it_says_when_peft_loads_it(
    tmp_path: Path, encoding: Any, least: float, most: float
) -> None:
    adapter = saved(tmp_path, LoraConfig(**LINEAR))
    before = deltas(loaded(tmp_path / "adapter"))
    new = rewrite.encoded(adapter, encoding)
    after = deltas(loaded(written(tmp_path, new)))
    lost = sum(np.sum((after[n] - before[n]) ** 2) for n in before)
    error = np.sqrt(lost / sum(np.sum(d**2) for d in before.values()))
    assert least < error < most
    assert new.relative_error == pytest.approx(error, rel=1e-4)


def test_encodings_count_the_bytes_of_what_they_stand_for(tmp_path: Path) -> None:
    adapter = saved(tmp_path, LoraConfig(**LINEAR))
    numbers = sum(t.size for layer in adapter.layers for t in layer.tensors)
    assert rewrite.resaved(adapter).factor_bytes == 4 * numbers
    assert rewrite.encoded(adapter, "bf16").factor_bytes == 2 * numbers
    # A byte per number, and a float32 scale per direction of each of the four factors of rank 6.
    assert rewrite.encoded(adapter, "int8").factor_bytes == numbers + 4 * 6 * 4
    assert rewrite.truncate(adapter, 3).factor_bytes == 2 * numbers


def test_a_bf16_adapter_is_stored_in_bf16(tmp_path: Path) -> None:
    adapter = saved(tmp_path, LoraConfig(**LINEAR))
    new = open_adapter(written(tmp_path, rewrite.encoded(adapter, "bf16")))
    assert {t.dtype for layer in new.layers for t in layer.tensors} == {"BF16"}
    cut = open_adapter(written(tmp_path, rewrite.truncate(new, 2)))
    assert {t.dtype for layer in cut.layers for t in layer.tensors} == {"BF16"}


def test_a_random_subspace_depends_on_seed_and_module_alone(tmp_path: Path) -> None:
    adapter = saved(tmp_path, LoraConfig(**LINEAR))
    one, same = (rewrite.random_subspace(adapter, None, seed=1) for _ in range(2))
    other = rewrite.random_subspace(adapter, None, seed=2)
    name = next(n for n in one.tensors if "lora_B" in n)
    assert np.array_equal(one.tensors[name], same.tensors[name])
    assert not np.array_equal(one.tensors[name], other.tensors[name])
    assert one.ranks == {"lin": 6, "out": 6}
    assert one.relative_error is not None
    assert one.relative_error > 0.3


def test_an_untrained_adapter_is_cut_to_its_first_directions(tmp_path: Path) -> None:
    adapter = saved(tmp_path, LoraConfig(**LINEAR, use_rslora=True))
    new = open_adapter(written(tmp_path, rewrite.first_directions(adapter, 2, None)))
    for old, layer in zip(adapter.layers, new.layers, strict=True):
        a, b = (next(t for t in old.tensors if p in t.name).read() for p in ("lora_A", "lora_B"))
        c, d = (next(t for t in layer.tensors if p in t.name).read() for p in ("lora_A", "lora_B"))
        assert np.array_equal(a[:2], c)
        assert np.array_equal(b[:, :2], d)
        assert layer.scale == old.scale
    kept = open_adapter(written(tmp_path, rewrite.first_directions(adapter, 2, 12.0)))
    assert {layer.alpha for layer in kept.layers} == {12.0}
    assert kept.layers[0].scale == 12 / np.sqrt(2)


def refused(tmp_path: Path, config: Any) -> str:
    adapter = saved(tmp_path, config)
    with pytest.raises(UnsupportedAdapterError) as error:
        rewrite.truncate(adapter, 2)
    assert error.value.remedy
    return str(error.value)


def test_dora_is_refused_by_name_and_keeps_its_magnitude_where_it_is_encoded(
    tmp_path: Path,
) -> None:
    """PEFT's own save_as_lora drops the magnitude: an error of half the change."""
    assert "lin is DoRA" in refused(tmp_path, LoraConfig(**LINEAR, use_dora=True))
    adapter = open_adapter(tmp_path / "adapter")
    new = rewrite.encoded(adapter, "bf16")
    assert new.relative_error is None
    for layer in adapter.layers:
        assert layer.magnitude is not None
        assert np.array_equal(new.tensors[layer.magnitude.name], layer.magnitude.read())


def test_what_has_no_thin_factors_is_refused_by_name(tmp_path: Path) -> None:
    assert "loha" in refused(tmp_path, LoHaConfig(r=3, target_modules=["lin"]))


def test_a_grouped_convolution_is_refused_by_name(tmp_path: Path) -> None:
    assert "grouped" in refused(tmp_path, LoraConfig(r=4, target_modules=["grouped"]))


def test_an_initialisation_that_moves_the_base_is_refused_by_name(tmp_path: Path) -> None:
    message = refused(tmp_path, LoraConfig(**LINEAR, init_lora_weights="pissa"))
    assert "pissa" in message


def test_nan_is_refused_by_name(tmp_path: Path) -> None:
    adapter = saved(tmp_path, LoraConfig(**LINEAR))
    broken = dict(rewrite.resaved(adapter).tensors)
    name = next(iter(broken))
    broken[name] = np.full_like(broken[name], np.nan)
    with pytest.raises(UnsupportedAdapterError, match="NaN"):
        rewrite.truncate(adapter_from_state_dict(broken, adapter.config), 2)


def test_a_rank_of_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="rank 0"):
        rewrite.truncate(saved(tmp_path, LoraConfig(**LINEAR)), 0)


def test_two_adapters_of_other_modules_have_no_error(tmp_path: Path) -> None:
    one = saved(tmp_path / "1", LoraConfig(**LINEAR))
    other = saved(tmp_path / "2", LoraConfig(r=4, target_modules=["lin"]))
    with pytest.raises(UnmeasurableError, match="same weights"):
        rewrite.change_error(one, other)


@pytest.mark.parametrize("rslora", [False, True])
def test_an_alpha_gives_its_scale_back(rslora: bool) -> None:
    rng = np.random.default_rng(0)
    for rank in range(1, 65):
        divisor = np.sqrt(rank) if rslora else rank
        for scale in (2.0, 1.0, 16 / 8, 16 / np.sqrt(8), 1 / 3, *rng.uniform(0.01, 9, 5)):
            alpha = alpha_for(float(scale), rank, rslora=rslora)
            assert abs(alpha / divisor - scale) <= np.spacing(scale)
