"""Settings to trials: which adapters are made and evaluated, and the id of each. Pure.

A trial's id is a digest of everything that determines its numbers and of nothing else: the name of
a variant, its place in a ladder and the path of a file are labels, the content of the file is not.
So a seed, a rank or a ladder that is added later brings new trials and leaves the others alone.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from blake3 import blake3

from gradience.bench.plan.defaults import HEAL_RATE, HEAL_SHARE
from gradience.bench.records import PROBE, Trial, TrialSpec, Variant
from gradience.bench.settings import (
    BenchSettings,
    Device,
    LadderSettings,
    LoraSettings,
)
from gradience.bench.tasks import TASKS

ID_DIGITS = 20
CONTROLS = ("resave", "bf16", "int8", "random")
"""Actions that always run beside the ladders, as `control-resave` and so on."""

_LABELS = {"name": "", "ladder": "", "step": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Determinants:
    """What determines a trial beside its settings.

    Attributes
    ----------
    base, data, versions, code
        As in `TrialSpec`.
    device : str
    """

    base: str
    data: Mapping[str, str]
    versions: Mapping[str, str]
    code: str
    device: Device


def plan(settings: BenchSettings, facts: Determinants) -> tuple[Trial, ...]:
    """The trials of a bench: of each seed its probe, the ladders from the top, the controls."""
    return tuple(trial for seed in settings.seeds for trial in _of_seed(settings, facts, seed))


def variants(settings: BenchSettings) -> tuple[Variant, ...]:
    """What is made of each seed, the probe first."""
    ladders = [v for ladder in settings.variants for v in _rungs(ladder, settings)]
    return (Variant(name=PROBE, action=PROBE), *ladders, *_controls(settings))


def trial_id(spec: TrialSpec, needs: tuple[str, ...]) -> str:
    """Digest of everything that determines the numbers of a trial.

    Returns
    -------
    str
        20 hex digits of BLAKE3 over canonical JSON.
    """
    return _digest({"spec": _canonical(spec), "needs": needs})


def content_key(spec: TrialSpec) -> str:
    """The id that a trial would have whatever the code and the versions: for results to accept.

    What a trial needs follows from its spec, so it does not enter here.
    """
    return _digest(_canonical(msgspec.structs.replace(spec, code="", versions={})))


def _of_seed(settings: BenchSettings, facts: Determinants, seed: int) -> Iterator[Trial]:
    needs: tuple[str, ...] = ()
    for variant in variants(settings):
        spec = TrialSpec(
            model=settings.model,
            task=settings.task,
            lora=settings.lora,
            train=settings.train,
            evaluation=settings.evaluation,
            variant=variant,
            seed=seed,
            base=facts.base,
            data=dict(facts.data),
            versions=dict(facts.versions),
            code=facts.code,
            device=facts.device,
        )
        trial = Trial(id=trial_id(spec, needs), spec=spec, needs=needs)
        yield trial
        needs = needs or (trial.id,)


def _rungs(ladder: LadderSettings, settings: BenchSettings) -> Iterator[Variant]:
    """The sizes of a ladder, the largest first."""
    name = ladder.name or ladder.action
    for step, rank in enumerate(sorted(ladder.ranks, reverse=True)):
        yield Variant(
            name=f"{name}-r{rank}",
            ladder=name,
            step=step,
            rank=rank,
            alpha=_alpha(ladder, settings.lora, rank) if ladder.action == "retrain" else None,
            **_training(ladder, settings),
        )
    for step, energy in enumerate(sorted(ladder.energies, reverse=True)):
        yield Variant(
            name=f"{name}-e{energy:g}-{ladder.rule}",
            ladder=name,
            step=step,
            energy=energy,
            rule=ladder.rule,
            alpha_rule=ladder.alpha if ladder.action == "retrain" else None,
            **_training(ladder, settings),
        )


def _training(ladder: LadderSettings, settings: BenchSettings) -> dict[str, Any]:
    rate = ladder.learning_rate
    if rate is None and ladder.action != "truncate":
        share = HEAL_RATE if ladder.action == "heal" else 1.0
        rate = share * settings.train.learning_rate
    steps = ladder.heal_steps
    if steps is None and ladder.action == "heal" and settings.train.steps is not None:
        steps = math.ceil(HEAL_SHARE * settings.train.steps)
    return {"action": ladder.action, "steps": steps, "learning_rate": rate}


def _alpha(ladder: LadderSettings, lora: LoraSettings, rank: int) -> float:
    """The alpha of a smaller rank: so that the scale stays, or the probe's own.

    The scale is alpha / r, or alpha / sqrt(r) for rsLoRA (Kalajdzievski, arXiv:2312.03732).
    """
    if ladder.alpha == "keep_alpha":
        return lora.alpha
    share = rank / lora.rank
    return lora.alpha * (math.sqrt(share) if lora.rslora else share)


def _controls(settings: BenchSettings) -> Iterator[Variant]:
    """What shows that the bench measures: nothing lost, equal bytes, and a loss that must show.

    The random subspace has the size of the largest rung of the first ladder: if even that many
    random directions will do, no verdict on chosen ones means anything.
    """
    for action in CONTROLS:
        if action != "random":
            yield Variant(name=f"control-{action}", action=action)
            continue
        top = next(_rungs(settings.variants[0], settings))
        yield Variant(
            name="control-random",
            action="random",
            rank=top.rank,
            energy=top.energy,
            rule=top.rule,
        )


def _canonical(spec: TrialSpec) -> dict[str, Any]:
    """A spec without its labels, and with contents in the place of paths."""
    plain: dict[str, Any] = msgspec.to_builtins(spec)
    plain["model"] = {"dtype": spec.model.dtype}  # `base` says which model
    plain["variant"] |= _LABELS
    named = {**spec.data}
    for side in ("train", "test"):
        names = plain["task"][side]
        # A Hub dataset of several tables has the further ones under names of their own.
        plain["task"][side] = [
            [named.pop(found) for found in sorted(named) if found == name or _more(found, name)]
            for name in names
        ]
    plain["data"] = named
    for option in TASKS[spec.task.name].paths:
        plain["task"]["options"].pop(option, None)  # its files are in `data`
    return plain


def _more(found: str, name: str) -> bool:
    return found.startswith(f"{name}[")


def _digest(content: object) -> str:
    data = msgspec.json.encode(content, order="deterministic")
    return blake3(data).hexdigest(length=ID_DIGITS // 2)
