"""The norms of some weights of a base: recalled where they can be believed, else measured.

What is measured is remembered step by step, so that a run that is stopped goes on where it was.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from gradience.audit.base import cache
from gradience.audit.base.base_norm import BaseNorm
from gradience.audit.base.devices import ON_CPU, Device, DeviceChoice
from gradience.audit.base.measured import Measured, measure
from gradience.audit.base.norms_file import is_of
from gradience.audit.base.norms_only import GivenNorms, NormsOnly
from gradience.audit.base.source import BaseModel
from gradience.audit.base.spectral_norm import DEFAULT_GOAL, Goal
from gradience.audit.base.weights import BaseWeight
from gradience.errors import StorageError
from gradience.findings import Finding

Progress = Callable[[str, int, int], None]
Notice = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """How norms come about.

    Attributes
    ----------
    cache_dir : Path
        Directory where they are remembered; made when missing.
    now : datetime
        Aware; written into the file.
    goal : Goal
        How finely to measure, and how surely.
    devices : DeviceChoice
        Where.
    given : GivenNorms, optional
        Norms of this base from elsewhere, used before any is measured.
    progress : callable, optional
        Told ("base norms", done, total).
    notice : callable, optional
        Told in a sentence what comes over the network.
    """

    cache_dir: Path
    now: datetime
    goal: Goal = DEFAULT_GOAL
    devices: DeviceChoice = ON_CPU
    given: GivenNorms | None = None
    progress: Progress | None = None
    notice: Notice | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """Norms and reasons by key of the weight, how they came about, and what a file did not tell.

    In `replaced` are those that a file told, where the weight itself was measured now.
    """

    norms: dict[str, BaseNorm]
    reasons: dict[str, str]
    findings: tuple[Finding, ...]
    nbytes: int
    not_told: frozenset[str] = frozenset()
    replaced: Mapping[str, BaseNorm] = field(default_factory=dict)


def recalled_or_measured(
    wanted: Mapping[str, BaseWeight],
    base: BaseModel,
    settings: Settings,
    *,
    again: Sequence[BaseWeight] = (),
    to_keep: bool = False,
) -> Known:
    """Recall what can be believed, measure the rest, remember it step by step.

    Parameters
    ----------
    wanted : mapping of str to BaseWeight
        By key.
    base : BaseModel
    settings : Settings
    again : sequence of BaseWeight
        Those that are read once more afterwards, by whoever asks.
    to_keep : bool
        Whether they are wanted for later: then a norm that a file told, and nobody checked, is
        measured, and a cache that cannot be written ends the work.

    Raises
    ------
    DownloadRefusedError
        If more would come over the network than may.
    StorageError
        If what is to be kept cannot be.
    """
    identity = identity_of(base)
    path = cache.entry_path(settings.cache_dir, identity)
    recalled = _with_given(cache.recall(path, identity, wanted.values()), wanted, settings.given)
    goal = settings.goal
    told = _told(recalled.norms, wanted) if to_keep else {}
    todo = [
        w
        for w in wanted.values()
        if w.key in told or not recalled.serves(w, width=goal.width, eta=goal.eta)
    ]
    norms, reasons = dict(recalled.norms), dict(recalled.reasons)
    if isinstance(base, NormsOnly):
        # Only where no weight can be looked at is a file believed that one has no norm.
        reasons = (settings.given.content.unmeasurable if settings.given else {}) | reasons
        missing = {
            w.key: f"{base.source} has no norm of {w.key}" for w in todo if w.key not in reasons
        }
        return Known(norms, missing | reasons, (), 0, not_told=frozenset(missing.keys() - norms))
    plan = _plan(todo, base, settings, again)
    refused: Finding | None = None
    nbytes = 0
    for measured in _measured(plan, base, settings, even_if_empty=bool(recalled.doubts)):
        nbytes += measured.nbytes
        norms = {k: n for k, n in norms.items() if k not in measured.reasons} | measured.norms
        reasons |= measured.reasons
        # A disk that refused once is not asked again.
        refused = refused or cache.remember(
            path,
            identity,
            measured.norms,
            measured.reasons,
            # A file may have told a norm of a weight that has none.
            forget=recalled.distrusted | measured.reasons.keys(),
            now=settings.now,
        )
        if refused and to_keep:
            raise StorageError(refused.message, remedy=refused.remedy)
    doubt = cache.corrupt(path, recalled.doubts) if recalled.doubts else None
    findings = tuple(f for f in (doubt, refused) if f is not None)
    return Known(norms, reasons, findings, nbytes, replaced=told)


def _told(norms: Mapping[str, BaseNorm], wanted: Mapping[str, BaseWeight]) -> dict[str, BaseNorm]:
    """Norms of these weights that stand on the word of a file."""
    return {key: norms[key] for key in wanted if key in norms and norms[key].told_by}


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is measured, in which order, where, and after how many numbers it is remembered."""

    todo: Sequence[BaseWeight]
    device: Device
    least: int


def _plan(
    todo: Sequence[BaseWeight], base: BaseModel, settings: Settings, again: Sequence[BaseWeight]
) -> _Plan:
    """Choose the device and the order, and say what will come over the network."""
    total = sum(map(_numbers, todo))
    device = settings.devices.device(total)
    todo = device.order(todo)
    expected = base.expect([*todo, *again])
    if expected and settings.notice:
        settings.notice(expected)
    # The file is written as a whole each time: two hundred times at most, however large the base.
    # What came over a network may have taken minutes: a stop loses a thousandth of the work.
    least = total // 1000 if expected else max(device.step_numbers, total // 200)
    return _Plan(todo, device, least)


def _measured(
    plan: _Plan, base: BaseModel, settings: Settings, *, even_if_empty: bool
) -> Iterator[Measured]:
    """The norms, a step at a time; of files that were written to meanwhile there are none."""
    done = 0
    for step in _steps(plan.todo, plan.least, even_if_empty=even_if_empty):

        def tell(count: int, before: int = done) -> None:
            if settings.progress:
                settings.progress("base norms", before + count, len(plan.todo))

        measured = measure(base, step, goal=settings.goal, device=plan.device, done=tell)
        base.check_same()
        done += len(step)
        yield measured


def _with_given(
    recalled: cache.Recalled, wanted: Mapping[str, BaseWeight], given: GivenNorms | None
) -> cache.Recalled:
    """What is remembered, and the norms that were brought along where they are better."""
    if given is None:
        return recalled
    fitting = {
        key: norm for key, norm in given.norms.items() if key in wanted and is_of(norm, wanted[key])
    }
    return replace(recalled, norms={**recalled.norms, **cache.better(fitting, recalled.norms)})


def identity_of(base: BaseModel) -> cache.Identity:
    """Under what the norms of a base model are kept."""
    return cache.Identity(
        model=base.name,
        revision=base.revision,
        fingerprint=base.fingerprint,
        tensors=base.tensors,
        tied=base.tied,
        refused=base.refused,
        aliases=base.aliases,
    )


def _numbers(weight: BaseWeight) -> int:
    return weight.stored_shape[0] * weight.stored_shape[1]


def _steps(
    todo: Iterable[BaseWeight], least: int, *, even_if_empty: bool
) -> Iterator[list[BaseWeight]]:
    """The weights in portions of at least so many numbers, each remembered once it is measured."""
    step: list[BaseWeight] = []
    numbers = 0
    for weight in todo:
        step.append(weight)
        numbers += _numbers(weight)
        if numbers >= least:
            yield step
            step, numbers, even_if_empty = [], 0, False
    if step or even_if_empty:
        yield step
