"""Torch checkpoints: what is in them is read, what they ask for is not done."""

import collections
import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from factories_tensors import assert_refused, safetensors_bytes, shared
from gradience.errors import (
    LfsPointerError,
    MissingExtraError,
    TensorFileError,
    UnsafePickleError,
)
from gradience.tensors.opening import open_tensor_file
from gradience.tensors.torch_file import check_torch_version, open_torch

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def save(path, value, *, zipped=True):
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def read(path):
    with open_tensor_file(path) as file:
        assert file.format == "torch"
        return {name: tensor.read() for name, tensor in file.tensors.items()}


OLD_TYPES = ("bool", "uint8", "int8", "int16", "int32", "int64")
OLD_TYPES += ("float16", "float32", "float64", "bfloat16", "complex64")
# torch saves these in the legacy format and cannot load them back from it.
NEW_TYPES = ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu")
NEW_TYPES += ("float8_e4m3fnuz", "float8_e5m2fnuz")


@pytest.mark.parametrize(
    ("name", "zipped"),
    [(name, True) for name in OLD_TYPES + NEW_TYPES] + [(name, False) for name in OLD_TYPES],
)
def test_every_dtype_reads_back(tmp_path, name, zipped):
    kind = getattr(torch, name)
    tensor = torch.tensor([[0.5, 1.0, 2.0], [4.0, 8.0, 16.0]]).to(kind)
    array = read(save(tmp_path / "x.bin", {"a": tensor}, zipped=zipped))["a"]
    assert array.shape == (2, 3)
    assert not array.flags.writeable
    assert array.tobytes() == tensor.contiguous().view(torch.uint8).numpy().tobytes()
    if not kind.is_complex:
        np.testing.assert_array_equal(array.astype(np.float64), tensor.to(torch.float64).numpy())


@FORMATS
def test_views_of_every_kind_read_in_order(tmp_path, zipped):
    whole = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "plain": whole,
        "shared": whole[1:3],
        "transposed": whole.t(),
        "strided": whole[::2, 1::3],
        "flipped": whole.flip(0),
        "scalar": torch.tensor(2.5),
        "scalar bf16": torch.tensor(2.5, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(whole + 1),
        "repeated": torch.ones(1).expand(3, 2),
        "conjugate": torch.tensor([1 + 2j]).conj(),
    }
    expected = {
        name: t.detach().resolve_conj().to(torch.complex128).numpy() for name, t in tensors.items()
    }
    found = read(save(tmp_path / "x.bin", tensors, zipped=zipped))
    assert list(found) == list(tensors)
    for name, array in found.items():
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(array.astype(np.complex128), expected[name])


@FORMATS
def test_a_released_tensor_reads_the_same_again(tmp_path, zipped):
    tensors = {f"t{i}": torch.randn(200, 90) for i in range(4)}
    path = save(tmp_path / "x.bin", tensors, zipped=zipped)
    with open_torch(path) as file:
        for _ in range(2):
            for name, tensor in tensors.items():
                view = file.tensors[name].read()
                file.tensors[name].release()
                np.testing.assert_array_equal(view, tensor.numpy())


def test_an_adapter_saved_on_a_gpu_reads_without_one():
    path = shared("adapters/bloom-alpaca-bin/adapter_model.bin")
    expected = torch.load(path, map_location="cpu", weights_only=True)
    found = read(path)
    assert len(found) == len(expected) == 48
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())


def test_a_checkpoint_under_the_name_of_safetensors_is_read_as_what_it_is(tmp_path):
    found = read(save(tmp_path / "adapter_model.safetensors", {"a": torch.ones(3)}))
    np.testing.assert_array_equal(found["a"], np.ones(3))


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "module"])
def test_a_wrapped_state_dict_is_unwrapped_and_the_rest_reported(tmp_path, wrapper):
    inner = collections.OrderedDict(a=torch.ones(2))
    path = save(tmp_path / "x.pt", {"epoch": 3, wrapper: inner, "args": {"lr": 0.1}})
    with open_torch(path) as file:
        assert list(file.tensors) == ["a"]
        assert set(file.skipped) == {"epoch", "args"}
        assert "int" in file.skipped["epoch"]


