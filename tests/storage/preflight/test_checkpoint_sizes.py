"""The forecast of a checkpoint against the checkpoints of a real Trainer: within 3 % or 6 kB."""

import pytest

pytest.importorskip("transformers")
pytest.importorskip("datasets")
pytest.importorskip("peft")

import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer, TrainingArguments

from gradience.storage.checkpoints.judge import weigh
from gradience.storage.environment.host import this_host
from gradience.storage.preflight.run import preflight
from gradience.storage.preflight.settings import RunSettings, from_trainer
from survival_run import make_data, make_model

# peft still says what transformers calls activation_checkpointing by now.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")

PART, FLOOR = 0.03, 6_000
TARGETS = ("query", "value")


def arguments(out, optim):
    return TrainingArguments(
        output_dir=str(out),
        max_steps=1,
        save_steps=1,
        optim=optim,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        per_device_train_batch_size=4,
    )


def apparent(folder, names):
    return sum(p.stat().st_size for p in folder.iterdir() if p.name.startswith(names))


@pytest.mark.parametrize("optim", ["adamw_torch", "sgd", "adafactor", "adagrad"])
@pytest.mark.parametrize(
    ("rank", "dtype"), [(None, torch.float32), (4, torch.float32), (4, torch.bfloat16)]
)
def test_a_checkpoint_is_as_large_as_foretold(tmp_path, monkeypatch, optim, rank, dtype):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = make_model("tiny", adapter=False).to(dtype)
    model.save_pretrained(tmp_path / "base")
    if rank:
        model = get_peft_model(model, LoraConfig(r=rank, target_modules=list(TARGETS)))
    args = arguments(tmp_path / "out", optim)
    Trainer(model=model, args=args, train_dataset=make_data()).train()
    checkpoint = tmp_path / "out" / "checkpoint-1"

    from msgspec.structs import replace  # noqa: PLC0415 - beside its use

    settings = replace(
        from_trainer(args),
        model=str(tmp_path / "base"),
        adapter_rank=rank,
        targets=TARGETS,
    )
    found = preflight(settings, environ={}, home=tmp_path, host=this_host(), online=False)
    foretold = {w.what: w.bytes for d in found.disks for w in d.writes if w.when == "save"}
    weights = apparent(checkpoint, ("model.", "adapter_model."))
    state = apparent(checkpoint, ("optimizer.pt",))
    kind = "adapter" if rank else "weights"
    assert foretold[kind] == pytest.approx(weights, rel=PART, abs=FLOOR)
    assert foretold["optimizer state"] == pytest.approx(state, rel=PART, abs=FLOOR)
    # Never less than what is really taken, beyond the blocks of small files.
    assert sum(foretold.values()) == pytest.approx(weigh(checkpoint)[0], rel=PART, abs=40_000)


def test_an_optimizer_that_is_not_known_is_said_to_be(tmp_path):
    make_model("tiny", adapter=False).save_pretrained(tmp_path / "base")
    settings = RunSettings(
        model=str(tmp_path / "base"), steps=10, save_steps=5, optimizer="galore_adamw"
    )
    found = preflight(settings, environ={}, home=tmp_path, host=this_host(), online=False)
    assert found.verdict == "unknown"
    assert "galore_adamw is not known" in found.unknown[0]
