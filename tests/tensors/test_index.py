"""A model in several files: only what is asked for is opened, and nothing outside."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from factories_tensors import assert_refused, safetensors_bytes
from gradience.errors import TensorFileError
from gradience.tensors.index import open_index

NAME = "model.safetensors.index.json"


def write_index(directory, weight_map, **other):
    path = directory / NAME
    path.write_text(json.dumps({"metadata": {"total_size": 8}, "weight_map": weight_map} | other))
    return path


def two_shards(directory):
    save_file({"a": np.ones(2, np.float32)}, directory / "m-1.safetensors")
    save_file({"b": np.zeros(3, np.float32)}, directory / "m-2.safetensors")
    return write_index(directory, {"a": "m-1.safetensors", "b": "m-2.safetensors"})


def test_a_tensor_is_read_from_its_shard(tmp_path):
    with open_index(two_shards(tmp_path)) as index:
        assert index.shards == ("m-1.safetensors", "m-2.safetensors")
        assert index.missing_shards == ()
        assert index.metadata == {"total_size": 8}
        np.testing.assert_array_equal(index.tensor("a").read(), np.ones(2))
        np.testing.assert_array_equal(index.tensor("b").read(), np.zeros(3))
        with pytest.raises(KeyError):
            index.tensor("c")


def test_a_shard_that_is_not_asked_for_is_not_opened(tmp_path):
    path = two_shards(tmp_path)
    (tmp_path / "m-2.safetensors").write_bytes(b"")
    with open_index(path) as index:
        assert index.tensor("a").shape == (2,)
        with pytest.raises(TensorFileError, match="0 bytes"):
            index.tensor("b")


def test_shards_of_torch_are_read_too(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model-1.bin")
    with open_index(write_index(tmp_path, {"a": "pytorch_model-1.bin"})) as index:
        np.testing.assert_array_equal(index.tensor("a").read(), np.ones(2))


def test_the_links_of_the_hub_cache_are_followed(tmp_path):
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    save_file({"a": np.ones(2, np.float32)}, blobs / "sha")
    (snapshot / "m-1.safetensors").symlink_to("../../blobs/sha")
    (blobs / "index").write_text(json.dumps({"weight_map": {"a": "m-1.safetensors"}}))
    (snapshot / NAME).symlink_to("../../blobs/index")
    with open_index(snapshot / NAME) as index:
        np.testing.assert_array_equal(index.tensor("a").read(), np.ones(2))


@pytest.mark.parametrize(
    "shard",
    ["../x", "/etc/passwd", "a/../../x", "..", ".", "", "a\\..\\x", "C:x", "a\0b", 7, None, ["x"]],
)
def test_a_shard_outside_the_directory_is_refused(tmp_path, shard):
    path = write_index(tmp_path, {"w": shard})
    with pytest.raises(TensorFileError) as caught:
        open_index(path)
    assert_refused(caught.value, path, "'w'", repr(shard))


def test_every_missing_shard_is_named(tmp_path):
    path = two_shards(tmp_path)
    (tmp_path / "m-1.safetensors").unlink()
    (tmp_path / "m-2.safetensors").unlink()
    with open_index(path) as index, pytest.raises(TensorFileError) as caught:
        index.tensor("b")
    assert_refused(caught.value, path, "2 of its 2 shards", "m-1.safetensors", "m-2.safetensors")


def test_a_shard_without_its_tensor_is_named(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(safetensors_bytes({}))
    path = write_index(tmp_path, {"w": "m.safetensors"})
    with open_index(path) as index, pytest.raises(TensorFileError) as caught:
        index.tensor("w")
    assert_refused(caught.value, path, "'w'", "'m.safetensors'")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"weight_map": {"a": "x", "a": "y"}}', "'a' twice"),
        ('{"weight_map": [1]}', "[1]"),
        ('{"architectures": []}', "no weight_map"),
        ("[]", "array"),
        ("", "not JSON"),
        ("version https://git-lfs.github.com/spec/v1\n", "not JSON"),
    ],
)
def test_what_is_no_index_is_refused(tmp_path, text, value):
    path = tmp_path / NAME
    path.write_text(text)
    with pytest.raises(TensorFileError) as caught:
        open_index(path)
    assert_refused(caught.value, path, value)


def test_an_index_too_large_to_be_one_is_refused_unread(tmp_path):
    path = tmp_path / NAME
    with path.open("wb") as file:
        file.truncate(10**8 + 1)
    with pytest.raises(TensorFileError) as caught:
        open_index(path)
    assert_refused(caught.value, path, "100000001 bytes")


def test_a_missing_index_is_refused(tmp_path):
    with pytest.raises(TensorFileError) as caught:
        open_index(tmp_path / NAME)
    assert_refused(caught.value, tmp_path / NAME, "does not exist")
