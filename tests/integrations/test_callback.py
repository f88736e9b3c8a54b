"""`GradienceCallback` in a Trainer of this process: what it promises beside surviving."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("transformers")
pytest.importorskip("datasets")
pytest.importorskip("peft")

import torch
import transformers
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import HubStrategy, get_last_checkpoint

from factories_checkpoints import make_checkpoint
from factories_disks import tmpfs
from gradience.errors import StorageError, UsageError
from gradience.integrations.hf_scope import unguarded
from gradience.storage.checkpoints.judge import judge
from gradience.vnext.integrations.hf import GradienceCallback, guard
from survival_run import fill, make_data, make_model

# peft and trl still say what transformers calls activation_checkpointing by now.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def arguments(out: Path, **more: object) -> TrainingArguments:
    plain = {"max_steps": 4, "save_steps": 2, "per_device_train_batch_size": 4, "use_cpu": True}
    plain |= {"report_to": [], "disable_tqdm": True, "logging_steps": 100}
    return TrainingArguments(output_dir=str(out), **{**plain, **more})


def make_trainer(out: Path, *callbacks: TrainerCallback, adapter: bool = False, **more: object):
    return Trainer(
        model=make_model("tiny", adapter=adapter),
        args=arguments(out, **more),
        train_dataset=make_data(),
        eval_dataset=make_data(),
        callbacks=list(callbacks),
    )


class FullDisk(TrainerCallback):
    """Says that the disk is full at the end of a step, in the words of torch."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704")


def test_checkpoints_are_those_of_the_trainer_and_nothing_of_ours_stays(tmp_path):
    out = tmp_path / "out"
    make_trainer(out, GradienceCallback(), save_total_limit=1).train()
    assert sorted(p.name for p in out.iterdir()) == ["checkpoint-4", "run.jsonl"]
    assert judge(out / "checkpoint-4").resumes == "exactly"
    saved = torch.load(out / "checkpoint-4" / "training_args.bin", weights_only=False)
    assert saved.output_dir == str(out)


