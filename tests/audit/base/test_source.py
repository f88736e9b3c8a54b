"""Opening a base model on this disk: every layout, without reading data, without running code."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from factories_bases import decoder_shapes, write_base
from gradience.audit.base.shards import LocalFile
from gradience.audit.base.source import open_base
from gradience.audit.base.weights import TensorFacts
from gradience.errors import BaseModelError, TensorFileError

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 4943162336\n"


def sharded(directory: Path) -> Path:
    """Two shards and their index."""
    directory.mkdir(parents=True)
    save_file({"a": np.ones((4, 4), np.float32)}, directory / "model-00001-of-00002.safetensors")
    save_file({"b": np.ones((2, 4), np.float32)}, directory / "model-00002-of-00002.safetensors")
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def write_torch(path: Path, value: float) -> None:
    import torch  # noqa: PLC0415 - only here

    torch.save({"a": torch.full((4, 4), value)}, path)


def write_safetensors(path: Path, value: float) -> None:
    save_file({"a": np.full((4, 4), value, np.float32)}, path)


@pytest.mark.parametrize("write", [write_safetensors, write_torch])
def test_a_file_is_known_by_what_is_open_and_not_by_what_its_name_means_now(
    tmp_path: Path, write: Callable[[Path, float], None]
) -> None:
    """A base that is replaced while it is opened has no norms under the other's fingerprint."""
    path, other = tmp_path / "model", tmp_path / "other"
    write(path, 1.0)
    write(other, 2.0)
    one, two = LocalFile(fetch=lambda: path), LocalFile(fetch=lambda: other)
    assert one.tensors()["a"].read()[0, 0] == 1.0
    before = LocalFile(fetch=lambda: path).identity()
    other.replace(path)
    assert one.identity() == before
    with pytest.raises(TensorFileError, match="does not exist"):
        two.identity()
    assert LocalFile(fetch=lambda: path).identity() != before


def test_a_snapshot_that_leads_elsewhere_meanwhile_is_not_known_by_the_old_hash(
    tmp_path: Path,
) -> None:
    blobs, link = tmp_path / "blobs", tmp_path / "model.safetensors"
    blobs.mkdir()
    for at, name in enumerate(("ab" * 32, "cd" * 32)):
        write_safetensors(blobs / name, float(at))
    link.symlink_to(blobs / ("ab" * 32))

    file = LocalFile(fetch=lambda: link)
    file.tensors()
    link.unlink()
    link.symlink_to(blobs / ("cd" * 32))
    assert file.identity().startswith("ab" * 32)
    assert LocalFile(fetch=lambda: link).identity().startswith("cd" * 32)


def test_a_directory_a_file_and_an_index_open_the_same_tensors(tmp_path: Path) -> None:
    index = sharded(tmp_path / "model")
    for path in (tmp_path / "model", str(index)):
        with open_base(path) as base:
            assert base.tensors == {
                "a": TensorFacts(shape=(4, 4), dtype="F32"),
                "b": TensorFacts(shape=(2, 4), dtype="F32"),
            }
            assert base.tensor("b").read().shape == (2, 4)
    tensors = write_base(tmp_path / "one", decoder_shapes())
    with open_base(tmp_path / "one" / "model.safetensors") as base:
        name = "model.layers.1.mlp.up_proj.weight"
        np.testing.assert_array_equal(base.tensor(name).read(), tensors[name])


def test_a_torch_checkpoint_opens_like_a_safetensors_file(tmp_path: Path) -> None:
    import torch  # noqa: PLC0415 - only here

    torch.save({"a": torch.ones(4, 4, dtype=torch.bfloat16)}, tmp_path / "pytorch_model.bin")
    with open_base(tmp_path) as base:
        assert base.tensors["a"] == TensorFacts(shape=(4, 4), dtype="BF16")
        assert base.tensor("a").read().dtype == ml_dtypes.bfloat16


def test_safetensors_win_over_a_pickle_and_the_usual_name_over_a_variant(tmp_path: Path) -> None:
    write_base(tmp_path, {"good": (2, 2)})
    (tmp_path / "pytorch_model.bin").write_bytes(b"never opened")
    save_file({"fp16": np.ones(2, np.float16)}, tmp_path / "model.fp16.safetensors")
    save_file({"raw": np.ones(2, np.float16)}, tmp_path / "consolidated.safetensors")
    with open_base(tmp_path) as base:
        assert list(base.tensors) == ["good"]


def test_a_pipelines_tensors_carry_their_folders_name(tmp_path: Path) -> None:
    for folder, file in (
        ("unet", "diffusion_pytorch_model.safetensors"),
        ("text_encoder", "model.safetensors"),
        ("vae", "diffusion_pytorch_model.safetensors"),
    ):
        (tmp_path / folder).mkdir()
        save_file({"w": np.ones((2, 2), np.float32)}, tmp_path / folder / file)
    (tmp_path / "model_index.json").write_text("{}")
    with open_base(tmp_path) as base:
        assert sorted(base.tensors) == ["text_encoder.w", "unet.w"]
        assert base.tensor("unet.w").read().shape == (2, 2)


