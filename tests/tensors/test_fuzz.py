"""Any bytes at all: the file opens, or one of our errors says why not; nothing else, ever."""

import io
import json
import os
import time

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factories_tensors import entry, safetensors_bytes
from gradience.errors import GradienceError
from gradience.tensors.dtypes import DTYPE_NAMES, storage_bits
from gradience.tensors.index import open_index
from gradience.tensors.opening import open_tensor_file

IN_CI = bool(os.environ.get("CI"))


def bounded(examples):
    """A budget in examples; in CI the same examples on every run."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=IN_CI,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def walk(path, opener):
    """Open a file and read all of it; returns the refusals."""
    refusals = []
    try:
        with opener(path) as file:
            for tensor in getattr(file, "tensors", {}).values():
                try:
                    array = tensor.read()
                except GradienceError as error:
                    refusals.append(error)
                    continue
                assert array.shape == tensor.shape
                assert array.nbytes == tensor.nbytes
                tensor.release()
    except GradienceError as error:
        refusals.append(error)
    return refusals


def survives(path, opener=open_tensor_file):
    """Only our own errors may come, complete and soon."""
    began = time.monotonic()
    refusals = walk(path, opener)
    assert all(str(error) and error.remedy for error in refusals)
    assert time.monotonic() - began < 5


def valid_safetensors():
    arrays = {"a": np.arange(6, dtype=np.float32), "b": np.ones((2, 2), np.float16)}
    header = {
        "__metadata__": {"format": "pt"},
        "a": entry("F32", (2, 3), (0, 24)),
        "b": entry("F16", (2, 2), (24, 32)),
    }
    return safetensors_bytes(header, b"".join(a.tobytes() for a in arrays.values()))


def valid_checkpoint(zipped):
    buffer = io.BytesIO()
    state = {"a": torch.arange(6.0).reshape(2, 3).t(), "b": torch.ones(2, dtype=torch.bfloat16)}
    torch.save(state, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


VALID = valid_safetensors()
CHECKPOINTS = [valid_checkpoint(True), valid_checkpoint(False)]


@st.composite
def mutations(draw, valid):
    """A valid file with a few bytes replaced, removed, inserted or repeated, or cut short."""
    data = bytearray(draw(valid))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        what = draw(st.sampled_from(["set", "flip", "delete", "insert", "cut", "repeat"]))
        if what == "set":
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=8))
        elif what == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "delete":
            del data[at : at + draw(st.integers(1, 16))]
        elif what == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=16))
        elif what == "cut":
            del data[at:]
        else:
            data[at:at] = data[at : at + draw(st.integers(1, 64))]
    return bytes(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
numbers = st.integers(-2, 40) | st.sampled_from([2**31, 2**62, 2**63, 2**64, 2**70]) | json_values
headers = st.dictionaries(
    st.text(max_size=6) | st.just("__metadata__"),
    json_values
    | st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(DTYPE_NAMES) | json_values,
            "shape": st.lists(numbers, max_size=4) | json_values,
            "data_offsets": st.tuples(numbers, numbers) | json_values,
        }
    ),
    max_size=4,
)


@bounded(300)
@given(data=st.binary(max_size=400))
def test_any_bytes(tmp_path, data):
    (tmp_path / "x.safetensors").write_bytes(data)
    survives(tmp_path / "x.safetensors")


@bounded(300)
@given(
    header=st.binary(max_size=200) | json_values.map(lambda v: json.dumps(v).encode()),
    data=st.binary(max_size=40),
    lie=st.none() | st.integers(0, 2**64 - 1),
)
def test_any_header(tmp_path, header, data, lie):
    (tmp_path / "x.safetensors").write_bytes(safetensors_bytes(header, data, length=lie))
    survives(tmp_path / "x.safetensors")


@bounded(400)
@given(header=headers, data=st.binary(max_size=64))
def test_any_header_of_the_right_form(tmp_path, header, data):
    (tmp_path / "x.safetensors").write_bytes(safetensors_bytes(header, data))
    survives(tmp_path / "x.safetensors")


@bounded(600)
@given(data=mutations(st.just(VALID)))
def test_a_damaged_safetensors_file(tmp_path, data):
    (tmp_path / "x.safetensors").write_bytes(data)
    survives(tmp_path / "x.safetensors")


@bounded(300)
@given(data=mutations(st.sampled_from(CHECKPOINTS)))
def test_a_damaged_checkpoint(tmp_path, data):
    (tmp_path / "x.bin").write_bytes(data)
    survives(tmp_path / "x.bin")


@bounded(200)
@given(
    data=st.binary(max_size=100)
    | json_values.map(lambda v: json.dumps(v).encode())
    | json_values.map(lambda v: json.dumps({"weight_map": {"w": v}}).encode())
    | mutations(st.just(b'{"metadata": {}, "weight_map": {"a": "m-1.safetensors"}}'))
)
def test_any_index(tmp_path, data):
    (tmp_path / "model.safetensors.index.json").write_bytes(data)
    survives(tmp_path / "model.safetensors.index.json", open_index)


@bounded(60)
@given(dtype=st.sampled_from(DTYPE_NAMES), count=st.integers(0, 64), pad=st.integers(0, 9))
def test_every_well_formed_file_opens(tmp_path, dtype, count, pad):
    # 24 bytes hold a whole number of elements of every type.
    nbytes = 24 * 2 * count
    shape = (nbytes * 8 // storage_bits(dtype, (1,)),)
    header = json.dumps({"w": entry(dtype, shape, (0, nbytes))}).encode() + b" " * pad
    (tmp_path / "x").write_bytes(safetensors_bytes(header, bytes(nbytes)))
    with open_tensor_file(tmp_path / "x") as file:
        assert file.tensors["w"].nbytes == nbytes
