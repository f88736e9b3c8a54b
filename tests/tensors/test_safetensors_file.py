"""What a good safetensors file gives."""

import json
import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch

from factories_tensors import entry, safetensors_bytes, shared
from gradience.errors import TensorFileError
from gradience.tensors.dtypes import DTYPE_NAMES, is_readable, itemsize, numpy_dtype
from gradience.tensors.safetensors_file import open_safetensors

READABLE = [name for name in DTYPE_NAMES if is_readable(name)]


@pytest.mark.parametrize("name", READABLE)
def test_every_dtype_reads_back_bit_for_bit(tmp_path, name):
    raw = np.random.default_rng(0).integers(0, 2, 24 * itemsize(name), dtype=np.uint8).tobytes()
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes({"a": entry(name, (2, 3, 4), (0, len(raw)))}, raw))
    with open_safetensors(path) as file:
        tensor = file.tensors["a"]
        array = tensor.read()
        assert (tensor.dtype, tensor.shape, tensor.nbytes) == (name, (2, 3, 4), len(raw))
        assert array.dtype == numpy_dtype(name)
        assert array.shape == (2, 3, 4)
        assert array.tobytes() == raw


def test_what_numpy_saved_reads_back(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "f64": rng.normal(size=(3, 5)),
        "f16": rng.normal(size=(7,)).astype(np.float16),
        "i64": rng.integers(-9, 9, (2, 2)),
        "bool": np.array([True, False]),
        "scalar": np.array(3.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
    }
    save_file(arrays, tmp_path / "x.safetensors", metadata={"format": "np", "rank": "8"})
    with open_safetensors(tmp_path / "x.safetensors") as file:
        assert file.metadata == {"format": "np", "rank": "8"}
        assert set(file.tensors) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(file.tensors[name].read(), array)
            assert file.tensors[name].read().shape == array.shape


def test_what_torch_saved_reads_back(tmp_path):
    source = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    kinds = (torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2)
    tensors = {str(kind): source.to(kind) for kind in kinds}
    save_torch(tensors, tmp_path / "x.safetensors")
    with open_safetensors(tmp_path / "x.safetensors") as file:
        for name, tensor in tensors.items():
            read = file.tensors[name].read().astype(np.float64)
            np.testing.assert_array_equal(read, tensor.to(torch.float64).numpy())


@pytest.mark.parametrize(
    "adapter", ["distilbert-imdb/adapter_model", "gpt2-tigrinya/adapter_model"]
)
def test_real_adapters_read_as_the_library_reads_them(adapter):

    path = shared(f"adapters/{adapter}.safetensors")
    expected = load_file(path)
    with open_safetensors(path) as file:
        assert set(file.tensors) == set(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(file.tensors[name].read(), array)


def test_facts_of_the_file_are_told(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes({"a": entry()}, b"1234"))
    with open_safetensors(path) as file:
        assert (file.format, file.path, file.nbytes) == ("safetensors", path, path.stat().st_size)
        assert file.data_start == file.nbytes - 4
        assert file.header_digest is not None
        assert file.header_digest.startswith("blake3:")
        assert file.skipped == {}


def test_tensors_come_in_the_order_of_their_data(tmp_path):
    header = {"late": entry(offsets=(4, 8)), "early": entry(offsets=(0, 4))}
    (tmp_path / "x").write_bytes(safetensors_bytes(header, b"12345678"))
    with open_safetensors(tmp_path / "x") as file:
        assert list(file.tensors) == ["early", "late"]


def test_a_view_is_the_file_itself_and_read_only(tmp_path):
    save_file({"a": np.arange(6.0).reshape(2, 3)}, tmp_path / "x.safetensors")
    with open_safetensors(tmp_path / "x.safetensors") as file:
        view = file.tensors["a"].read()
        root = view
        while isinstance(root, np.ndarray):
            root = root.base
        assert isinstance(getattr(root, "obj", root), mmap.mmap)
        assert np.shares_memory(view, file.tensors["a"].read())
        with pytest.raises(ValueError, match="read-only"):
            view[0, 0] = 1.0


def test_unaligned_data_is_copied_aligned_and_read_only(tmp_path):
    values = np.arange(4, dtype=np.float64)
    text = json.dumps({"a": entry("F64", (4,), (0, 32))}).encode()
    for pad in range(8):
        (tmp_path / "x").write_bytes(safetensors_bytes(text + b" " * pad, values.tobytes()))
        with open_safetensors(tmp_path / "x") as file:
            array = file.tensors["a"].read()
            assert array.flags.aligned
            assert not array.flags.writeable
            np.testing.assert_array_equal(array, values)


def test_a_released_tensor_reads_the_same_again(tmp_path):
    arrays = {f"t{i}": np.random.default_rng(i).normal(size=(300, 70)) for i in range(4)}
    save_file(arrays, tmp_path / "x.safetensors")
    with open_safetensors(tmp_path / "x.safetensors") as file:
        for _ in range(2):
            for name, array in arrays.items():
                view = file.tensors[name].read()
                np.testing.assert_array_equal(view, array)
                file.tensors[name].release()
                np.testing.assert_array_equal(view, array)


def test_an_array_outlives_its_file(tmp_path):
    save_file({"a": np.arange(3.0)}, tmp_path / "x.safetensors")
    with open_safetensors(tmp_path / "x.safetensors") as file:
        tensor = file.tensors["a"]
        view = tensor.read()
    tensor.release()
    np.testing.assert_array_equal(view, [0.0, 1.0, 2.0])


def test_closing_twice_and_releasing_afterwards_do_nothing(tmp_path):
    save_file({"a": np.arange(3.0)}, tmp_path / "x.safetensors")
    file = open_safetensors(tmp_path / "x.safetensors")
    file.close()
    file.close()
    file.tensors["a"].release()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_no_file_descriptor_is_left_open(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": np.arange(3.0)}, path)
    with open_safetensors(path):
        pass
    held = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert path not in held


@pytest.mark.parametrize(("name", "shape"), [("F4", (2, 4)), ("F6_E2M3", (4,)), ("F6_E3M2", (4,))])
def test_packed_types_are_listed_and_refused_when_read(tmp_path, name, shape):
    nbytes = 4 if name == "F4" else 3
    (tmp_path / "x").write_bytes(
        safetensors_bytes({"w": entry(name, shape, (0, nbytes))}, bytes(nbytes))
    )
    with open_safetensors(tmp_path / "x") as file:
        assert file.tensors["w"].nbytes == nbytes
        with pytest.raises(TensorFileError, match=f"'w' is stored as {name}") as caught:
            file.tensors["w"].read()
        assert caught.value.remedy


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 2**40)])
def test_a_tensor_of_no_numbers_is_legal(tmp_path, shape):
    header = {"a": entry(shape=shape, offsets=(0, 0)), "b": entry()}
    (tmp_path / "x").write_bytes(safetensors_bytes(header, b"1234"))
    with open_safetensors(tmp_path / "x") as file:
        assert file.tensors["a"].read().shape == shape
        assert file.tensors["a"].size == 0


