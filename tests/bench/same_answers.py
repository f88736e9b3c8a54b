"""A probe and a truncation of it, by real trials, on every executor: prints what came of them.

`python same_answers.py OUT` prints a line of JSON. A process of its own, because of Ray.
"""

import json
import os
import sys
from pathlib import Path

import msgspec

from factories_bench import review_task, save_bert
from factories_driver import NOW, settings_of
from gradience.bench.driver.drive import Driver
from gradience.bench.driver.room import Room
from gradience.bench.executors import EXECUTORS
from gradience.bench.ledger import Ledger
from gradience.bench.plan.prepare import prepare
from gradience.bench.settings import ExecutorSettings

CONFIG = """
name: the same everywhere
model: {id: model}
task:
  name: classification
  train: [train.tsv]
  test: [test.tsv]
  options: {columns: [text, label]}
lora: {rank: 4, alpha: 8, targets: [query, value]}
train: {learning_rate: 5e-3, batch_size: 16, steps: 8, max_length: 32}
variants: [{action: truncate, ranks: [2]}]
seeds: [0]
claim: {margin: 0.05}
executor: {device: cpu}
"""
EVERY = {"local": {}, "ray": {"num_cpus": 1}, "slurm": {"cluster": "local", "cpus": 1}}


def main(root: Path) -> None:
    save_bert(root / "model")
    review_task(root)
    (root / "bench.yaml").write_text(CONFIG)
    settings = settings_of(root / "bench.yaml")
    came = {}
    for name, options in EVERY.items():
        out = root / name
        prepared = prepare(settings, out, accept=(), environ=os.environ)
        ledger = Ledger(out)
        ledger.write_bench(prepared.bench, now=NOW)
        chosen = ExecutorSettings(name=name, workers=1, device="cpu", options=options)
        told: list[str] = []
        Driver(
            ledger=ledger,
            trials=prepared.bench.trials[:2],
            executor=EXECUTORS[name].open(chosen, os.environ, told.append),
            shapes=prepared.shapes,
            items=prepared.items,
            room=Room(ledger=ledger, cap=None),
            notice=told.append,
        ).run()
        results = ledger.results(prepared.bench.trials)
        came[name] = {
            "told": told,
            "numbers": msgspec.to_builtins(
                [(r.trial.id, r.items, r.adapter, r.before, r.audit) for r in results]
            ),
        }
    print(json.dumps(came))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
