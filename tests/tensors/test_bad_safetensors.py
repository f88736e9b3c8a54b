"""Each way a weights file can be wrong gets one error: the file, the value, the remedy."""

import os
import socket
import subprocess
import sys

import pytest

from factories_tensors import assert_refused, entry, safetensors_bytes, shared
from gradience.errors import LfsPointerError, TensorFileError
from gradience.tensors.opening import open_tensor_file
from gradience.tensors.safetensors_file import open_safetensors

TWO = b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc123\nsize 13648432\n"


def one(**changes):
    """A header with one tensor `w` of one F32, and something wrong about it."""
    return {"w": entry() | changes}


CONTENTS = {
    "no bytes": (b"", "0 bytes"),
    "five bytes": (b"\1\0\0\0\0", "5 bytes"),
    "header beyond the file": (safetensors_bytes(b"{}", length=1000), "claims 1000 bytes"),
    "header of 2^63": (safetensors_bytes(b"{}", length=2**63), "claims 9223372036854775808 bytes"),
    "header of 2^64-1": (safetensors_bytes(b"{}", length=2**64 - 1), "claims 18446744073709551615"),
    "header above the limit": (safetensors_bytes(b"{}", length=10**8 + 1), "claims 100000001"),
    "header of no bytes": (bytes(8) + b"\1", "not JSON"),
    "header not JSON": (safetensors_bytes(b'{"w": }'), "not JSON", "'}'"),
    "header not UTF-8": (safetensors_bytes(b'{"\xff": 1}'), "not UTF-8", "0xff"),
    "header an array": (safetensors_bytes(b"[1]"), "array, not an object"),
    "header a string": (safetensors_bytes(b'"a"'), "string, not an object"),
    "header with NaN": (safetensors_bytes(b'{"w": NaN}'), "NaN"),
    "header with a huge number": (safetensors_bytes(b'{"w":' + b"9" * 5000 + b"}"), "digits"),
    "header nested deep": (safetensors_bytes(DEEP), "nested too deep"),
    "name twice": (safetensors_bytes(b'{"w":%b,"w":%b}' % (TWO, TWO), b"1234"), "'w' twice"),
    "key twice": (safetensors_bytes(b'{"w":{"dtype":"F32","dtype":"F32"}}'), "'dtype' twice"),
    "name of half a character": (safetensors_bytes(b'{"\\ud800":%b}' % TWO, b"1234"), "\\ud800"),
    "metadata a list": (safetensors_bytes({"__metadata__": [1]}), "[1]"),
    "metadata not a string": (safetensors_bytes({"__metadata__": {"r": 8}}), "'r'", "8"),
    "tensor not an object": (safetensors_bytes({"w": 5}), "'w'", "5"),
    "no shape": (safetensors_bytes({"w": {"dtype": "F32", "data_offsets": [0, 4]}}), "no shape"),
    "unknown dtype": (safetensors_bytes(one(dtype="F31"), b"1234"), "'w'", "'F31'"),
    "dtype a number": (safetensors_bytes(one(dtype=7), b"1234"), "dtype 7"),
    "shape a number": (safetensors_bytes(one(shape=1), b"1234"), "shape 1"),
    "negative dimension": (safetensors_bytes(one(shape=[-1]), b"1234"), "dimension -1"),
    "fractional dimension": (safetensors_bytes(one(shape=[1.5]), b"1234"), "dimension 1.5"),
    "boolean dimension": (safetensors_bytes(one(shape=[True]), b"1234"), "dimension True"),
    "infinite dimension": (safetensors_bytes(b'{"w":{"dtype":"F32","shape":[1e999],"data_offsets":'
                                             b'[0,4]}}', b"1234"), "dimension inf"),
    "65 dimensions": (safetensors_bytes(one(shape=[1] * 65), b"1234"), "65 dimensions"),
    "product overflows": (safetensors_bytes(one(shape=[2**40, 2**40]), b"1234"), "1099511627776"),
    "overflow beside a zero": (
        safetensors_bytes(one(shape=[2**62, 2**62, 0], data_offsets=[0, 0])), "impossible shape"),
    "offsets of three": (safetensors_bytes(one(data_offsets=[0, 4, 8]), b"1234"), "[0, 4, 8]"),
    "negative offset": (safetensors_bytes(one(data_offsets=[-4, 0]), b"1234"), "[-4, 0]"),
    "fractional offset": (safetensors_bytes(one(data_offsets=[0, 4.0]), b"1234"), "[0, 4.0]"),
    "end before begin": (safetensors_bytes(one(data_offsets=[4, 0]), b"1234"), "[4, 0]"),
    "size against shape": (safetensors_bytes(one(shape=[2]), b"1234"), "2 elements", "[0, 4]"),
    "half a byte": (safetensors_bytes(one(dtype="F4", shape=[7]), b"1234"), "7 elements of F4"),
    "out of the file": (
        safetensors_bytes(one(data_offsets=[2**40, 2**40 + 4]), b"1234"),
        "1099511627776",
        "outside",
    ),
    "overlap": (
        safetensors_bytes({"a": entry(), "b": entry(offsets=(2, 6))}, b"123456"), "'b'", "overlap"),
    "gap": (
        safetensors_bytes({"a": entry(), "b": entry(offsets=(6, 10))}, bytes(10)), "'b'", "gap"),
    "bytes left over": (safetensors_bytes(one(), b"123456"), "2 bytes at the end"),
    "truncated": (safetensors_bytes(one(shape=[25], data_offsets=[0, 100]), b"1" * 70),
                  "30 bytes shorter", "70 bytes of tensor data"),
    "a Git LFS pointer": (LFS, "Git LFS pointer", "sha256:abc123", "13648432"),
    "an HTML page": (b"<!DOCTYPE html>\n<html><body>Sign in", "an HTML page"),
    "an XML answer": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "an XML document"),
    "a text": (b"Entry not found", "'Entry not found'"),
    "a JSON text": (b'{"error": "Repository not found"}', "a text file", "error"),
    "zeros": (bytes(4096), "zeros"),
    "a GGUF file": (b"GGUF\3\0\0\0" + bytes(64), "GGUF"),
    "a gzip": (b"\x1f\x8b\x08\0" + bytes(64), "gzip"),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTENTS)
