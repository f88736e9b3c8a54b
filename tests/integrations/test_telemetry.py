"""The log that `GradienceCallback` writes, in a real Trainer."""

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("transformers")
pytest.importorskip("datasets")
pytest.importorskip("peft")

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

from factories_disks import tmpfs
from gradience.cli.monitor import monitor
from gradience.telemetry.read import Reader
from gradience.telemetry.records import (
    Alert,
    Eval,
    Metrics,
    Recommendation,
    RunEnd,
    RunStart,
    TrainStep,
)
from gradience.vnext.integrations.hf import GradienceCallback
from survival_run import fill, make_data, make_model

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def make_trainer(out: Path, *callbacks: TrainerCallback, adapter: bool = False, **more: object):
    plain = {"max_steps": 4, "save_steps": 2, "per_device_train_batch_size": 4, "use_cpu": True}
    plain |= {"report_to": [], "disable_tqdm": True, "logging_steps": 1}
    return Trainer(
        model=make_model("tiny", adapter=adapter),
        args=TrainingArguments(output_dir=str(out), **{**plain, **more}),
        train_dataset=make_data(),
        eval_dataset=make_data(),
        callbacks=list(callbacks),
    )


def events(out: Path) -> list[object]:
    for line in (out / "run.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"bare {word}"))
    return Reader(out / "run.jsonl").news()


def steps(out: Path) -> list[int | None]:
    return [e.step for e in events(out) if isinstance(e, TrainStep)]


class Poison(TrainerCallback):
    """Makes one weight NaN at the end of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, model=None, **_):
        if state.global_step == self.step:
            with torch.no_grad():
                next(p for p in model.parameters() if p.requires_grad).fill_(float("nan"))


def test_a_run_is_logged_from_its_config_to_its_end(tmp_path):
    make_trainer(
        tmp_path, GradienceCallback(), adapter=True, eval_strategy="steps", eval_steps=2
    ).train()
    found = events(tmp_path)
    start, end = found[0], found[-1]
    assert isinstance(start, RunStart)
    assert start.config["adapter"]["r"] == 8
    assert start.config["training"]["max_steps"] == 4
    assert isinstance(end, RunEnd)
    assert (end.status, end.step, end.lost_lines) == ("finished", 4, 0)
    assert steps(tmp_path) == [1, 2, 3, 4]
    assert all(e.loss and e.grad_norm for e in found if isinstance(e, TrainStep))
    assert [e.step for e in found if isinstance(e, Eval) and e.loss] == [2, 4]
    kinds = [e.kind for e in found if isinstance(e, Metrics)]
    assert kinds.count("guard_saved") == 2
    assert "train_end" in kinds


def test_what_check_would_have_said_stands_in_the_log(tmp_path):
    make_trainer(tmp_path, GradienceCallback(), adapter=True, learning_rate=0.05).train()
    found = [e for e in events(tmp_path) if isinstance(e, Recommendation)]
    assert [e.code for e in found] == ["learning_rate_high"]
    assert found[0].source


@pytest.mark.parametrize("filtered", [True, False])
def test_nan_reaches_the_log_as_an_alert_whether_or_not_the_trainer_hides_it(tmp_path, filtered):
    make_trainer(tmp_path, Poison(2), GradienceCallback(), logging_nan_inf_filter=filtered).train()
    codes = {e.code: e.step for e in events(tmp_path) if isinstance(e, Alert)}
    assert codes["gradient_not_finite"] == 3
    assert ("loss_not_finite" in codes) is not filtered


def test_a_resumed_run_appends_under_its_own_name_and_another_run_gets_another(tmp_path):
    make_trainer(tmp_path, GradienceCallback()).train()
    before = (tmp_path / "run.jsonl").read_bytes()
    again = make_trainer(tmp_path, GradienceCallback(), max_steps=6)
    again.train(resume_from_checkpoint=True)
    assert (tmp_path / "run.jsonl").read_bytes().startswith(before)
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]
    starts = [e for e in events(tmp_path) if isinstance(e, RunStart)]
    assert [e.resumed_from_step for e in starts] == [None, 4]
    assert len({e.run_id for e in events(tmp_path)}) == 1
    make_trainer(tmp_path, GradienceCallback()).train()
    assert len({e.run_id for e in events(tmp_path)}) == 2


def test_a_broken_checkpoint_set_aside_before_a_resume_is_no_bad_news(tmp_path):
    make_trainer(tmp_path, GradienceCallback()).train()
    (tmp_path / "checkpoint-4" / "model.safetensors").write_bytes(b"")
    trainer = make_trainer(tmp_path, GradienceCallback(), max_steps=6)
    trainer.train(resume_from_checkpoint=True)
    (alert,) = [e for e in events(tmp_path) if isinstance(e, Alert)]
    assert (alert.code, alert.severity) == ("checkpoint_set_aside", "info")
    assert "broken-checkpoint-4" in alert.message
    assert "free" not in alert.remedy.lower(), "nothing is short"
    assert CliRunner().invoke(monitor, [str(tmp_path)], standalone_mode=False).return_value == 0


def test_a_run_that_dies_says_of_what(tmp_path):
    class Dies(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 3:
                raise ValueError("bad batch " + "x" * 1000)

    with pytest.raises(ValueError, match="bad batch"):
        make_trainer(tmp_path, Dies(), GradienceCallback()).train()
    end = events(tmp_path)[-1]
    assert isinstance(end, RunEnd)
    assert end.status == "failed"
    assert end.reason.startswith("ValueError: bad batch")
    assert len(end.reason) <= 256


@pytest.mark.root
def test_a_log_that_cannot_grow_does_not_end_the_run(tmp_path, caplog):
    with tmpfs(tmp_path / "disk", "size=1m") as place:
        (place / "run.jsonl").touch()
        fill(place, leave=0)
        callback = GradienceCallback(telemetry=place / "run.jsonl")
        trainer = make_trainer(tmp_path / "out", callback)
        trainer.train()
        assert trainer.state.global_step == 4
        assert (place / "run.jsonl").stat().st_size == 0
        assert "lines of the run's log were lost" in caplog.text


@pytest.mark.slow
def test_killed_and_resumed_every_whole_line_stays(tmp_path):
    child = Path(__file__).with_name("killed_run.py")
    path = os.pathsep.join(p for p in sys.path if p)
    environ = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, child, tmp_path], env=environ, check=False)
    assert killed.returncode == -signal.SIGKILL
    before = (tmp_path / "run.jsonl").read_bytes()
    assert steps(tmp_path) == [1, 2, 3]
    again = make_trainer(tmp_path, GradienceCallback())
    again.train(resume_from_checkpoint=True)
    assert (tmp_path / "run.jsonl").read_bytes().startswith(before)
    assert steps(tmp_path) == [1, 2, 3, 3, 4]


def test_without_telemetry_nothing_is_written(tmp_path):
    make_trainer(tmp_path, GradienceCallback(telemetry=False)).train()
    assert not (tmp_path / "run.jsonl").exists()


class Recorder(TrainerCallback):
    """Keeps what a tracker would be sent."""

    def __init__(self) -> None:
        self.seen: list[dict[str, object]] = []

    def on_log(self, args, state, control, logs=None, **_):
        self.seen.append({"step": state.global_step, **logs})


def test_a_tracker_beside_it_is_sent_the_same_numbers(tmp_path):
    before, after = Recorder(), Recorder()
    make_trainer(tmp_path, before, GradienceCallback(), after).train()
    assert before.seen == after.seen
    ours = {e.step: e.loss for e in events(tmp_path) if isinstance(e, TrainStep)}
    assert ours == {e["step"]: e["loss"] for e in after.seen if "loss" in e}


def test_tensorboard_gets_what_it_got_before(tmp_path):
    read = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    make_trainer(tmp_path, GradienceCallback(), report_to=["tensorboard"]).train()
    (written,) = {p.parent for p in tmp_path.rglob("events.out.tfevents.*")}
    seen = read.EventAccumulator(str(written)).Reload().Scalars("train/loss")
    assert [s.step for s in seen] == steps(tmp_path)


WITH_WANDB = """
import sys
from test_telemetry import make_trainer
from gradience.vnext.integrations.hf import GradienceCallback
import wandb

make_trainer(sys.argv[1], GradienceCallback(), report_to=["wandb"]).train()
wandb.finish()
"""


@pytest.mark.slow
def test_wandb_gets_what_it_got_before(tmp_path):
    pytest.importorskip("wandb", reason="needs wandb: pip install wandb")
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    environ = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    environ |= {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "HOME": str(tmp_path)}
    command = [sys.executable, "-c", WITH_WANDB, str(tmp_path / "out")]
    subprocess.run(command, env=environ, check=True, capture_output=True)
    (written,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    sent = {row["train/global_step"]: row for row in wandb_history(written) if "train/loss" in row}
    ours = {e.step: e.loss for e in events(tmp_path / "out") if isinstance(e, TrainStep)}
    assert {step: row["train/loss"] for step, row in sent.items()} == ours
    assert list(ours) == [1, 2, 3, 4]


def wandb_history(path: Path) -> list[dict[str, object]]:
    """The rows in W&B's own file: a header of 7 bytes, then records as in a log of LevelDB."""
    protocol = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    data, block, head = path.read_bytes(), 2**15, 7
    at, record, rows = head, b"", []
    while at + head <= len(data):
        if block - at % block < head:
            at += block - at % block
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + head])
        record, at = record + data[at + head : at + head + size], at + head + size
        if kind in (1, 4):  # whole, or the last part
            history = protocol.Record.FromString(record).history
            rows.append({i.key or i.nested_key[0]: json.loads(i.value_json) for i in history.item})
            record = b""
    return rows
