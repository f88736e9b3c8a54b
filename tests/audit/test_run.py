"""Audits of hostile scales, and of a base whose config changes under a cache."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from factories_bases import write_base
from gradience.audit.norms import library
from gradience.audit.norms.travel import export, renamed
from gradience.audit.run import audit_lora_peft_dir, audit_lora_state_dict

RNG = np.random.default_rng(5)
WIDTH = 12


def factors(*modules: str) -> dict[str, np.ndarray]:
    """Factors of rank 2 of square modules, by PEFT's names."""
    parts = {}
    for module in modules:
        parts[f"base_model.model.{module}.lora_A.weight"] = RNG.standard_normal((2, WIDTH))
        parts[f"base_model.model.{module}.lora_B.weight"] = RNG.standard_normal((WIDTH, 2))
    return parts


@pytest.mark.parametrize("alpha", [1e-300, 1e-160, -1e-160, 1.0, 1e100])
def test_the_frobenius_norm_survives_where_its_square_does_not(alpha: float) -> None:
    parts = factors("model.layers.0.q_proj")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": alpha}
    (layer,) = audit_lora_state_dict(parts, config).layers
    a, b = parts.values()
    expected = np.linalg.norm(b @ a) * abs(alpha) / 2
    assert layer.metrics["frobenius_norm"] == pytest.approx(expected, rel=1e-12, abs=0)


@pytest.mark.parametrize("alpha", [1e155, -1e300])
def test_a_change_whose_energy_overflows_is_unmeasured_with_a_reason(alpha: float) -> None:
    parts = factors("model.layers.0.q_proj", "model.layers.1.q_proj")
    audit = audit_lora_state_dict(parts, {"peft_type": "LORA", "r": 2, "lora_alpha": alpha})
    assert [f.code for f in audit.findings] == ["not_finite"]
    assert all("too large" in layer.unmeasured["frobenius_norm"] for layer in audit.layers)
    assert "null" not in json.dumps(audit.to_dict()["overall"])


def test_a_changed_config_of_the_base_is_seen_through_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIENCE_CACHE_DIR", str(tmp_path / "cache"))
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    adapter.mkdir()
    save_file(
        {
            "model.embed_tokens.weight": RNG.standard_normal((WIDTH, WIDTH)),
            "model.layers.0.q_proj.weight": RNG.standard_normal((WIDTH, WIDTH)),
        },
        base / "model.safetensors",
    )
    save_file(factors("model.layers.0.q_proj", "lm_head"), adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with_udr = []
    for tied in (False, True, False):
        (base / "config.json").write_text(json.dumps({"tie_word_embeddings": tied}))
        use = audit_lora_peft_dir(adapter, base_model_id=base).base
        assert use is not None
        with_udr.append(use.with_udr)
    assert with_udr == [1, 2, 1]


DORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "use_dora": True}
STEM = "base_model.model.model.layers.0.q_proj"


@pytest.mark.parametrize("with_base", [False, True])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_magnitude_that_is_not_finite_breaks_the_adapter(
    tmp_path: Path, with_base: bool, value: float
) -> None:
    magnitude = np.full(WIDTH, 3.0)
    magnitude[4] = value
    save_file(
        {"model.layers.0.q_proj.weight": RNG.standard_normal((WIDTH, WIDTH))},
        tmp_path / "model.safetensors",
    )
    parts = factors("model.layers.0.q_proj") | {f"{STEM}.lora_magnitude_vector": magnitude}
    audit = audit_lora_state_dict(
        parts,
        DORA,
        base_model_id=tmp_path if with_base else None,
        base_norms_cache=tmp_path / "norms",
    )
    assert audit.verdict == "broken"
    assert "not_finite" in {f.code for f in audit.findings}


def test_a_saved_head_that_is_not_finite_breaks_the_adapter() -> None:
    head = np.ones((3, WIDTH), np.float16)
    head[1, 2] = np.inf
    parts = factors("model.layers.0.q_proj") | {"base_model.model.score.weight": head}
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "modules_to_save": ["score"]}
    (finding,) = audit_lora_state_dict(parts, config).findings[:1]
    assert finding.code == "not_finite"
    assert finding.modules == ("base_model.model.score.weight",)
    assert "1 NaN or Inf" in finding.message


def test_a_magnitude_of_columns_is_measured_by_its_direction_with_and_without_a_base(
    tmp_path: Path,
) -> None:
    stem, rows, columns = "lora_unet_mid_block_to_q", 9, WIDTH
    parts = {
        f"{stem}.lora_down.weight": RNG.standard_normal((2, columns)),
        f"{stem}.lora_up.weight": RNG.standard_normal((rows, 2)),
        f"{stem}.alpha": np.array(2.0),
        f"{stem}.dora_scale": np.ones((1, columns)),
    }
    save_file(
        {"unet.mid_block.to_q.weight": RNG.standard_normal((rows, columns))},
        tmp_path / "model.safetensors",
    )
    for base in (None, tmp_path):
        audit = audit_lora_state_dict(
            parts, None, base_model_id=base, base_norms_cache=tmp_path / "norms"
        )
        (layer,) = audit.layers
        assert layer.spectrum_of == "direction"
        assert "spectral_norm" in layer.metrics
        assert "udr" not in layer.metrics
        assert "dora_direction_only" in {f.code for f in audit.findings}
        assert "not_finite" not in {f.code for f in audit.findings}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ({"q_proj": 3, r".*layers\.1\..*": 50}, {"model.layers.1.q_proj"}),
        ({"q_proj": 3, r".*layers\.1\..*": 3}, set()),
        ({r".*layers\.0\..*": 3, r".*layers\.1\..*": 50}, set()),
        ({"q_proj": 3}, set()),
    ],
)
def test_an_alpha_that_hangs_on_the_order_of_the_keys_is_reported(
    pattern: dict[str, float], expected: set[str]
) -> None:
    # PEFT sorts the keys of adapter_config.json, and takes the first that matches.
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "alpha_pattern": pattern}
    audit = audit_lora_state_dict(factors("model.layers.0.q_proj", "model.layers.1.q_proj"), config)
    named = {m for f in audit.findings if f.code == "alpha_ambiguous" for m in f.modules}
    assert named == expected


def test_a_base_in_a_directory_is_no_model_of_the_hub_whatever_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRADIENCE_CACHE_DIR", str(tmp_path / "cache"))
    write_base(tmp_path / "bases" / "tiny", {"model.layers.0.q_proj.weight": (WIDTH, WIDTH)})
    parts = factors("model.layers.0.q_proj")
    config = {"peft_type": "LORA", "r": 2, "base_model_name_or_path": "org/tiny", "revision": "v1"}
    audit = audit_lora_state_dict(parts, config, base_model_id="bases/tiny")
    assert "base_model_differs" not in {f.code for f in audit.findings}

    (kept,) = (tmp_path / "cache" / "base_norms").glob("*.json")
    content = renamed(library.read(kept), "org/another")
    export(tmp_path / "n.json", content, now=datetime.now(UTC))
    audit = audit_lora_state_dict(parts, config, base_norms_from="n.json")
    assert "base_model_differs" in {f.code for f in audit.findings}
