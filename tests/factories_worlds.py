"""Results of a bench in a simulated world: real `TrialResult` records, made without training.

Each item has a chance to be right under the probe; a variant flips some answers, in part the same
ones with every seed, with a mean loss that is known because it was put in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import numpy as np
from blake3 import blake3

from gradience import artifacts
from gradience.bench.ledger import Ledger
from gradience.bench.plan.trials import trial_id
from gradience.bench.records import (
    REPORT_SCHEMA,
    RESULT_SCHEMA,
    AdapterFacts,
    Bench,
    Items,
    Training,
    Trial,
    TrialResult,
    TrialSpec,
    Variant,
)
from gradience.bench.settings import (
    BenchSettings,
    ClaimSettings,
    EvaluationSettings,
    LadderSettings,
    LoraSettings,
    ModelSettings,
    TaskSettings,
    TrainSettings,
)
from gradience.bench.verdict.judge import judge

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
CLAIM = ClaimSettings(margin=0.025)
MODULES = tuple(f"encoder.layer.{i}.attention.{m}" for i in range(6) for m in ("query", "value"))


def pair_scores(rng, shape, *, loss, discordance, persistent=0.5, seed_sd=0.0):
    """Differences of -1, 0, 1 over (..., S, n) with mean -loss exactly, up to chance."""
    *lead, seeds, items = shape
    kept = rng.random((*lead, 1, items)) < persistent
    u = np.where(kept, rng.random((*lead, 1, items)), rng.random(shape))
    mean = -loss + seed_sd * rng.standard_normal((*lead, seeds, 1))
    won = np.maximum(0, np.maximum((discordance + mean) / 2, mean))
    return (u < won).astype(np.int8) - (u > 1 - (won - mean)).astype(np.int8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One variant of a world: how it is made and what it really loses."""

    variant: Variant
    loss: float = 0.0
    discordance: float = 0.06
    parts: float = 1.0


def ladder(action="truncate", losses: Mapping[int, float] | None = None, discordance=0.06):
    """Steps of one ladder by rank, the largest first, with the true loss of each."""
    losses = {16: 0.0, 8: 0.002, 4: 0.06} if losses is None else losses
    return tuple(
        Made(
            variant=Variant(
                name=f"{action}-r{rank}", action=action, ladder=action, step=step, rank=rank
            ),
            loss=loss,
            discordance=max(discordance, loss),
            parts=rank / 32,
        )
        for step, (rank, loss) in enumerate(sorted(losses.items(), reverse=True))
    )


CONTROLS = (
    Made(variant=Variant(name="control-resave", action="resave"), discordance=0.0),
    Made(variant=Variant(name="control-bf16", action="bf16"), discordance=0.004, parts=0.5),
    Made(variant=Variant(name="control-int8", action="int8"), discordance=0.02, parts=0.25),
    Made(
        variant=Variant(name="control-random", action="random", rank=8),
        loss=0.25,
        discordance=0.4,
        parts=0.25,
    ),
)
PROBE = Made(variant=Variant(name="probe", action="probe"))


def make_results(
    *,
    made: Sequence[Made] | None = None,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    items: int = 1500,
    seed_sd: float = 0.003,
    clusters: int | None = None,
    binary: bool = True,
    world: int = 0,
    name: str = "world",
    metric: str = "accuracy",
    before: float | None = 0.5,
    still_falling: Sequence[int] = (),
    spec: Mapping[str, object] | None = None,
) -> list[TrialResult]:
    """Probe, controls and variants for every seed."""
    rng = np.random.default_rng(world)
    made = (*ladder(), *CONTROLS) if made is None else made
    right = (rng.random(items) < 0.9).astype(float)
    ids = tuple(f"{name}-{i}" for i in range(items))
    groups = tuple(f"passage-{i * clusters // items}" for i in range(items)) if clusters else ()
    probes = np.stack([np.where(rng.random(items) < 0.05, 1 - right, right) for _ in seeds])
    if not binary:
        probes = probes * 0.2 - 1 + 0.05 * rng.standard_normal(probes.shape)
    results = []
    for index, one in enumerate((PROBE, *made)):
        flips = pair_scores(
            np.random.default_rng((world, index)),
            (len(seeds), items),
            loss=one.loss,
            discordance=one.discordance if one is not PROBE else 0.0,
            seed_sd=seed_sd if one.loss or one.discordance > 0.03 else 0.0,
        )
        if one is PROBE or one.discordance == 0:
            flips = np.zeros_like(flips)
        scores = _applied(probes, flips, np.random.default_rng((world, index, 1)), binary)
        for row, seed in enumerate(seeds):
            needs = () if one is PROBE else (make_trial(PROBE, seed, spec or {}).id,)
            trial = make_trial(one, seed, spec or {}, needs)
            results.append(
                TrialResult(
                    trial=trial,
                    metric=metric,
                    items=Items(ids=ids, scores=tuple(map(float, scores[row])), clusters=groups),
                    adapter=_adapter(one, trial.id),
                    seconds=40.0 + 10 * (one is PROBE) + row,
                    peak_bytes=900_000_000,
                    finished_at=NOW.isoformat(),
                    training=_training(seed, seed in still_falling) if one is PROBE else None,
                    before=before if one is PROBE else None,
                    audit={"stable_rank_median": 1.4},
                )
            )
    return results


