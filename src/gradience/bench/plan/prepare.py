"""From settings to a plan beside what is done already: what a run and a dry run share."""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from gradience.bench.executors import EXECUTORS
from gradience.bench.executors.gpus import visible_gpus
from gradience.bench.ledger import Ledger
from gradience.bench.plan.adopt import Accept, Adopted, adopt
from gradience.bench.plan.costs import Shapes, adapted
from gradience.bench.plan.fingerprints import determinants, open_model
from gradience.bench.plan.trials import plan
from gradience.bench.records import Bench
from gradience.bench.settings import BenchSettings, Device
from gradience.bench.tasks import TASKS
from gradience.configs.problems import meant
from gradience.errors import UsageError

_BINARY = ("accuracy", "exact_match", "acc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A bench, ready to run.

    Attributes
    ----------
    bench : Bench
    shapes : Shapes
        Of the weights that the adapter changes.
    items : int
        Test items of a trial, after the limit.
    refused : mapping of str to str
        Results of other code or versions that are not used: id to what differs.
    """

    bench: Bench
    shapes: Shapes
    items: int
    refused: Mapping[str, str]


def prepare(
    settings: BenchSettings,
    root: Path,
    *,
    accept: Collection[Accept] = (),
    environ: Mapping[str, str] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Prepared:
    """Fingerprint what a bench depends on and plan its trials; writes nothing.

    Raises
    ------
    BaseModelError
        If the base model cannot be opened.
    UsageError
        If the adapter would change no weight of it.
    MissingExtraError
        If a library that trains is not installed.
    """
    device = device_of(settings, os.environ if environ is None else environ)
    settings, facts = determinants(settings, device=device, progress=progress)
    ledger = Ledger(root)
    known = ledger.known()
    found: Adopted = adopt(plan(settings, facts), ledger.done(tuple(known.values())), accept)
    return Prepared(
        bench=Bench(settings=settings, trials=found.trials, accepted=found.accepted),
        shapes=_shapes(settings),
        items=items_of(settings),
        refused=found.refused,
    )


def device_of(settings: BenchSettings, environ: Mapping[str, str]) -> Device:
    """The kind of device that was asked for, or that is here."""
    return settings.executor.device or ("cuda" if visible_gpus(environ) else "cpu")


def slots_of(settings: BenchSettings, environ: Mapping[str, str]) -> int:
    """Trials at once, as far as can be told without opening the executor."""
    executor = settings.executor
    return executor.workers or EXECUTORS[executor.name].expected(environ)


def is_binary(settings: BenchSettings) -> bool:
    """Whether an item is right or wrong, as far as the name of the score tells."""
    return TASKS[settings.task.name].metric(settings.task) in _BINARY


def items_of(settings: BenchSettings) -> int:
    """Test items of a trial, after the limit."""
    found = TASKS[settings.task.name].test_items(settings.task)
    limit = settings.evaluation.limit
    return found if limit is None else min(found, limit)


def _shapes(settings: BenchSettings) -> Shapes:
    """The weights that the adapter changes; none is a mistake that training would find late."""
    with open_model(settings.model) as base:
        shapes = adapted(settings.lora, base.tensors)
        whole = not base.absent
        modules = {name.removesuffix(".weight").rpartition(".")[2] for name in base.tensors}
    if shapes.modules or not whole:
        return shapes
    targets = settings.lora.targets
    hint = meant(targets if isinstance(targets, str) else targets[0], sorted(modules))
    raise UsageError(
        f"$.lora.targets: {targets!r} names no weight of {settings.model.id}",
        remedy=hint[:1].upper() + hint[1:],
    )
