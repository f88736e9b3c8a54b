"""State dicts in memory, and names of element types."""

import numpy as np
import pytest
import torch

from gradience.errors import GradienceError, UsageError
from gradience.tensors.dtypes import (
    DTYPE_NAMES,
    dtype_name,
    is_dtype,
    is_readable,
    itemsize,
    numpy_dtype,
)
from gradience.tensors.opening import tensors_in_memory


@pytest.mark.parametrize("name", [n for n in DTYPE_NAMES if is_readable(n)])
def test_the_names_of_types_go_there_and_back(name):
    assert is_dtype(name)
    assert dtype_name(numpy_dtype(name)) == name
    assert itemsize(name) == numpy_dtype(name).itemsize


@pytest.mark.parametrize("name", ["F4", "F6_E2M3", "F6_E3M2", "bfloat16", ""])
def test_a_type_without_whole_bytes_or_without_meaning_has_no_numpy_type(name):
    with pytest.raises(GradienceError, match=repr(name)):
        numpy_dtype(name)


def test_numpy_arrays_in_memory_are_views_and_read_only():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    stored = tensors_in_memory({"a": array})["a"]
    assert (stored.name, stored.dtype, stored.shape, stored.nbytes) == ("a", "F32", (2, 3), 24)
    assert np.shares_memory(stored.read(), array)
    assert not stored.read().flags.writeable
    assert array.flags.writeable


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3).T,
        np.arange(6, dtype=">f4"),
        np.array(2.0),
        np.zeros((0, 3)),
        np.arange(10.0)[::3],
    ],
)
def test_numpy_arrays_in_memory_come_in_c_order_and_native_bytes(array):
    stored = tensors_in_memory({"a": array})["a"]
    read = stored.read()
    assert read.shape == array.shape
    assert read.flags.c_contiguous
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, array)


def test_torch_tensors_in_memory_are_views_and_read_only():
    tensors = {
        "plain": torch.arange(6.0).reshape(2, 3),
        "bf16": torch.ones(2, dtype=torch.bfloat16),
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
    }
    found = tensors_in_memory(tensors)
    assert [found[n].dtype for n in tensors] == ["F32", "BF16", "F32"]
    for name, tensor in tensors.items():
        array = found[name].read()
        assert not array.flags.writeable
        assert array.__array_interface__["data"][0] == tensor.data_ptr()
        np.testing.assert_array_equal(array.astype(np.float32), tensor.detach().float().numpy())


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1.0], "list"),
        (None, "NoneType"),
        (np.array(["a"]), "<U1"),
        (np.array([None]), "object"),
        (np.ones(1, np.complex128), "complex128"),
        (torch.empty(1, device="meta"), "meta"),
        (torch.eye(2).to_sparse(), "sparse"),
    ],
)
def test_what_is_no_array_of_numbers_is_named(value, said):
    with pytest.raises(UsageError, match=f"'weight'.*{said}") as caught:
        tensors_in_memory({"weight": value})
    assert caught.value.remedy


def test_a_key_that_is_no_string_is_named():
    with pytest.raises(UsageError, match="key 7"):
        tensors_in_memory({7: np.ones(1)})
