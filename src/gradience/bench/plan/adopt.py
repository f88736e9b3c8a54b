"""Results of other code or other versions, used again on demand. Pure.

A new release must not throw away a week of GPU time, and two environments must not be mixed unseen:
so such results are counted and named, used only when asked for, and every report says which.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Literal

import msgspec

from gradience.bench.plan.trials import content_key, trial_id
from gradience.bench.records import Trial, TrialSpec

Accept = Literal["code", "versions"]


class Adopted(msgspec.Struct, frozen=True, kw_only=True):
    """A plan, seen beside what other environments left.

    Attributes
    ----------
    trials : tuple of Trial
        The plan, with the ids of accepted results in the place of its own.
    accepted : dict of str to str
        Id of an accepted result to what differs, in words.
    refused : dict of str to str
        Likewise, for results that were not asked for.
    """

    trials: tuple[Trial, ...]
    accepted: dict[str, str]
    refused: dict[str, str]


def adopt(
    trials: Iterable[Trial], done: Iterable[Trial], accept: Collection[Accept] = ()
) -> Adopted:
    """Take the results of other environments where the plan has none of its own.

    Parameters
    ----------
    trials : iterable of Trial
        The plan, a probe before what needs it.
    done : iterable of Trial
        Every trial with a result, of whatever plan.
    accept : collection of str
        What may differ: `code`, `versions`.
    """
    ids = set()
    others: dict[str, list[Trial]] = {}
    for trial in done:
        ids.add(trial.id)
        others.setdefault(content_key(trial.spec), []).append(trial)
    renamed: dict[str, str] = {}
    planned: list[Trial] = []
    accepted: dict[str, str] = {}
    refused: dict[str, str] = {}
    for trial in trials:
        needs = tuple(renamed.get(need, need) for need in trial.needs)
        own = trial.id if needs == trial.needs else trial_id(trial.spec, needs)
        other = None if own in ids else _best(trial.spec, needs, others, accept)
        if other is not None and _allowed(trial.spec, other.spec, accept):
            accepted[other.id] = _told(trial.spec, other.spec)
            own = other.id
        elif own not in ids:
            for found in others.get(content_key(trial.spec), []):
                refused[found.id] = _told(trial.spec, found.spec)
        renamed[trial.id] = own
        planned.append(Trial(id=own, spec=trial.spec, needs=needs))
    return Adopted(trials=tuple(planned), accepted=accepted, refused=refused)


def _best(
    spec: TrialSpec,
    needs: tuple[str, ...],
    others: dict[str, list[Trial]],
    accept: Collection[Accept],
) -> Trial | None:
    """A result that may be accepted, and was made from the probe that this plan uses."""
    fitting = (t for t in others.get(content_key(spec), []) if t.needs == needs)
    return next((t for t in fitting if _allowed(spec, t.spec, accept)), None)


def _allowed(mine: TrialSpec, theirs: TrialSpec, accept: Collection[Accept]) -> bool:
    return (mine.code == theirs.code or "code" in accept) and (
        mine.versions == theirs.versions or "versions" in accept
    )


def _told(mine: TrialSpec, theirs: TrialSpec) -> str:
    return differing(mine.versions, theirs.versions, code=mine.code != theirs.code)


def differing(mine: Mapping[str, str], theirs: Mapping[str, str], *, code: bool) -> str:
    """What differs between two environments, in words.

    Examples
    --------
    >>> differing({"torch": "2.6"}, {"torch": "2.5"}, code=True)
    'torch 2.5 (now 2.6), code of Gradience'
    """
    told = [
        f"{name} {theirs.get(name, 'none')} (now {mine.get(name, 'none')})"
        for name in sorted({*mine, *theirs})
        if mine.get(name) != theirs.get(name)
    ]
    return ", ".join(told + (["code of Gradience"] if code else []))
