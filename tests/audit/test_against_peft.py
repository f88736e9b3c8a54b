"""The whole audit against PEFT: what it says is what the model does.

The oracle is a dense float64 SVD of PEFT's own `get_delta_weight`, and of the live base weight.
"""

import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("peft", reason="the oracle is PEFT; install gradience[dev]")

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import LoraLayer as LiveLayer
from peft.tuners.lora.layer import ParamWrapper

from factories_architectures import ARCHITECTURES, adapt, quiet, save_base, tiny_model
from factories_peft import randomise
from gradience.vnext.audit import audit_lora_peft_dir, audit_lora_state_dict


def singular_values(matrix: np.ndarray) -> np.ndarray:
    return np.linalg.svd(np.asarray(matrix, dtype=np.float64), compute_uv=False)


def save(model, directory: Path) -> Path:
    with quiet():
        model.save_pretrained(str(directory))
    return directory


def as_matrix(array: np.ndarray) -> np.ndarray:
    return array.reshape(len(array), -1)


def live(model):
    """Label, change and base weight of every adapted weight of a live model."""
    for path, module in model.base_model.model.named_modules():
        if not isinstance(module, LiveLayer):
            continue
        name = ".".join(part for part in path.split(".") if part != "base_layer")
        with torch.no_grad():
            change = module.get_delta_weight("default").double().numpy()
        if isinstance(module, ParamWrapper):
            weight = module.get_param().detach().double().numpy()
            parameter = "" if module.parameter_name == "weight" else f".{module.parameter_name}"
            if weight.ndim == 2:
                yield f"{name}{parameter}", change, weight
            else:
                for e in range(len(weight)):
                    yield f"{name}{parameter}[{e}]", change[e], weight[e]
        else:
            weight = module.get_base_layer().weight.detach().double().numpy()
            yield name, as_matrix(change), as_matrix(weight)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_every_layer_of_every_architecture_has_its_spectrum_and_its_udr(
    name: str, tmp_path: Path
) -> None:
    model = tiny_model(name)
    base = save_base(model, tmp_path / "base")
    peft = adapt(model, target_parameters=ARCHITECTURES[name].target_parameters)
    randomise(peft)
    audit = audit_lora_peft_dir(
        save(peft, tmp_path / "adapter"),
        base_model_id=base,
        base_norms_cache=tmp_path / "norms",
        use_cache=False,
    )
    measured = {layer.name: layer for layer in audit.layers}
    expected = {label: (change, weight) for label, change, weight in live(peft)}
    assert set(measured) == set(expected)
    assert audit.base is not None
    assert audit.base.without == {}
    assert audit.summary()["n_layers_with_udr"] == len(expected)
    for label, (change, weight) in expected.items():
        layer = measured[label]
        truth = singular_values(change)[: len(layer.singular_values)]
        assert layer.singular_values == pytest.approx(truth, abs=1e-5 * truth[0]), label
        top = singular_values(weight)[0]
        assert layer.base is not None
        assert layer.base.lower * (1 - 1e-6) <= top <= layer.base.upper * (1 + 1e-6), label
        assert layer.base.frobenius == pytest.approx(np.linalg.norm(weight), rel=1e-6), label
        assert layer.metrics["udr"] == pytest.approx(truth[0] / top, rel=2e-3), label


def test_the_second_audit_reads_no_weights_of_the_base(tmp_path: Path) -> None:
    model = tiny_model("llama")
    base = save_base(model, tmp_path / "base")
    peft = adapt(model)
    randomise(peft)
    adapter = save(peft, tmp_path / "adapter")
    told: list[str] = []

    def audit(**options):
        return audit_lora_peft_dir(
            adapter,
            base_model_id=base,
            base_norms_cache=tmp_path / "norms",
            use_cache=False,
            progress=lambda stage, done, total: told.append(stage),
            **options,
        )

    first = audit()
    assert "base norms" in told
    told.clear()
    assert audit() == first
    assert "base norms" not in told


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_a_dora_change_is_the_one_that_merging_makes(name: str, tmp_path: Path) -> None:
    model = tiny_model(name)
    base = save_base(model, tmp_path / "base")
    linear = [n for n, m in model.named_modules() if n.endswith(("q_proj", "down_proj", "c_attn",
              "c_proj", "query", "intermediate.dense"))]  # fmt: skip
    before = {n: model.get_submodule(n).weight.detach().double().numpy().copy() for n in linear}
    with quiet():
        peft = get_peft_model(
            model,
            LoraConfig(
                r=3, lora_alpha=7, use_dora=True, target_modules=linear,
                fan_in_fan_out=name == "gpt2",
            ),
        )  # fmt: skip
        randomise(peft)
        adapter = save(peft, tmp_path / "adapter")
        merged = peft.merge_and_unload()
    options = {"use_cache": False, "base_norms_cache": tmp_path / "norms"}
    audit = audit_lora_peft_dir(adapter, base_model_id=base, **options)
    assert {layer.name for layer in audit.layers} == set(linear)
    assert "dora_direction_only" not in {f.code for f in audit.findings}
    for layer in audit.layers:
        after = merged.get_submodule(layer.name).weight.detach().double().numpy()
        truth = singular_values(after - before[layer.name])
        assert layer.spectrum_of == "change"
        assert layer.singular_values == pytest.approx(truth, abs=1e-5 * truth[0])
    blind = audit_lora_peft_dir(adapter, **options)
    assert {layer.spectrum_of for layer in blind.layers} == {"direction"}
    assert "dora_direction_only" in {f.code for f in blind.findings}
    assert len(blind.layers[0].singular_values) == 3