def test_bad_content_is_refused_by_file_and_value(tmp_path, case):
    data, *values = CONTENTS[case]
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(data)
    for opener in (open_safetensors, open_tensor_file):
        with pytest.raises(TensorFileError) as caught:
            opener(path)
        assert_refused(caught.value, path, *values)
        assert len(str(caught.value)) < len(str(path)) + 400


@pytest.mark.parametrize(
    ("data", "value"),
    [(b"PK\x03\x04" + bytes(30), "a zip archive"), (b"\x80\x02}q\0.", "a pickle")],
)
def test_a_torch_file_is_not_taken_for_safetensors(tmp_path, data, value):
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(data)
    with pytest.raises(TensorFileError) as caught:
        open_safetensors(path)
    assert_refused(caught.value, path, value)


def test_a_pointer_has_its_own_error_and_remedy():
    path = shared("adapters/mistral-lfs-pointer/adapter_model.safetensors")
    with pytest.raises(LfsPointerError) as caught:
        open_tensor_file(path)
    assert_refused(caught.value, path, "13648432", "ccfc3e7e")
    assert "git lfs pull" in caught.value.remedy
    assert "hf download" in caught.value.remedy


def test_a_header_of_640_bytes_is_not_a_pickle(tmp_path):
    text = b'{"w":%b}' % TWO
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes(text.ljust(640), b"1234"))
    assert path.read_bytes()[:2] == b"\x80\x02"
    with open_tensor_file(path) as file:
        assert list(file.tensors) == ["w"]


def refused(path, *values):
    with pytest.raises(TensorFileError) as caught:
        open_tensor_file(path)
    assert_refused(caught.value, path, *values)


def test_a_missing_file_is_named(tmp_path):
    refused(tmp_path / "gone.safetensors", "does not exist")
    refused(tmp_path / ("x" * 300), "too long")


def test_a_path_through_a_file_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    refused(tmp_path / "file" / "x.safetensors", "does not exist")


def test_a_name_with_a_zero_byte_is_refused():
    with pytest.raises(TensorFileError, match=r"'a\\x00b' is not a file name"):
        open_tensor_file("a\0b")


def test_a_directory_is_refused(tmp_path):
    refused(tmp_path, "a directory")


def test_a_named_pipe_is_refused_and_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "x.safetensors").symlink_to("pipe")
    refused(tmp_path / "x.safetensors", "a named pipe")


def test_a_device_is_refused_and_never_opened(tmp_path):
    (tmp_path / "x.safetensors").symlink_to("/dev/zero")
    refused(tmp_path / "x.safetensors", "a device")


def test_a_socket_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's path is limited to about 100 bytes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        refused(tmp_path / "s", "a socket")


def test_a_loop_of_links_is_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    refused(tmp_path / "a", "leads back to itself")


def test_a_dangling_link_is_refused(tmp_path):
    (tmp_path / "a").symlink_to("gone")
    refused(tmp_path / "a", "does not exist")


_AS_NOBODY = """
import os, sys
from gradience.errors import TensorFileError
from gradience.tensors.opening import open_tensor_file
if os.geteuid() == 0:
    os.setuid(65534)
try:
    open_tensor_file(sys.argv[1])
except TensorFileError as error:
    print(int(error.exit_code), error, error.remedy, sep="|")
"""


def test_a_file_without_permission_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes({}))
    path.chmod(0)
    run = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, str(path)], capture_output=True, text=True, check=True
    )
    code, message, remedy = run.stdout.strip().split("|")
    assert code == "3"
    assert message == f"{path} may not be read by this user"
    assert "chmod" in remedy