def test_the_best_checkpoint_is_recorded_under_its_final_name_and_stays(tmp_path):
    out = tmp_path / "out"
    trainer = make_trainer(
        out,
        GradienceCallback(),
        max_steps=6,
        save_total_limit=1,
        eval_strategy="steps",
        eval_steps=2,
        load_best_model_at_end=True,
        learning_rate=10.0,  # so that the first evaluation is the best
    )
    trainer.train()
    best = Path(trainer.state.best_model_checkpoint)
    assert best.parent == out
    assert best.is_dir()
    state = json.loads((best / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(best)


def test_a_broken_checkpoint_is_out_of_the_way_when_the_trainer_is_made(tmp_path):
    out = tmp_path / "out"
    make_trainer(out).train()
    (out / "checkpoint-4" / "trainer_state.json").unlink()
    trainer = make_trainer(out, GradienceCallback(), max_steps=6)
    assert get_last_checkpoint(str(out)) == str(out / "checkpoint-2")
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 6


def test_guard_looks_after_a_trainer_that_exists(tmp_path):
    out = tmp_path / "out"
    make_checkpoint(out, 9, without=("trainer_state.json",))
    trainer = make_trainer(out)
    callback = guard(trainer)
    assert (out / "broken-checkpoint-9").is_dir()
    trainer.train()
    assert callback.stopped == ""


@pytest.mark.parametrize("adapter", [False, True])
def test_a_run_that_dies_of_a_full_disk_saves_where_it_is_and_says_how_to_go_on(tmp_path, adapter):
    out = tmp_path / "out"
    trainer = make_trainer(out, FullDisk(3), GradienceCallback(), adapter=adapter)
    with pytest.raises(RuntimeError, match="unexpected pos") as died:
        trainer.train()
    assert "goes on from checkpoint-3" in died.value.__notes__[-1]
    names = {p.name for p in (out / "checkpoint-3").iterdir()}
    assert not any(name.startswith("tokenizer") or name == "training_args.bin" for name in names)
    assert ("adapter_model.safetensors" in names) == adapter
    again = make_trainer(out, GradienceCallback(), adapter=adapter)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 4


class Fill(TrainerCallback):
    """Fills the disk at the end of a step."""

    def __init__(self, out: Path, step: int) -> None:
        self.out, self.step = out, step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            fill(self.out, leave=0)


def mostly_frozen(out: Path, *callbacks: TrainerCallback) -> Trainer:
    """A model of which training changes the head alone: 13 MB of 13 MB stay as they are."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50_000,
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    model = transformers.BertForSequenceClassification(config)
    model.bert.requires_grad_(False)
    return Trainer(
        model=model, args=arguments(out), train_dataset=make_data(), callbacks=list(callbacks)
    )


@pytest.mark.root
def test_where_a_whole_checkpoint_does_not_fit_the_smallest_form_resumes_to_the_same_end(tmp_path):
    calm = mostly_frozen(tmp_path / "calm")
    calm.train()
    with tmpfs(tmp_path / "disk", "size=40m") as place:
        out = place / "out"
        callback = GradienceCallback()
        trainer = mostly_frozen(out, Fill(out, 2), callback)
        trainer.train()
        assert trainer.state.global_step == 2
        assert "smallest form" in callback.stopped
        found = judge(out / "checkpoint-2")
        assert found.resumes == "exactly"
        assert found.bytes < 100_000
        assert not (out / "checkpoint-2" / "config.json").exists(), "a part is not a model"
        (out / "filler").unlink()
        again = mostly_frozen(out, GradienceCallback())
        again.train(resume_from_checkpoint=True)
        assert again.state.global_step == 4
        for name, weight in again.model.state_dict().items():
            assert torch.equal(weight, calm.model.state_dict()[name]), name


def test_a_run_that_dies_of_something_else_is_left_to_die(tmp_path):
    class Other(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 3:
                raise RuntimeError("CUDA out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        make_trainer(tmp_path / "out", Other(), GradienceCallback()).train()
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["checkpoint-2", "run.jsonl"]


def test_a_save_that_fails_for_another_reason_fails_as_it_did(tmp_path):
    class Broken(Trainer):
        def _save_rng_state(self, output_dir):
            raise ValueError("no such state")

    trainer = Broken(
        model=make_model("tiny", adapter=False),
        args=arguments(tmp_path / "out"),
        train_dataset=make_data(),
        callbacks=[GradienceCallback()],
    )
    with pytest.raises(ValueError, match="no such state"):
        trainer.train()
    names = [p.name for p in (tmp_path / "out").iterdir()]
    assert names == ["run.jsonl"], "and leaves nothing half"


@pytest.mark.root
def test_a_run_without_room_is_refused_with_the_arithmetic_before_it_starts(tmp_path):
    with tmpfs(tmp_path / "disk", "size=3m") as place:
        trainer = make_trainer(place / "out", GradienceCallback())
        with pytest.raises(StorageError, match="can be written") as refused:
            trainer.train()
        assert "One checkpoint takes 2.5" in str(refused.value)
        assert trainer.state.global_step == 0


@pytest.mark.root
def test_on_full_chooses_between_refusing_stopping_and_going_on(tmp_path):
    with tmpfs(tmp_path / "disk", "size=4m") as place:
        callback = GradienceCallback(on_full="stop")
        trainer = make_trainer(place / "stop", callback)
        trainer.train()
        assert "not enough room" in callback.stopped
        assert list((place / "stop").glob("checkpoint-*")) == []
        callback = GradienceCallback(on_full="warn")
        trainer = make_trainer(place / "warn", callback, max_steps=8)
        trainer.train()
        newest = get_last_checkpoint(str(place / "warn"))
        assert judge(Path(newest)).resumes == "exactly"
    with pytest.raises(UsageError, match="explode"):
        GradienceCallback(on_full="explode")


def test_after_a_stop_the_best_checkpoint_that_was_saved_is_loaded(tmp_path):
    class Full(Trainer):
        def _save_optimizer_and_scheduler(self, output_dir):
            super()._save_optimizer_and_scheduler(output_dir)
            if self.state.global_step == 4:
                raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704")

    out = tmp_path / "out"
    callback = GradienceCallback()
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2}
    trainer = Full(
        model=make_model("tiny", adapter=False),
        args=arguments(out, max_steps=8, save_total_limit=1, **best),
        train_dataset=make_data(),
        eval_dataset=make_data(),
        callbacks=[callback],
    )
    trainer.train()
    assert trainer.state.global_step == 4
    assert "checkpoint-2 is the newest complete checkpoint" in callback.stopped
    assert trainer.state.best_model_checkpoint == str(out / "checkpoint-2")
    assert sorted(p.name for p in out.iterdir()) == ["checkpoint-2", "run.jsonl"]


def test_a_callback_that_was_added_later_gives_back_what_it_held(tmp_path):
    trainer = make_trainer(tmp_path / "out")
    trainer.add_callback(GradienceCallback())
    trainer.train()
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["checkpoint-2", "checkpoint-4", "run.jsonl"]


def test_events_go_to_the_sink_and_a_sink_that_fails_harms_nothing(tmp_path):
    told = []

    def sink(event):
        told.append(event)
        raise ValueError("the sink is broken")

    make_trainer(tmp_path / "out", GradienceCallback(on_event=sink)).train()
    assert [event.kind for event in told] == ["start", "saved", "saved"]
    assert told[1].step == 2
    assert told[1].facts["bytes"] > 0


@pytest.mark.root
def test_a_run_with_room_is_told_in_one_line_and_one_that_had_to_act_in_another(tmp_path, capfd):
    make_trainer(tmp_path / "out", GradienceCallback(), save_total_limit=1).train()
    (line,) = [x for x in capfd.readouterr().err.splitlines() if x.startswith("gradience:")]
    for part in (f"{tmp_path / 'out'}: 2 saves of 2.5", "2 at once", "held back", "can be written"):
        assert part in line
    with tmpfs(tmp_path / "disk", "size=16m") as place:
        out = place / "out"
        trainer = make_trainer(out, Fill(out, 3), GradienceCallback())
        trainer.train()
        assert trainer.state.global_step == 4
        lines = [x for x in capfd.readouterr().err.splitlines() if x.startswith("gradience:")]
        assert lines[1:] == [
            "gradience: Room was short: 1 x the reserve was released. checkpoint-4 is complete."
        ]


@pytest.mark.root
def test_a_run_that_starts_with_little_room_is_told_what_it_will_do(tmp_path):
    told = []
    with tmpfs(tmp_path / "disk", "size=10m") as place:
        make_trainer(place / "out", GradienceCallback(on_event=told.append), save_steps=1).train()
    start = next(event for event in told if event.kind == "start")
    assert start.grave
    assert start.message.endswith(
        "The run goes on: where a save has no room, older checkpoints go; then it stops with one "
        "that resumes."
    )


def test_whoever_raised_the_level_of_our_logger_is_told_no_good_news(tmp_path, capfd):
    logger = logging.getLogger("gradience")
    logger.setLevel(logging.WARNING)
    try:
        make_trainer(tmp_path / "out", GradienceCallback()).train()
    finally:
        logger.setLevel(logging.NOTSET)
    assert "gradience:" not in capfd.readouterr().err


UNGUARDED = {
    "DeepSpeed": lambda trainer: setattr(trainer, "is_deepspeed_enabled", True),
    "FSDP": lambda trainer: setattr(trainer, "is_fsdp_enabled", True),
    "push_to_hub": lambda trainer: setattr(trainer.args, "push_to_hub", True),
    "save_on_each_node": lambda trainer: setattr(trainer.args, "save_on_each_node", True),
    "hyper-parameter search": lambda trainer: setattr(trainer, "hp_search_backend", "optuna"),
    "torch.distributed": lambda trainer: setattr(
        trainer.args, "distributed_state", SimpleNamespace(num_processes=2)
    ),
}


@pytest.mark.parametrize("name", UNGUARDED)
def test_saves_that_are_not_guarded_are_named(tmp_path, name):
    trainer = make_trainer(tmp_path / "out")
    assert unguarded(trainer) == ""
    UNGUARDED[name](trainer)
    assert name in unguarded(trainer)


def test_saves_of_a_run_that_is_pushed_at_its_end_are_guarded(tmp_path):
    told = []
    trainer = make_trainer(tmp_path / "out", GradienceCallback(on_event=told.append))
    trainer.args.push_to_hub = True
    trainer.args.hub_strategy = HubStrategy.END
    trainer.train()
    assert [event.kind for event in told] == ["start", "saved", "saved"]
    assert judge(tmp_path / "out" / "checkpoint-4").complete
    trainer.args.hub_strategy = HubStrategy.EVERY_SAVE
    assert "hub_strategy='end'" in unguarded(trainer)


def test_a_run_whose_saves_are_not_guarded_says_so_at_its_start_and_saves_as_it_would(
    tmp_path, caplog
):
    told = []
    callback = GradienceCallback(on_event=told.append)
    trainer = make_trainer(tmp_path / "out", callback, save_on_each_node=True, save_total_limit=1)
    trainer.train()
    assert [event.kind for event in told] == ["unguarded"]
    (line,) = [r.message for r in caplog.records if r.name == "gradience.guard"]
    assert "not guarded: save_on_each_node" in line
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["checkpoint-4", "run.jsonl"]


SECOND = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
from pathlib import Path
from test_callback import GradienceCallback, make_trainer
make_trainer(Path(sys.argv[1]), GradienceCallback(wait_seconds=0)).train()
"""


class StartAnother(TrainerCallback):
    """Starts the same training again while this one goes on."""

    def on_save(self, args, state, control, **_):
        if state.global_step == 2:
            command = [sys.executable, "-c", SECOND, args.output_dir]
            self.ran = subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_second_run_in_an_output_dir_is_refused_and_the_first_one_goes_on(tmp_path):
    second = StartAnother()
    make_trainer(tmp_path / "out", GradienceCallback(), second).train()
    assert second.ran.returncode == 1
    assert f"process {os.getpid()} (" in second.ran.stderr
    assert "would spoil one another's checkpoints" in second.ran.stderr
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["checkpoint-2", "checkpoint-4", "run.jsonl"]


def test_what_a_caller_decides_on_the_start_goes(tmp_path):
    def refuse(held, saves, keeps):
        start = held.judge_start(saves=saves, keeps=keeps)
        return type(start)(refused=True, tight=True, lines=(f"{saves} saves, keeps {keeps}",))

    callback = GradienceCallback(preflight=refuse)
    with pytest.raises(StorageError, match="2 saves, keeps 3"):
        make_trainer(tmp_path / "out", callback, save_total_limit=3).train()


def test_sfttrainer_takes_it_in_one_line(tmp_path):
    trl = pytest.importorskip("trl")
    out = tmp_path / "out"
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=0,
    )
    data = Dataset.from_list([{"input_ids": [1, 2, 3, 4, 5, 6]}] * 16)
    words = {f"t{i}": i for i in range(64)}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="t1")),
        pad_token="t0",
        eos_token="t2",
    )
    trainer = trl.SFTTrainer(
        model=transformers.LlamaForCausalLM(config),
        args=trl.SFTConfig(
            output_dir=str(out),
            max_steps=4,
            save_steps=2,
            save_total_limit=1,
            use_cpu=True,
            bf16=False,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=data,
        processing_class=tokenizer,
        callbacks=[GradienceCallback()],
    )
    trainer.train()
    assert judge(out / "checkpoint-4").resumes == "exactly"
    assert sorted(p.name for p in out.glob("*checkpoint*")) == ["checkpoint-4"]
