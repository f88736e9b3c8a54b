"""What settings cannot mean, part by part: pure rules, each with the value and the remedy.

They run over the parts that could be read, so that a typo in one part hides no mistake in another.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from gradience.adapter.targets import why_no_pattern
from gradience.bench.settings import (
    ClaimSettings,
    EvaluationSettings,
    ExecutorSettings,
    LadderSettings,
    LoraSettings,
    TaskSettings,
    TrainSettings,
)
from gradience.configs.problems import Problem, meant
from gradience.errors import UsageError
from gradience.units import parse_size

LADDER_ACTIONS = ("truncate", "heal", "retrain")
"""Actions that a config may name; the others are the probe and the controls, which always run."""

_MOST_LOOKS = 10
_MAX_SEED = 2**32 - 1  # numpy's; torch's and Python's are larger


def check_parts(
    parts: Mapping[str, Any], *, tasks: Iterable[str], executors: Iterable[str]
) -> list[Problem]:
    """Every problem of the parts of a config that could be read.

    Parameters
    ----------
    parts : mapping of str to settings and values
        By path: `$.lora`, `$.lora.rank`, `$.variants[0]`.
    tasks, executors : iterable of str
        Names that are known.
    """
    known: dict[type, list[str]] = {TaskSettings: list(tasks), ExecutorSettings: list(executors)}
    found = []
    for path, part in parts.items():
        if type(part) in known:
            found += list(_known_name(part.name, known[type(part)], f"{path}.name"))
        rule = _RULES.get(type(part))
        if rule is not None:
            found += [
                Problem(path=f"{path}.{key}" if key else path, message=message)
                for key, message in rule(part)
            ]
    found += [Problem(path=f"$.{key}", message=message) for key, message in _whole(parts)]
    return found + list(_ranks_below_the_probe(parts)) + list(_ladder_names(parts))


Found = Iterator[tuple[str, str]]
"""Key within the part, and what is wrong with it."""


def _known_name(name: str, known: Sequence[str], path: str) -> Iterator[Problem]:
    if name not in known:
        yield Problem(path=path, message=f"{name!r} is not known; {meant(name, known)}")


def _lora(lora: LoraSettings) -> Found:
    yield from _at_least(1, rank=lora.rank)
    yield from _above_zero(alpha=lora.alpha)
    if not 0 <= lora.dropout < 1:
        yield "dropout", f"{lora.dropout} is no share; write 0 <= dropout < 1"
    if not lora.targets:
        yield "targets", "no module is named; write names such as [q_proj, v_proj], or all-linear"
    if why := why_no_pattern(lora.targets):
        yield "targets", why


def _train(train: TrainSettings) -> Found:
    yield from _above_zero(learning_rate=train.learning_rate, max_grad_norm=train.max_grad_norm)
    yield from _at_least(
        1,
        batch_size=train.batch_size,
        gradient_accumulation=train.gradient_accumulation,
        max_length=train.max_length,
    )
    if (train.epochs is None) == (train.steps is None):
        both = train.epochs is not None
        found = f"epochs {train.epochs:g} and steps {train.steps}" if both else "neither"
        yield "epochs", f"{found}; write one of epochs and steps"
    if train.epochs is not None:
        yield from _above_zero(epochs=train.epochs)
    if train.steps is not None:
        yield from _at_least(1, steps=train.steps)
    if not 0 <= train.warmup < 1:
        yield "warmup", f"{train.warmup} is no share of the steps; write 0 <= warmup < 1"
    if train.weight_decay < 0:
        yield "weight_decay", f"{train.weight_decay} is negative"


def _ladder(ladder: LadderSettings) -> Found:
    if ladder.action not in LADDER_ACTIONS:
        yield "action", f"{ladder.action!r} is not known; {meant(ladder.action, LADDER_ACTIONS)}"
    if bool(ladder.ranks) == bool(ladder.energies):
        found = "both ranks and energies" if ladder.ranks else "neither ranks nor energies"
        yield "ranks", f"{found}; write one of them"
    for i, rank in enumerate(ladder.ranks):
        yield from _at_least(1, **{f"ranks[{i}]": rank})
    for i, energy in enumerate(ladder.energies):
        if not 0 < energy < 1:
            yield f"energies[{i}]", f"{energy:g} is no share; write one between 0 and 1"
    for key, values in (("ranks", ladder.ranks), ("energies", ladder.energies)):
        yield from _no_duplicates(key, values)
    if ladder.heal_steps is not None:
        yield from _at_least(1, heal_steps=ladder.heal_steps)
        if ladder.action != "heal":
            yield "heal_steps", f"{ladder.heal_steps}: only `heal` trains on; remove it"
    if ladder.learning_rate is not None:
        yield from _above_zero(learning_rate=ladder.learning_rate)
        if ladder.action == "truncate":
            yield "learning_rate", "`truncate` trains nothing; remove it, or write action: heal"
    if ladder.name.split("-")[0] in ("probe", "control"):
        yield "name", f"{ladder.name!r}: probe and control are names of trials that always run"


def _claim(claim: ClaimSettings) -> Found:
    if not 0 < claim.margin < 1:
        hint = "give the loss that may not be exceeded, in units of the score: 0.025 for 2.5 points"
        yield "margin", f"{claim.margin:g}; {hint}"
    if not 0 < claim.level < 0.5:
        yield "level", f"{claim.level:g} is no error level; write one such as 0.05"
    if not 1 <= claim.looks <= _MOST_LOOKS:
        yield "looks", f"{claim.looks}; write how often you mean to look: 1 to {_MOST_LOOKS}"
    if not 0.5 <= claim.power < 1:
        yield "power", f"{claim.power:g} is no power to ask for; write one such as 0.8"


def _evaluation(evaluation: EvaluationSettings) -> Found:
    yield from _at_least(1, batch_size=evaluation.batch_size)
    if evaluation.limit is not None:
        yield from _at_least(2, limit=evaluation.limit)


def _executor(executor: ExecutorSettings) -> Found:
    if executor.workers is not None:
        yield from _at_least(1, workers=executor.workers)


def _whole(parts: Mapping[str, Any]) -> Found:
    """Values that stand in no part; they are looked at even where the whole cannot be read."""
    if not parts.get("$.name", "a name").strip():
        yield "name", "empty; name what is tested, such as 'MiniLM on SST-2'"
    if "$" in parts and not parts["$"].variants:
        yield "variants", "empty; name at least one action and its ranks"
    seeds = parts.get("$.seeds", (0,))
    if not seeds:
        yield "seeds", "empty; write at least one, and three or more for a verdict"
    yield from _no_duplicates("seeds", seeds)
    for i, seed in enumerate(seeds):
        if not 0 <= seed <= _MAX_SEED:
            yield f"seeds[{i}]", f"{seed}; write a number from 0 to {_MAX_SEED}"
    if parts.get("$.disk_budget") is not None:
        try:
            parse_size(parts["$.disk_budget"])
        except UsageError as error:
            yield "disk_budget", f"{error}; {error.remedy}"


_RULES: dict[type, Callable[[Any], Found]] = {
    LoraSettings: _lora,
    TrainSettings: _train,
    LadderSettings: _ladder,
    ClaimSettings: _claim,
    EvaluationSettings: _evaluation,
    ExecutorSettings: _executor,
}


def _ranks_below_the_probe(parts: Mapping[str, Any]) -> Iterator[Problem]:
    probe = parts.get("$.lora.rank")
    if probe is None:
        return
    for path, ladder in _ladders(parts):
        for i, rank in enumerate(ladder.ranks):
            if rank >= probe:
                yield Problem(
                    path=f"{path}.ranks[{i}]",
                    message=f"{rank} is not below the probe's rank, {probe}; remove it, or "
                    "raise lora.rank",
                )


def _ladder_names(parts: Mapping[str, Any]) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for path, ladder in _ladders(parts):
        name = ladder.name or ladder.action
        if name in first:
            yield Problem(
                path=f"{path}.name",
                message=f"{name!r} is the name of {first[name]} too; give one of them a `name`",
            )
        first.setdefault(name, path)


def _ladders(parts: Mapping[str, Any]) -> list[tuple[str, LadderSettings]]:
    return [(path, part) for path, part in parts.items() if isinstance(part, LadderSettings)]


def _at_least(low: int, **values: int) -> Found:
    for key, value in values.items():
        if value < low:
            yield key, f"{value}; write {low} or more"


def _above_zero(**values: float) -> Found:
    for key, value in values.items():
        if not 0 < value < float("inf"):
            yield key, f"{value:g}; write a number above 0"


def _no_duplicates(key: str, values: Iterable[float]) -> Found:
    twice = [f"{value:g}" for value, count in Counter(values).items() if count > 1]
    if twice:
        yield key, f"{', '.join(twice)} stands twice; remove one"