def test_two_state_dicts_in_one_file_are_not_chosen_between(tmp_path):
    path = save(tmp_path / "x.pt", {"model": {"a": torch.ones(1)}, "ema": {"a": torch.ones(1)}})
    with pytest.raises(TensorFileError) as caught:
        open_torch(path)
    assert_refused(caught.value, path, "2 state dicts", "'model'", "'ema'")


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_what_is_no_tensor_is_reported_with_its_reason(tmp_path):
    values = {
        "a": torch.ones(2),
        "alpha": 16,
        7: torch.ones(1),
        "inner": {"b": torch.ones(1)},
        "sparse": torch.eye(3).to_sparse(),
        "meta": torch.empty(3, device="meta"),
        "packed": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        "double complex": torch.ones(1, dtype=torch.complex128),
        "vast": torch.zeros(1).expand(10**6, 10**6),
    }
    with open_torch(save(tmp_path / "x.bin", values)) as file:
        assert list(file.tensors) == ["a"]
        reasons = dict(file.skipped)
    assert "int" in reasons.pop("alpha")
    assert "key" in reasons.pop("7")
    assert "dict" in reasons.pop("inner")
    assert "sparse" in reasons.pop("sparse")
    assert "meta" in reasons.pop("meta")
    assert "qint8" in reasons.pop("packed")
    assert "complex128" in reasons.pop("double complex")
    assert "4000000000000 bytes" in reasons.pop("vast")
    assert not reasons


@pytest.mark.parametrize("value", [torch.ones(2), [torch.ones(2)], 5])
def test_what_is_no_state_dict_is_refused(tmp_path, value):
    path = save(tmp_path / "x.bin", value)
    with pytest.raises(TensorFileError) as caught:
        open_torch(path)
    assert_refused(caught.value, path, type(value).__name__)


