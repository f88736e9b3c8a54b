"""Trials of a task of lm-evaluation-harness; prints what came of them as one line of JSON.

python lm_eval_trials.py BASE_DIR WORK_DIR
"""

import json
import random
import sys
from pathlib import Path
from typing import Any

from factories_bench import BAD, GOOD, make_spec, run_trial
from gradience.bench.records import PROBE, Variant
from gradience.bench.settings import LoraSettings, TaskSettings, TrainSettings
from gradience.bench.tasks import TASKS

YAML = """\
task: tiny
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: label
doc_to_choice: ["fine", "dull"]
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""


def write_task(work: Path) -> TaskSettings:
    rng = random.Random(0)
    words = [(word, "fine", 0) for word in GOOD] + [(word, "dull", 1) for word in BAD]
    rng.shuffle(words)
    include = work / "tasks"
    include.mkdir()
    rows = [{"question": f"the film is {w} :", "label": n} for w, _, n in words]
    data = include / "test.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (include / "tiny.yaml").write_text(YAML.format(data=data), encoding="utf-8")
    learned = [{"prompt": f"the film is {w} :", "completion": f" {c}"} for w, c, _ in words]
    train = work / "train.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in learned), encoding="utf-8")
    options = {"task": "tiny", "include": str(include)}
    return TaskSettings(name="lm_eval", train=(str(train),), options=options)


def main(base: Path, work: Path) -> None:
    task = write_task(work)
    typo = TaskSettings(
        name="lm_eval", train=task.train, options={**task.options, "metric": "accc"}
    )
    told: dict[str, Any] = {
        "problems": list(TASKS["lm_eval"].check(task)),
        "typo": list(TASKS["lm_eval"].check(typo)),
        "items": TASKS["lm_eval"].test_items(task),
        "files": list(TASKS["lm_eval"].files(task)),
    }
    train = TrainSettings(learning_rate=1e-2, batch_size=12, steps=60, max_length=64)
    lora = LoraSettings(rank=4, alpha=32.0, targets=".*(_proj|embed_tokens)")
    for name in (PROBE, "resave", "random"):
        variant = Variant(name=name, action=name)
        needs = () if name == PROBE else (work / PROBE,)
        result = run_trial(
            work / name, make_spec(base, task, variant, train=train, lora=lora), *needs
        )
        told[name] = {"ids": result.items.ids, "scores": result.items.scores}
        if result.before is not None:
            before = result.before
    told[PROBE]["before"] = told["resave"]["before"] = before
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
