"""Norms of the base weights of an adapter, end to end: measured once, remembered after."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from factories_bases import decoder_shapes, layers_of, lora_layer, write_base
from gradience.audit.base.known import Settings
from gradience.audit.base.measured import measure
from gradience.audit.base.norms import BaseNorms, base_norms
from gradience.audit.base.packed.format import PackedWeight
from gradience.audit.base.rows import rows, stored_rows
from gradience.audit.base.source import open_base
from gradience.audit.base.spectral_norm import Goal
from gradience.audit.base.weights import BaseWeight, Part
from gradience.tensors.stored import Array, StoredTensor

NOW = datetime(2026, 11, 23, tzinfo=UTC)
UP = "model.layers.0.mlp.up_proj"


def norms_of(base_path: Path, cache_dir: Path, layers: Any = None, **options: Any) -> BaseNorms:
    with open_base(base_path) as base:
        chosen = layers_of(decoder_shapes()) if layers is None else layers
        return base_norms(chosen, base, Settings(cache_dir, NOW, **options))


def test_every_layer_gets_the_norms_of_its_weight(tmp_path: Path) -> None:
    tensors = write_base(tmp_path / "base", decoder_shapes())
    told: list[tuple[str, int, int]] = []
    result = norms_of(
        tmp_path / "base", tmp_path / "cache", progress=lambda *step: told.append(step)
    )
    assert result.unmatched == {}
    assert result.findings == ()
    assert result.model == str(tmp_path / "base")
    for label, norm in result.by_layer.items():
        weight = tensors[f"{label}.weight"].astype(np.float64)
        exact = np.linalg.norm(weight, 2)
        assert norm.lower <= exact * (1 + 1e-12)
        assert exact <= norm.upper <= norm.lower * (1 + 1e-3)
        assert norm.frobenius == pytest.approx(np.linalg.norm(weight), rel=1e-12)
        assert (norm.shape, norm.dtype) == (weight.shape, "F32")
    assert result.bytes_read == sum(tensors[f"{label}.weight"].nbytes for label in result.by_layer)
    assert told[-1] == ("base norms", 14, 14)


def snapshot(root: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A base as the Hub's cache holds it: known by the name of its blob."""
    directory = root / "snapshots" / ("c" * 40)
    write_base(directory, shapes)
    blob = root / "blobs" / ("ab" * 32)
    blob.parent.mkdir()
    (directory / "model.safetensors").rename(blob)
    (directory / "model.safetensors").symlink_to(blob)
    return directory


