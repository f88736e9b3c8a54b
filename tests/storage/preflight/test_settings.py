"""What is to be run, from files and from a Trainer's arguments."""

import json

import pytest

from gradience.errors import UsageError
from gradience.storage.preflight.records import Schedule
from gradience.storage.preflight.settings import RunSettings, from_trainer, read, schedule


def test_a_key_that_is_not_known_is_refused_with_the_one_that_was_meant(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model: base\nsave_step: 10\n")
    with pytest.raises(UsageError, match=r"line 2, \$\.save_step: unknown key") as error:
        read(path)
    assert "did you mean 'save_steps'?" in error.value.details[0]


def test_the_json_of_a_training_script_is_read(tmp_path):
    path = tmp_path / "args.json"
    path.write_text(
        json.dumps(
            {
                "model_name_or_path": "org/base",
                "dataset_name": "org/data",
                "use_peft": True,
                "lora_r": 32,
                "lora_target_modules": ["q_proj"],
                "output_dir": "out",
                "max_steps": 900,
                "save_steps": 0.25,
                "save_total_limit": 1,
                "load_best_model_at_end": True,
                "optim": "adafactor",
                "per_device_train_batch_size": 4,
                "gradient_accumulation_steps": 8,
                "warmup_ratio": 0.1,
            }
        )
    )
    found = read(path)
    assert (found.model, found.adapter_rank, found.targets) == ("org/base", 32, ("q_proj",))
    assert (found.optimizer, found.batch_size) == ("adafactor", 32)
    # transformers keeps the best one and the last one.
    assert schedule(found, None) == Schedule(steps=900, every=225, saves=4, keeps=2)


@pytest.mark.parametrize(
    ("settings", "examples", "expected"),
    [
        ({"epochs": 2, "batch_size": 10}, 1005, Schedule(steps=202, every=500, saves=1)),
        ({"epochs": 2, "save_strategy": "epoch"}, None, Schedule(saves=2)),
        ({"save_strategy": "no", "steps": 5}, None, Schedule(steps=5, saves=0)),
        ({"save_steps": 100}, None, Schedule(every=100)),
        ({"save_steps": 0.1}, None, Schedule(saves=10)),
    ],
)
def test_how_often_a_run_saves(settings, examples, expected):
    assert schedule(RunSettings(**settings), examples) == expected


def test_none_means_the_default_of_the_trainer():
    found = from_trainer({"save_total_limit": None, "max_steps": -1, "report_to": "tensorboard"})
    assert (found.save_total_limit, found.steps, found.tensorboard) == (None, None, True)