def test_a_file_of_no_tensors_is_legal(tmp_path):
    (tmp_path / "x").write_bytes(safetensors_bytes({}))
    with open_safetensors(tmp_path / "x") as file:
        assert file.tensors == {}


def test_a_link_is_followed_to_its_file(tmp_path):
    (tmp_path / "blob").write_bytes(safetensors_bytes({"a": entry()}, b"1234"))
    (tmp_path / "x.safetensors").symlink_to("blob")
    with open_safetensors(tmp_path / "x.safetensors") as file:
        assert list(file.tensors) == ["a"]


_WALK = """
import re, sys
from pathlib import Path
import numpy as np
from gradience.tensors.opening import open_tensor_file
if sys.argv[1].endswith(".bin"):
    import torch
def peak():
    # Not getrusage: its maximum includes that of the process that started this one.
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
before = peak()
with open_tensor_file(sys.argv[1]) as file:
    if sys.argv[1].endswith(".bin"):
        before = peak()
    total = 0
    release = sys.argv[2] == "release"
    for tensor in file.tensors.values():
        total += int(tensor.read().view(np.uint8)[::4096].sum())
        if release:
            tensor.release()
print(peak() - before, total)
"""


def peak_growth_mib(path, how="release") -> int:
    """Growth of the peak resident set over a walk through a file, in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-c", _WALK, str(path), how], capture_output=True, text=True, check=True
    )
    growth, total = run.stdout.split()
    assert total == "0"
    return int(growth)


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


@needs_proc
def test_a_walk_needs_the_memory_of_one_tensor_and_not_of_the_file(tmp_path):
    count, size = 25, 8 << 20
    header = {f"t{i:02}": entry("U8", (size,), (i * size, (i + 1) * size)) for i in range(count)}
    path = tmp_path / "big.safetensors"
    path.write_bytes(safetensors_bytes(header))
    os.truncate(path, path.stat().st_size + count * size)
    assert peak_growth_mib(path) < 30
    assert peak_growth_mib(path, "keep") > 150  # what the measure says when nothing is released


@needs_proc
def test_a_walk_through_a_torch_checkpoint_needs_the_memory_of_one_tensor(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    torch.save({f"t{i}": torch.zeros(8 << 20, dtype=torch.uint8) for i in range(25)}, path)
    assert peak_growth_mib(path) < 30