def test_the_second_audit_of_a_base_reads_no_weights(tmp_path: Path) -> None:
    base = snapshot(tmp_path, decoder_shapes())
    first = norms_of(base, tmp_path / "cache")
    # What is not read may be anything: the data of every tensor becomes NaN.
    data = (base / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    (base / "model.safetensors").resolve().write_bytes(data[:start] + b"\xff" * len(data[start:]))
    second = norms_of(base, tmp_path / "cache")
    assert second.by_layer == first.by_layer
    assert second.bytes_read == 0
    assert second.findings == ()


def test_an_entry_grows_as_more_layers_are_asked_for(tmp_path: Path) -> None:
    write_base(tmp_path / "base", decoder_shapes())
    layers = layers_of(decoder_shapes())
    norms_of(tmp_path / "base", tmp_path / "cache", layers[:4])
    grown = norms_of(tmp_path / "base", tmp_path / "cache", layers)
    assert grown.bytes_read > 0
    assert norms_of(tmp_path / "base", tmp_path / "cache", layers).bytes_read == 0
    (entry,) = (tmp_path / "cache").glob("*.json")
    assert len(json.loads(entry.read_text())["content"]["norms"]) == 14


def test_a_changed_base_never_meets_old_norms(tmp_path: Path) -> None:
    write_base(tmp_path / "base", decoder_shapes(), seed=0)
    old = norms_of(tmp_path / "base", tmp_path / "cache")
    write_base(tmp_path / "base", decoder_shapes(), seed=1)
    new = norms_of(tmp_path / "base", tmp_path / "cache")
    assert new.bytes_read == old.bytes_read
    assert all(new.by_layer[label] != old.by_layer[label] for label in old.by_layer)


def test_a_narrower_interval_is_measured_anew_and_serves_the_wider(tmp_path: Path) -> None:
    write_base(tmp_path / "base", decoder_shapes())
    norms_of(tmp_path / "base", tmp_path / "cache", goal=Goal(width=1e-2))
    fine = norms_of(tmp_path / "base", tmp_path / "cache", goal=Goal(width=1e-5))
    assert fine.bytes_read > 0
    assert (
        norms_of(tmp_path / "base", tmp_path / "cache", goal=Goal(width=1e-2)).by_layer
        == fine.by_layer
    )


def test_a_corrupt_cache_is_measured_again_said_and_set_right(tmp_path: Path) -> None:
    write_base(tmp_path / "base", decoder_shapes())
    good = norms_of(tmp_path / "base", tmp_path / "cache")
    (entry,) = (tmp_path / "cache").glob("*.json")
    for damage in (('"lower"', '"lower_"'), ("{", "[")):
        entry.write_text(entry.read_text().replace(*damage))
        again = norms_of(tmp_path / "base", tmp_path / "cache")
        assert again.by_layer == good.by_layer
        (finding,) = again.findings
        assert finding.code == "base_norms_cache_corrupt"
        assert entry.name in finding.message
        assert norms_of(tmp_path / "base", tmp_path / "cache").findings == ()


def test_a_doubtful_entry_that_nobody_asked_for_is_set_right_too(tmp_path: Path) -> None:
    write_base(tmp_path / "base", decoder_shapes())
    layers = layers_of(decoder_shapes())
    norms_of(tmp_path / "base", tmp_path / "cache", layers)
    (entry,) = (tmp_path / "cache").glob("*.json")
    data = json.loads(entry.read_text())
    data["content"]["norms"][f"{UP}.weight"]["upper"] = "high"
    entry.write_text(json.dumps(data))
    asked = [layer for layer in layers if layer.label != UP]
    assert [f.code for f in norms_of(tmp_path / "base", tmp_path / "cache", asked).findings] == [
        "base_norms_cache_corrupt"
    ]
    assert norms_of(tmp_path / "base", tmp_path / "cache", asked).findings == ()


def test_an_unwritable_cache_costs_a_finding_and_not_the_norms(tmp_path: Path) -> None:
    write_base(tmp_path / "base", decoder_shapes())
    (tmp_path / "file").write_text("")
    result = norms_of(tmp_path / "base", tmp_path / "file" / "cache")
    assert len(result.by_layer) == 14
    assert [f.code for f in result.findings] == ["base_norms_cache_unwritable"]


def test_a_weight_with_nan_has_a_reason_and_leaves_the_others_alone(tmp_path: Path) -> None:
    tensors = write_base(tmp_path / "base", decoder_shapes())
    tensors[f"{UP}.weight"][3, 5] = np.nan
    save_file(tensors, tmp_path / "base" / "model.safetensors")
    for audit in range(2):
        result = norms_of(tmp_path / "base", tmp_path / "cache")
        assert len(result.by_layer) == 13
        assert f"{UP}.weight" in result.unmatched[UP]
        assert "NaN" in result.unmatched[UP]
        (finding,) = result.findings
        assert (finding.code, finding.modules) == ("base_weights_unmeasurable", (UP,))
        assert (result.bytes_read == 0) is (audit == 1)


def test_another_base_is_named_as_such_and_nothing_is_measured(tmp_path: Path) -> None:
    write_base(tmp_path / "base", decoder_shapes(hidden=24))
    result = norms_of(tmp_path / "base", tmp_path / "cache")
    assert result.by_layer == {}
    assert len(result.unmatched) == 14
    assert result.bytes_read == 0
    (finding,) = result.findings
    assert finding.code == "base_model_mismatch"
    assert "not the base of this adapter" in finding.message


def test_a_missing_and_a_packed_weight_are_findings_with_their_modules(tmp_path: Path) -> None:
    tensors: dict[str, Array] = dict(write_base(tmp_path / "base", decoder_shapes()))
    down = UP.replace("up_proj", "down_proj")
    del tensors[f"{UP}.weight"]
    tensors[f"{down}.weight"] = np.zeros((384, 1), np.uint8)
    save_file(tensors, tmp_path / "base" / "model.safetensors")
    found = {f.code: f.modules for f in norms_of(tmp_path / "base", tmp_path / "cache").findings}
    assert found == {"base_weights_missing": (UP,), "base_weights_quantised": (down,)}


def test_a_cache_in_any_directory_and_two_bases_of_one_name_live_side_by_side(
    tmp_path: Path,
) -> None:
    for seed, place in enumerate(("a", "b")):
        write_base(tmp_path / place / "base", decoder_shapes(), seed=seed)
        norms_of(tmp_path / place / "base", tmp_path / "deep" / "cache dir")
    assert len(list((tmp_path / "deep" / "cache dir").glob("base-*.json"))) == 2


class InMemory:
    """A base model of arrays that counts what is read and what is given back."""

    def __init__(self, **arrays: Array) -> None:
        self.arrays = arrays
        self.packed: dict[str, PackedWeight] = {}
        self.log: list[str] = []

    def tensor(self, name: str) -> StoredTensor:
        def read() -> Array:
            self.log.append(name)
            return self.arrays[name]

        return StoredTensor(
            name=name,
            dtype="F32",
            shape=self.arrays[name].shape,
            nbytes=self.arrays[name].nbytes,
            read=read,
            release=lambda: self.log.append(f"-{name}"),
        )


def test_one_weight_is_given_back_before_the_next_is_read() -> None:
    base = InMemory(a=np.eye(100, dtype=np.float32), b=np.eye(90, dtype=np.float32))
    weights = [
        BaseWeight(parts=(Part(tensor=n),), stored_shape=base.arrays[n].shape, dtype="F32")
        for n in "ab"
    ]
    measured = measure(base, weights)
    assert measured.norms["a"].lower == pytest.approx(1.0)
    assert base.log.count("-a") == base.log.count("-b") == 1
    assert base.log.index("-a") < base.log.index("b")


@pytest.mark.parametrize("transposed", [False, True])
def test_rows_of_a_stack_come_in_the_layers_orientation(transposed: bool) -> None:
    rng = np.random.default_rng(0)
    gate, experts = rng.standard_normal((5, 7)), rng.standard_normal((3, 6, 7))
    base = InMemory(
        gate=gate.astype(ml_dtypes.bfloat16), experts=experts.astype(ml_dtypes.bfloat16)
    )
    weight = BaseWeight(
        parts=(Part(tensor="gate"), Part(tensor="experts", index=2)),
        stored_shape=(11, 7),
        dtype="BF16",
        transposed=transposed,
    )
    whole = np.vstack([base.arrays["gate"], base.arrays["experts"][2]])
    whole = whole.T if transposed else whole
    for size in (1, 3, 100):
        stream = rows(base, weight)
        blocks = list(stream.blocks(size))
        assert all(len(block) <= size for block in blocks)
        assert stream.shape == whole.shape
        np.testing.assert_array_equal(np.vstack(blocks), whole)
        assert blocks[0].dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize(("start", "stop"), [(0, 11), (0, 5), (5, 11), (3, 8), (10, 11)])
def test_some_rows_of_a_stack_are_those_rows(start: int, stop: int) -> None:
    rng = np.random.default_rng(0)
    base = InMemory(gate=rng.standard_normal((5, 7)), experts=rng.standard_normal((3, 6, 7)))
    weight = BaseWeight(
        parts=(Part(tensor="gate"), Part(tensor="experts", index=2)),
        stored_shape=(11, 7),
        dtype="F64",
    )
    whole = np.vstack([base.arrays["gate"], base.arrays["experts"][2]])
    some = stored_rows(base, weight).between(start, stop)
    assert some.shape == (stop - start, 7)
    np.testing.assert_array_equal(np.vstack(list(some.blocks(2))), whole[start:stop])


def test_a_dora_layers_base_weight_is_streamed_by_label(tmp_path: Path) -> None:
    tensors = write_base(tmp_path / "base", {"h.0.attn.c_attn.weight": (16, 48)})
    layer = lora_layer("h.0.attn.c_attn", (48, 16), base_transposed=True)
    with open_base(tmp_path / "base") as base:
        found = base_norms([layer], base, Settings(tmp_path / "cache", NOW))
        got = np.vstack(list(found.rows("h.0.attn.c_attn").blocks(10)))
    np.testing.assert_array_equal(got, tensors["h.0.attn.c_attn.weight"].T)
