"""Opening an adapter: the right dialect, the right config, every byte, errors in one sentence."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from factories_adapters import (
    dense,
    diffusers_arrays,
    factor,
    kohya_arrays,
    peft_arrays,
    peft_config,
    write_peft,
    write_safetensors,
)
from gradience.adapter.read import (
    adapter_from_state_dict,
    open_adapter,
    opened,
    read_adapter,
)
from gradience.adapter.source import find_adapters
from gradience.errors import (
    AdapterConfigError,
    AdapterError,
    AdapterNotFoundError,
    LfsPointerError,
    TensorFileError,
    UnreadableError,
    UnsupportedAdapterError,
    UsageError,
)

SHARED = Path(__file__).resolve().parents[3] / "shared" / "adapters"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared adapters are not here")


def codes(adapter):
    return [finding.code for finding in adapter.findings]


# --- what is read ----------------------------------------------------------------------------


def test_a_peft_directory_is_read_with_the_scale_of_its_config(tmp_path):
    adapter = open_adapter(write_peft(tmp_path / "run", revision="abc"))
    assert adapter.dialect == "peft"
    assert adapter.source == str(tmp_path / "run")
    assert [Path(file).name for file in adapter.files] == [
        "adapter_model.safetensors",
        "adapter_config.json",
    ]
    assert (adapter.base_model, adapter.base_revision) == ("org/base", "abc")
    assert [layer.name for layer in adapter.layers] == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.self_attn.q_proj",
    ]
    arrays = list(peft_arrays().values())
    assert_allclose(dense(adapter.layers[0]), 2.0 * arrays[1].astype(float) @ arrays[0])
    assert adapter.findings == ()


def test_a_base_without_revision_is_told(tmp_path):
    assert codes(open_adapter(write_peft(tmp_path))) == ["base_revision_missing"]


def test_weights_in_two_formats_are_read_once_and_told(tmp_path):
    (write_peft(tmp_path, revision="abc") / "adapter_model.bin").write_bytes(b"not read")
    adapter = open_adapter(tmp_path)
    assert codes(adapter) == ["weights_saved_twice"]
    assert "adapter_model.bin" in adapter.findings[0].message
    assert len(adapter.layers) == 2


def test_the_config_of_one_run_never_scales_the_weights_of_another(tmp_path):
    write_peft(tmp_path)
    other = write_safetensors(tmp_path / "other.safetensors", peft_arrays(seed=5))
    with pytest.raises(AdapterError, match=r"other\.safetensors has PEFT's names and no adapter_c"):
        open_adapter(other)
    kohya = write_safetensors(tmp_path / "style.safetensors", kohya_arrays(alpha=1.0))
    assert open_adapter(kohya).layers[0].scale == 0.5
    assert open_adapter(kohya).base_model is None


def test_a_file_is_read_by_its_content_whatever_its_name_is(tmp_path):
    path = write_safetensors(tmp_path / "pytorch_lora_weights.bin", diffusers_arrays())
    assert open_adapter(path).dialect == "diffusers"


def test_a_torch_checkpoint_is_read_and_what_is_no_tensor_is_told(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(array) for name, array in peft_arrays().items()}
    torch.save({**tensors, "step": 3}, tmp_path / "adapter_model.bin")
    (tmp_path / "adapter_config.json").write_text(json.dumps(peft_config(revision="abc")))
    adapter = open_adapter(tmp_path)
    assert codes(adapter) == ["unread_tensors"]
    assert "step" in adapter.findings[0].message
    write_peft(tmp_path / "twin", revision="abc")
    for ours, twin in zip(adapter.layers, open_adapter(tmp_path / "twin").layers, strict=True):
        assert_allclose(dense(ours), dense(twin))


def test_the_file_is_unmapped_when_the_block_ends(tmp_path):
    (location,) = find_adapters(write_peft(tmp_path))
    with opened(location) as adapter:
        values = dense(adapter.layers[0])
    assert_allclose(values, dense(read_adapter(location).layers[0]))
    with pytest.raises((TensorFileError, ValueError)):
        adapter.layers[0].tensors[0].read()


def test_the_fingerprint_is_of_the_content_and_not_of_the_place(tmp_path):
    one = open_adapter(write_peft(tmp_path / "one"))
    same = open_adapter(write_peft(tmp_path / "same"))
    other_weights = open_adapter(write_peft(tmp_path / "b", seed=1))
    other_scale = open_adapter(write_peft(tmp_path / "c", lora_alpha=5))
    prints = [a.fingerprint for a in (one, same, other_weights, other_scale)]
    assert all(p.startswith("blake3:") for p in prints)
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


# --- several ---------------------------------------------------------------------------------


def test_several_adapters_are_listed_and_none_is_chosen(tmp_path):
    for step in (500, 1000):
        write_peft(tmp_path / f"checkpoint-{step}", seed=step)
    with pytest.raises(UsageError, match="2 adapters: checkpoint-500, checkpoint-1000") as caught:
        open_adapter(tmp_path)
    assert "checkpoint-1000" in caught.value.remedy


def test_a_broken_run_among_several_fails_when_it_is_opened(tmp_path):
    write_peft(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "adapter_config.json").write_text(json.dumps(peft_config()))
    bad, good = find_adapters(tmp_path)
    assert read_adapter(good).layers
    for attempt in (read_adapter, lambda location: opened(location).__enter__()):
        with pytest.raises(AdapterNotFoundError, match=r"bad has adapter_config\.json but neither"):
            attempt(bad)


# --- refusals --------------------------------------------------------------------------------


def test_names_of_two_formats_in_one_file_are_refused(tmp_path):
    path = write_safetensors(tmp_path / "x.safetensors", {**kohya_arrays(), **diffusers_arrays()})
    with pytest.raises(UnsupportedAdapterError, match="kohya and diffusers"):
        open_adapter(path)


def test_a_full_model_under_an_adapters_name_is_refused(tmp_path):
    path = write_safetensors(tmp_path / "x.safetensors", {"model.embed.weight": factor(3, 3)})
    with pytest.raises(UnsupportedAdapterError, match=r"model\.embed\.weight") as caught:
        open_adapter(path)
    assert "tried peft, kohya, diffusers" in str(caught.value)


def test_a_file_without_tensors_is_refused(tmp_path):
    with pytest.raises(UnreadableError, match="no tensors"):
        open_adapter(write_safetensors(tmp_path / "x.safetensors", {}))


def test_an_error_of_a_dialect_names_the_file_and_the_tensor(tmp_path):
    arrays = kohya_arrays(alpha=float("nan"))
    path = write_safetensors(tmp_path / "style.safetensors", arrays)
    with pytest.raises(AdapterError, match=r"style\.safetensors: .*\.alpha is nan"):
        open_adapter(path)


@pytest.mark.parametrize(
    ("config", "error"),
    [
        (b"{", AdapterConfigError),
        (b"[]", AdapterConfigError),
        (b'{"peft_type": "IA3"}', UnsupportedAdapterError),
        (b'{"peft_type": "NOVEL"}', AdapterConfigError),
        (b'{"peft_type": "LORA", "r": 0}', AdapterConfigError),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused_with_its_path(tmp_path, config, error):
    (write_peft(tmp_path) / "adapter_config.json").write_bytes(config)
    with pytest.raises(error, match=r"adapter_config\.json") as caught:
        open_adapter(tmp_path)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 8 + b"{}", b"{}"])
def test_a_damaged_weights_file_is_refused_with_its_path(tmp_path, content):
    (write_peft(tmp_path) / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(TensorFileError, match=r"adapter_model\.safetensors"):
        open_adapter(tmp_path)


# --- in memory -------------------------------------------------------------------------------


def test_a_state_dict_is_read_like_its_file(tmp_path):
    adapter = adapter_from_state_dict(peft_arrays(), peft_config(revision="abc"))
    on_disk = open_adapter(write_peft(tmp_path, revision="abc"))
    assert adapter.files == ()
    assert [layer.name for layer in adapter.layers] == [layer.name for layer in on_disk.layers]
    assert_allclose(dense(adapter.layers[1]), dense(on_disk.layers[1]))


def test_a_state_dict_with_pefts_names_needs_a_config():
    with pytest.raises(AdapterError, match="the state dict has PEFT's names and no adapter_config"):
        adapter_from_state_dict(peft_arrays())


def test_a_live_peft_model_is_read_with_its_own_config():
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    base = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Linear(6, 4))
    config = peft.LoraConfig(
        r=3, lora_alpha=5, use_rslora=True, target_modules=["0", "1"], init_lora_weights=False
    )
    model = peft.get_peft_model(base, config)
    adapter = adapter_from_state_dict(peft.get_peft_model_state_dict(model), config)
    for layer in adapter.layers:
        with torch.no_grad():
            want = model.base_model.model[int(layer.name)].get_delta_weight("default")
        assert_allclose(dense(layer), want.double().numpy(), rtol=1e-5, atol=1e-7)


def test_the_fingerprint_of_a_state_dict_does_not_depend_on_order():
    arrays = peft_arrays()
    backwards = dict(reversed(arrays.items()))
    config = peft_config(target_modules={"q_proj", "k_proj", "v_proj"})
    one = adapter_from_state_dict(arrays, config)
    two = adapter_from_state_dict(backwards, config)
    changed = {**arrays, next(iter(arrays)): np.zeros((2, 6), np.float32)}
    assert one.fingerprint == two.fingerprint
    assert one.fingerprint != adapter_from_state_dict(changed, config).fingerprint
    assert one.fingerprint != adapter_from_state_dict(arrays, peft_config(r=2)).fingerprint


# --- real adapters ---------------------------------------------------------------------------


@needs_shared
@pytest.mark.parametrize(
    ("name", "layers", "rank", "scale", "factor_bytes", "extra_bytes"),
    [
        ("bloom-alpaca-bin", 24, 16, 2.0, 3_145_728, 0),
        ("distilbert-imdb", 12, 8, 2.0, 589_824, 2_368_520),
        ("gpt2-tigrinya", 36, 8, 4.0, 3_244_032, 0),
        ("sd15-diffusers", 128, 4, 1.0, 3_188_736, 0),
    ],
)
def test_real_adapters_are_read_to_the_last_byte(
    name, layers, rank, scale, factor_bytes, extra_bytes
):
    if name.endswith("-bin"):
        pytest.importorskip("torch")
    adapter = open_adapter(SHARED / name)
    assert len(adapter.layers) == layers
    assert {layer.rank for layer in adapter.layers} == {rank}
    assert {layer.scale for layer in adapter.layers} == {scale}
    assert adapter.unread == ()
    assert sum(layer.nbytes for layer in adapter.layers) == factor_bytes
    assert sum(extra.tensor.nbytes for extra in adapter.extras) == extra_bytes


@needs_shared
def test_a_real_lfs_pointer_is_named_as_one():
    with pytest.raises(LfsPointerError, match="Git LFS pointer") as caught:
        open_adapter(SHARED / "mistral-lfs-pointer")
    assert "git lfs pull" in caught.value.remedy


@needs_shared
def test_a_directory_of_runs_gives_each_of_them():
    names = [location.name for location in find_adapters(SHARED)]
    assert names == sorted(names)
    assert len(names) == 5