def test_a_large_dora_change_has_certified_norms_and_says_what_is_missing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(1100, 1200, bias=False))
    weight = model[0].weight.detach().double().numpy().copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft = get_peft_model(model, LoraConfig(r=4, use_dora=True, target_modules=["0"]))
        randomise(peft)
        state = {k: v.clone() for k, v in peft.state_dict().items() if "lora" in k}
        merged = peft.merge_and_unload()[0].weight.detach().double().numpy()
    from safetensors.numpy import save_file  # noqa: PLC0415

    save_file({"0.weight": weight.astype(np.float32)}, tmp_path / "model.safetensors")
    audit = audit_lora_state_dict(
        {k.replace(".default", ""): v for k, v in state.items()},
        {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_dora": True},
        base_model_id=tmp_path / "model.safetensors",
        base_norms_cache=tmp_path / "norms",
    )
    (layer,) = audit.layers
    truth = singular_values(merged - weight)
    assert layer.metrics["spectral_norm"] == pytest.approx(truth[0], rel=1e-3)
    assert layer.metrics["spectral_norm"] <= truth[0] * (1 + 1e-5)
    assert layer.metrics["frobenius_norm"] == pytest.approx(np.linalg.norm(truth), rel=1e-5)
    assert layer.singular_values == ()
    assert "1024" in layer.unmeasured["stable_rank"]


def test_the_state_dict_of_a_live_model_gives_the_audit_of_its_directory(tmp_path: Path) -> None:
    from peft import get_peft_model_state_dict  # noqa: PLC0415

    peft = adapt(tiny_model("mistral"))
    randomise(peft)
    saved = audit_lora_peft_dir(save(peft, tmp_path / "a"), use_cache=False)
    with quiet():
        state = get_peft_model_state_dict(peft)
    live_audit = audit_lora_state_dict(state, peft.peft_config["default"].to_dict())
    assert live_audit.layers == saved.layers


def test_the_wrong_base_is_named_and_gives_no_udr(tmp_path: Path) -> None:
    peft = adapt(tiny_model("llama"))
    randomise(peft)
    adapter = save(peft, tmp_path / "adapter")
    other = save_base(tiny_model("llama", hidden_size=32), tmp_path / "other")
    audit = audit_lora_peft_dir(
        adapter, base_model_id=other, base_norms_cache=tmp_path / "norms", use_cache=False
    )
    assert audit.verdict == "healthy"  # the base that was named says nothing of the adapter
    assert "base_model_mismatch" in {f.code for f in audit.findings}
    assert audit.summary()["n_layers_with_udr"] == 0
    assert "udr_median" not in audit.summary()
    assert "stable_rank_median" in audit.summary()


def test_a_reloaded_adapter_with_patterns_keeps_its_scale(tmp_path: Path) -> None:
    config = LoraConfig(
        r=4, lora_alpha=8, use_rslora=True, target_modules=["q_proj", "v_proj"],
        rank_pattern={r".*\.0\.self_attn\.q_proj": 2}, alpha_pattern={r"layers\.\d+\.v_proj": 64,
        "v_proj": 3},
    )  # fmt: skip
    with quiet():
        peft = get_peft_model(tiny_model("llama"), config)
        randomise(peft)
        adapter = save(peft, tmp_path / "adapter")
        reloaded = PeftModel.from_pretrained(tiny_model("llama"), str(adapter))
    audit = audit_lora_peft_dir(adapter, use_cache=False)
    truth = {label: singular_values(change)[0] for label, change, _ in live(reloaded)}
    for layer in audit.layers:
        assert layer.metrics["spectral_norm"] == pytest.approx(truth[layer.name], rel=1e-5)
