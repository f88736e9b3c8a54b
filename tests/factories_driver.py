"""A bench without torch: a base model of a few bytes, and an executor that makes results up.

The results follow from the trial's spec alone, as a real trial's do, so that promises about plans,
ledgers and budgets are tested in milliseconds.
"""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from blake3 import blake3
from safetensors.numpy import save_file

from gradience import artifacts, files
from gradience.bench.config.load import load
from gradience.bench.executors.executor import Ended, Job
from gradience.bench.ledger import TrialPaths
from gradience.bench.records import (
    RESULT_SCHEMA,
    TRIAL_SCHEMA,
    AdapterFacts,
    Items,
    Training,
    Trial,
    TrialResult,
)
from gradience.bench.settings import BenchSettings

CONFIG = """
name: demo
model: {id: model}
task: {name: classification, train: [train.tsv], test: [test.tsv]}
lora: {rank: 8, alpha: 16, targets: [query, value]}
train: {learning_rate: 1e-4, batch_size: 4, steps: 10}
variants:
  - {action: truncate, ranks: [4, 2]}
  - {action: heal, ranks: [2]}
seeds: [0, 1]
claim: {margin: 0.025}
executor: {device: cpu}
"""
NOW = datetime(2026, 1, 1, tzinfo=UTC)
WIDTH = 16
ITEMS = 20


def make_project(root: Path, *, config: str = CONFIG) -> Path:
    """A config with the model and the data that it names."""
    model = root / "model"
    model.mkdir(parents=True, exist_ok=True)
    weight = np.zeros((WIDTH, WIDTH), np.float32)
    names = [f"encoder.layer.{i}.attention.self.{m}" for i in range(2) for m in ("query", "value")]
    save_file({f"{name}.weight": weight for name in names}, model / "model.safetensors")
    (model / "config.json").write_text(json.dumps({"model_type": "bert"}))
    for side in ("train", "test"):
        rows = "".join(f"{side} sentence {i}\t{i % 2}\n" for i in range(ITEMS))
        (root / f"{side}.tsv").write_text("text\tlabel\n" + rows)
    (root / "bench.yaml").write_text(config)
    return root / "bench.yaml"


def settings_of(config: Path, *overrides: str) -> BenchSettings:
    return load(config, overrides, home=config.parent, cwd=config.parent)


class FakeExecutor:
    """Ends each job at the next look, one look after its start.

    Parameters
    ----------
    slots : int
    failing : collection of str
        Names of jobs that end without a result.
    adapter_bytes : int
        Of every adapter.
    growing : collection of str
        Names of jobs that write on and on until they are stopped.
    on_start : callable, optional
        Called with each job.
    """

    def __init__(
        self,
        *,
        slots: int = 1,
        failing: Sequence[str] = (),
        adapter_bytes: int = 1000,
        growing: Sequence[str] = (),
        on_start: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self.slots = slots
        self.failing = set(failing)
        self.adapter_bytes = adapter_bytes
        self.growing = set(growing)
        self.on_start = on_start
        self.started: list[str] = []
        self.closed = False
        self._running: list[Job] = []

    def submit(self, job: Job) -> None:
        self.on_start(job)
        for need in job.needs:
            assert (need / "adapter" / "adapter_model.safetensors").exists(), "a need is not there"
        self.started.append(job.name)
        self._running.append(job)

    def ended(self, seconds: float) -> Sequence[Ended]:
        on = [job for job in self._running if job.name in self.growing]
        gone = [job for job in self._running if job.name not in self.growing]
        for job in on:
            files.replace(TrialPaths(job.directory).work / "optimizer.pt", bytes(3_000_000))
        self._running = on
        return [self._end(job) for job in gone]

    def stop(self, trial: str) -> None:
        stopped = {job.name for job in self._running if job.trial == trial}
        self.failing |= stopped
        self.growing -= stopped

    def close(self) -> None:
        self._running = []
        self.closed = True

    def _end(self, job: Job) -> Ended:
        paths = TrialPaths(job.directory)
        if job.name in self.failing:
            with files.appending(paths.log) as log:
                log.write(b"$ python\nloading\nerror: the model\n  has no head\nhint: give one\n")
            return Ended(trial=job.trial, message="exit code 6")
        make_up(paths, self.adapter_bytes)
        return Ended(trial=job.trial, message="exit code 0")


def make_up(paths: TrialPaths, adapter_bytes: int = 1000) -> None:
    """Write what a trial of this spec always writes, the result last."""
    trial = artifacts.decode(paths.trial.read_bytes(), TRIAL_SCHEMA, Trial, source="trial.json")
    weights = made_up_bytes(trial, adapter_bytes)
    files.replace(paths.adapter / "adapter_model.safetensors", weights)
    files.replace(paths.work / "optimizer.pt", bytes(adapter_bytes))
    if trial.spec.variant.action == "probe":
        files.replace(paths.step0 / "adapter_model.safetensors", bytes(adapter_bytes))
    result = made_up_result(trial, weights)
    files.replace(paths.result, artifacts.encode(RESULT_SCHEMA, result, now=NOW))


def made_up_bytes(trial: Trial, size: int) -> bytes:
    return blake3(trial.id.encode()).digest(length=size)


def made_up_result(trial: Trial, weights: bytes) -> TrialResult:
    """What a trial of this id always gives."""
    rng = np.random.default_rng(int(blake3(trial.id.encode()).hexdigest(length=6), 16))
    return TrialResult(
        trial=trial,
        metric="accuracy",
        items=Items(
            ids=tuple(map(str, range(ITEMS))),
            scores=tuple(map(float, rng.integers(0, 2, ITEMS))),
        ),
        adapter=AdapterFacts(
            ranks={"query": 8},
            scale={"query": 2.0},
            parameters=100,
            nbytes=len(weights),
            factor_bytes=len(weights),
            fingerprint=blake3(weights).hexdigest(),
        ),
        seconds=1.0,
        peak_bytes=1,
        finished_at=NOW.isoformat(),
        training=Training(
            steps=10,
            seconds=0.5,
            losses=(0.7, 0.5),
            still_falling=False,
            learning_rate=1e-4,
            alpha=16.0,
        ),
    )


def changed(settings: BenchSettings, **parts: object) -> BenchSettings:
    return msgspec.structs.replace(settings, **parts)