def test_no_code_of_a_model_directory_is_run(tmp_path: Path) -> None:
    write_base(tmp_path, {"a": (2, 2)})
    (tmp_path / "modeling_evil.py").write_text("raise SystemExit('code was run')")
    config = {"auto_map": {"AutoModel": "modeling_evil.Evil"}, "tie_word_embeddings": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with open_base(tmp_path) as base:
        assert base.tied is False


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        (None, None),
        ("not json", None),
        ("{}", True),
        ('{"tie_word_embeddings": false}', False),
        ('{"tie_word_embeddings": "no"}', True),
        ('{"text_config": {"tie_word_embeddings": false}, "tie_word_embeddings": true}', False),
    ],
)
def test_the_config_is_a_hint_and_never_needed(
    config: str | None, tied: bool | None, tmp_path: Path
) -> None:
    write_base(tmp_path, {"a": (2, 2)})
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with open_base(tmp_path) as base:
        assert base.tied is tied


def fingerprint(path: Path) -> str:
    with open_base(path) as base:
        return base.fingerprint


def test_the_fingerprint_follows_the_content_and_not_the_place_or_the_time(tmp_path: Path) -> None:
    write_base(tmp_path / "a", decoder_shapes())
    write_base(tmp_path / "b", decoder_shapes())
    os.utime(tmp_path / "b" / "model.safetensors", (1, 1))
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")

    write_base(tmp_path / "b", decoder_shapes(), seed=1)
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")


def test_one_changed_shard_changes_the_fingerprint(tmp_path: Path) -> None:
    index = sharded(tmp_path / "model")
    before = fingerprint(index)
    shard = tmp_path / "model" / "model-00002-of-00002.safetensors"
    save_file({"b": np.full((2, 4), 2, np.float32)}, shard)
    assert fingerprint(index) != before


@pytest.mark.parametrize("shared_store", [False, True], ids=["layout 1", "layout 2"])
def test_a_snapshot_of_the_hub_cache_is_known_by_its_blobs(
    tmp_path: Path, shared_store: bool
) -> None:
    """No byte of the data is looked at: the name of the blob is its hash."""
    repo = tmp_path / "models--org--m"
    (repo / "blobs").mkdir(parents=True)
    snapshot = repo / "snapshots" / ("c" * 40)
    write_base(snapshot, {"a": (8, 8)})
    blob = repo / "blobs" / ("ab" * 32)
    real = tmp_path / "blobs" / "12" / ("12" * 32) if shared_store else blob
    real.parent.mkdir(parents=True, exist_ok=True)
    (snapshot / "model.safetensors").rename(real)
    if shared_store:
        blob.symlink_to(real)
    (snapshot / "model.safetensors").symlink_to(f"../../blobs/{'ab' * 32}")
    before = fingerprint(snapshot)

    data = bytearray(real.read_bytes())
    data[-1] ^= 1
    real.write_bytes(bytes(data))
    assert fingerprint(snapshot) == before

    other = repo / "blobs" / ("cd" * 32)
    (blob if shared_store else real).rename(other)
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(f"../../blobs/{'cd' * 32}")
    assert fingerprint(snapshot) != before


def refused(path: Path | str) -> BaseModelError:
    with pytest.raises(BaseModelError) as caught:
        open_base(path)
    assert caught.value.remedy
    return caught.value


def test_nothing_there_is_said_with_the_path(tmp_path: Path) -> None:
    assert "no such file" in str(refused(tmp_path / "none"))
    assert "no such file" in str(refused("./not/here/at-all"))
    assert "it holds no weights" in str(refused(tmp_path))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "no such file" in str(refused(tmp_path / "loop"))


@pytest.mark.parametrize(
    "text", ["", "@main", "a/b/c", "org/name/", "x" * 5000, "a\0b", "org/..", " "]
)
def test_a_text_that_is_neither_path_nor_id_is_refused(text: str) -> None:
    refused(text)


def test_of_several_gguf_models_none_is_guessed(tmp_path: Path) -> None:
    for name in ("model-Q4_K_M.gguf", "model-Q8_0.gguf", "mmproj-model.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    error = refused(tmp_path)
    assert "2 GGUF models" in str(error)
    assert "model-Q4_K_M.gguf" in error.remedy


def test_an_adapter_in_place_of_a_base_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "adapter_model.safetensors")
    assert "is an adapter" in str(refused(tmp_path))


def test_an_lfs_pointer_is_named_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text(POINTER)
    error = refused(tmp_path)
    assert "LFS" in str(error)
    assert "git lfs pull" in error.remedy


def test_missing_shards_are_all_named(tmp_path: Path) -> None:
    index = sharded(tmp_path / "model")
    for shard in tmp_path.glob("model/*.safetensors"):
        shard.unlink()
    error = refused(index)
    assert "model-00001-of-00002.safetensors, model-00002-of-00002.safetensors" in str(error)


def test_a_shard_that_lacks_what_its_index_promises_is_refused(tmp_path: Path) -> None:
    index = sharded(tmp_path / "model")
    save_file({"x": np.ones(2)}, tmp_path / "model" / "model-00002-of-00002.safetensors")
    assert "model-00002-of-00002.safetensors does not hold b" in str(refused(index))


def test_an_index_that_points_outside_is_refused(tmp_path: Path) -> None:
    index = sharded(tmp_path / "model")
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    assert "not a file in the directory" in str(refused(index))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    assert "model.safetensors" in str(refused(tmp_path))