def _applied(probes, flips, rng, binary):
    """Scores with wins and losses laid on items where the probe leaves room for them."""
    if not binary:
        return probes + 0.2 * flips
    scores = probes.copy()
    for row, flip in zip(scores, flips, strict=True):
        for sign, room in ((1, 0.0), (-1, 1.0)):
            wanted = np.flatnonzero(flip == sign)
            fits = wanted[row[wanted] == room]
            rest = len(wanted) - len(fits)
            free = np.flatnonzero((row == room) & (flip == 0))
            more = rng.permutation(free)[:rest]
            row[fits] = 1 - room
            row[more] = 1 - room
    return scores


def make_trial(
    one: Made, seed: int, changed: Mapping[str, object], needs: tuple[str, ...] = ()
) -> Trial:
    """The trial of one variant and seed, under the id that the plan gives it."""
    fields = {
        "model": ModelSettings(id="microsoft/MiniLM-L12-H384-uncased", revision="44acabb"),
        "task": TaskSettings(name="classification", train=("t.tsv",), test=("d.tsv",)),
        "lora": LoraSettings(rank=32, alpha=32.0, targets=("query", "value")),
        "train": TrainSettings(learning_rate=2e-4, batch_size=32, epochs=1.0),
        "evaluation": EvaluationSettings(),
        "variant": one.variant,
        "seed": seed,
        "base": "b" * 16,
        "data": {"t.tsv": "d" * 16, "d.tsv": "e" * 16},
        "versions": {"python": "3.11.9", "torch": "2.13.0", "peft": "0.21.2"},
        "code": "c" * 16,
        "device": "cpu",
        **changed,
    }
    spec = TrialSpec(**fields)
    return Trial(id=trial_id(spec, needs), spec=spec, needs=needs)


def _adapter(one: Made, name: str) -> AdapterFacts:
    rank = max(1, round(32 * one.parts))
    parameters = len(MODULES) * rank * 768
    return AdapterFacts(
        ranks=dict.fromkeys(MODULES, rank),
        scale=dict.fromkeys(MODULES, 1.0),
        parameters=parameters,
        nbytes=4 * parameters + 2_000,
        factor_bytes=4 * parameters,
        fingerprint=blake3(name.encode()).hexdigest(),
        relative_error=None if one is PROBE else 1 - one.parts**0.3,
    )


def _training(seed: int, falling: bool) -> Training:
    steps = np.arange(1, 51)
    losses = 0.2 + 0.5 / steps**0.5 + 0.01 * np.random.default_rng(seed).standard_normal(50)
    return Training(
        steps=2100,
        seconds=600.0,
        losses=tuple(map(float, losses)),
        still_falling=falling,
        learning_rate=2e-4,
        alpha=32.0,
    )


def replaced(result: TrialResult, scores: Sequence[float]) -> TrialResult:
    """The result with other scores."""
    items = msgspec.structs.replace(result.items, scores=tuple(map(float, scores)))
    return msgspec.structs.replace(result, items=items)


def make_settings(
    results: Sequence[TrialResult], claim: ClaimSettings, name: str = "world"
) -> BenchSettings:
    """Settings that these results could be of."""
    spec = results[0].trial.spec
    return BenchSettings(
        name=name,
        model=spec.model,
        task=spec.task,
        lora=spec.lora,
        train=spec.train,
        variants=(LadderSettings(action="truncate", ranks=(16, 8, 4)),),
        seeds=tuple(sorted({result.trial.spec.seed for result in results})),
        claim=claim,
    )


def write_bench(directory, results, *, claim=CLAIM, name="world"):
    """An output directory as a bench leaves it: settings, results, report."""
    write_results(directory, results)
    settings = make_settings(results, claim, name)
    bench = Bench(settings=settings, trials=tuple(result.trial for result in results))
    Ledger(directory).write_bench(bench, now=NOW)
    report = judge(name=name, claim=claim, results=results)
    (directory / "bench.json").write_bytes(artifacts.encode(REPORT_SCHEMA, report, now=NOW))
    return directory


def write_results(directory, results):
    """Lay results out as a bench does: trials/<id>/result.json."""
    for result in results:
        path = directory / "trials" / result.trial.id / "result.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(artifacts.encode(RESULT_SCHEMA, result, now=NOW, indent=0))
    return directory
