"""Laws of the reader over arbitrary files: nothing is lost, nothing escapes as a traceback."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from factories_peft import dense, distance, noise, read_arrays
from gradience.adapter.methods.lora import expert_deltas
from gradience.adapter.methods.lycoris import loha_delta, lokr_delta
from gradience.errors import GradienceError
from gradience.tensors.opening import tensors_in_memory

PARTS = ["lora_A", "lora_B", "lora_E", "lora_embedding_A", "lora_embedding_B", "lora_diag"]
PARTS += ["lora_magnitude_vector", "hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1"]
PARTS += ["lokr_w1", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2", "other"]
NAMES = st.tuples(
    st.sampled_from(["", "base_model.model.", "module."]),
    st.sampled_from(["x", "x.base_layer", "h.0.attn", "score", ""]),
    st.sampled_from(PARTS),
    st.sampled_from(["", ".weight", ".default.weight", ".bias", ".a.b.weight"]),
).map(lambda p: f"{p[0]}{p[1]}.{p[2]}{p[3]}")
SHAPES = st.lists(st.integers(0, 3), max_size=4)
TYPES = st.sampled_from(["LORA", "ADALORA", "LOHA", "LOKR"])


@given(
    st.dictionaries(NAMES, SHAPES, max_size=6),
    TYPES,
    st.fixed_dictionaries(
        {},
        optional={
            "r": st.integers(1, 3),
            "use_dora": st.booleans(),
            "use_qalora": st.booleans(),
            "enable_lora": st.lists(st.booleans(), max_size=3),
            "target_parameters": st.sampled_from([["x.weight"], ["attn.w1", "w2"]]),
            "use_bdlora": st.just({"nblocks": 2, "target_modules_bd_a": ["attn"]}),
        },
    ),
)
def test_every_tensor_ends_in_one_place_or_there_is_one_error(shapes, peft_type, options):
    arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    try:
        parts = read_arrays(arrays, {"peft_type": peft_type} | options)
    except GradienceError:
        return
    ends = [t.name for x in parts.layers for t in x.tensors]
    ends += [x.tensor.name for x in parts.extras] + [t.name for t in parts.unread]
    assert sorted(ends) == sorted(arrays)
    for layer in parts.layers:
        assert dense(layer.delta).shape == layer.shape
        assert np.isfinite(layer.scale)


SIZES = st.integers(1, 7)


def stored(**arrays):
    return tensors_in_memory(arrays)


@given(SIZES, SIZES, SIZES, SIZES)
def test_loha_is_the_hadamard_product(rows, columns, r1, r2):
    t = stored(
        a=noise(rows, r1), b=noise(r1, columns), c=noise(rows, r2, seed=1), d=noise(r2, columns)
    )
    a, b, c, d = (np.asarray(x.read(), np.float64) for x in t.values())
    found = dense(loha_delta("x", (t["a"], t["b"]), (t["c"], t["d"])))
    assert distance(found, (a @ b) * (c @ d)) < 1e-12


@given(SIZES, SIZES, SIZES, SIZES, SIZES)
def test_lokr_is_the_kronecker_product(p, q, m, n, r):
    t = stored(a=noise(p, q), b=noise(m, r), c=noise(r, n))
    a, b, c = (np.asarray(x.read(), np.float64) for x in t.values())
    found = lokr_delta("x", t["a"], (t["b"], t["c"]))
    assert found.shape == (p * m, q * n)
    assert distance(dense(found), np.kron(a, b @ c)) < 1e-12


@given(st.integers(1, 5), st.integers(1, 4), SIZES, SIZES)
def test_experts_sum_to_the_product_of_the_stacked_factors(experts, rank, rows, columns):
    # B (out, r * E) holds the expert as its fast index, A (E * r, in) as its slow one.
    t = stored(a=noise(experts * rank, columns), b=noise(rows, rank * experts))
    a, b = (np.asarray(x.read(), np.float64) for x in t.values())
    turned = a.reshape(experts, rank, columns).transpose(1, 0, 2).reshape(experts * rank, columns)
    total = sum(dense(d) for d in expert_deltas(t["a"], t["b"], experts))
    assert distance(total, b @ turned) < 1e-12