class Call:
    """Pickles as a call of `function`; what an attacker writes."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def save_plain(path, value, protocol):
    path.write_bytes(pickle.dumps(value, protocol=protocol))


WRITERS = {
    "zip": save,
    "legacy": lambda path, value: save(path, value, zipped=False),
    "plain pickle 2": lambda path, value: save_plain(path, value, 2),
    "plain pickle 5": lambda path, value: save_plain(path, value, 5),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    ("attack", "named"),
    [
        (lambda t: Call(os.system, f"touch {t}"), "system"),
        (lambda t: Call(exec, f"open({str(t)!r}, 'w').close()"), "exec"),
        (lambda t: Call(subprocess.run, ["touch", str(t)]), ".run"),
        (lambda t: Call(Path.touch, t), "Path"),
    ],
    ids=["os.system", "exec", "subprocess", "pathlib"],
)
def test_a_pickle_that_wants_to_run_code_is_named_and_not_run(tmp_path, writer, attack, named):
    trace = tmp_path / "executed"
    path = tmp_path / "adapter_model.bin"
    WRITERS[writer](path, {"a": torch.ones(2), "b": attack(trace)})
    with pytest.raises(UnsafePickleError) as caught:
        open_tensor_file(path)
    assert_refused(caught.value, path, named)
    assert not trace.exists()


def test_the_attack_would_have_worked(tmp_path):
    trace = tmp_path / "executed"
    save(tmp_path / "x.bin", {"b": Call(exec, f"open({str(trace)!r}, 'w').close()")})
    torch.load(tmp_path / "x.bin", weights_only=False)
    assert trace.exists()


def test_the_environment_cannot_switch_the_restriction_off(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    trace = tmp_path / "executed"
    path = save(tmp_path / "x.bin", {"b": Call(os.system, f"touch {trace}")})
    with pytest.raises(UnsafePickleError):
        open_torch(path)
    assert not trace.exists()


def test_a_function_of_torch_that_runs_code_is_refused(tmp_path):
    path = save(tmp_path / "x.bin", {"b": Call(torch.hub.load, "evil/repo", "model")})
    with pytest.raises(UnsafePickleError) as caught:
        open_torch(path)
    assert_refused(caught.value, path, "torch.hub.load")


@FORMATS
@pytest.mark.parametrize("keep", [0.05, 0.3, 0.7, 0.95, 0.999])
def test_a_truncated_checkpoint_is_refused(tmp_path, zipped, keep):
    path = save(tmp_path / "x.bin", {"a": torch.ones(5000)}, zipped=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(TensorFileError) as caught:
        open_tensor_file(path)
    assert_refused(caught.value, path)


def zip_of(entries, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


BAD = {
    "no bytes": (b"", "0 bytes"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", "LFS"),
    "safetensors": (safetensors_bytes({}), "a safetensors file"),
    "an HTML page": (b"<html>", "an HTML page"),
    "noise": (b"\x01\x02\x03\x04", "begins with"),
    "a zip of something else": (zip_of({"word/document.xml": "x"}), "not a torch checkpoint"),
    "two pickles": (zip_of({"a/data.pkl": "x", "b/data.pkl": "x"}), "2 entries"),
    "compressed": (zip_of({"x/data.pkl": b"\0" * 99}, zipfile.ZIP_DEFLATED), "compressed"),
    "an empty pickle": (zip_of({"x/data.pkl": b"", "x/version": "3"}), "cannot be read"),
    "a torn pickle": (b"\x80\x02}q\x00X", "cannot be read"),
    "a tar": (b"\0" * 257 + b"ustar\0" + b"\0" * 249, "a tar archive"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_checkpoint_is_refused_by_what_it_is(tmp_path, case):
    data, value = BAD[case]
    path = tmp_path / "adapter_model.bin"
    path.write_bytes(data)
    with pytest.raises(TensorFileError) as caught:
        open_torch(path)
    assert_refused(caught.value, path, value)
    assert "\033" not in str(caught.value)
    assert isinstance(caught.value, LfsPointerError) == (case == "a pointer")


def test_a_safetensors_file_under_the_name_of_a_checkpoint_is_read_as_what_it_is(tmp_path):
    path = tmp_path / "adapter_model.bin"
    path.write_bytes(safetensors_bytes({}))
    with open_tensor_file(path) as file:
        assert file.format == "safetensors"


@pytest.mark.parametrize("version", ["2.5.1", "1.13.1+cu117", "2.0.0a0+git"])
def test_a_torch_that_can_be_made_to_run_code_is_not_used(version):
    with pytest.raises(MissingExtraError, match=f"torch {version[:3]}.*CVE-2025-32434") as caught:
        check_torch_version(Path("model.bin"), version)
    assert caught.value.exit_code == 4
    assert 'pip install "gradience[torch]"' in caught.value.remedy


_WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # what Python itself does for a module that cannot be imported
from gradience.errors import MissingExtraError
from gradience.tensors.opening import open_tensor_file
try:
    open_tensor_file(sys.argv[1])
except MissingExtraError as error:
    print(int(error.exit_code), error, error.remedy, sep="|")
"""


def test_without_torch_the_error_says_what_to_install(tmp_path):
    path = save(tmp_path / "adapter_model.bin", {"a": torch.ones(1)})
    run = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    code, message, remedy = run.stdout.strip().split("|")
    assert code == "4"
    assert str(path) in message
    assert 'pip install "gradience[torch]"' in remedy


def test_a_safetensors_file_is_read_without_torch(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes({}))
    script = _WITHOUT_TORCH + "\nprint('torch' in sys.modules and sys.modules['torch'] is None)"
    run = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "True"
