"""A plan from a file, made again from what is there now.

The file is believed in two things alone: which things are to go, and what was found at each name
when the plan was made. What these are called, what protects them, under whose lock and in which
order they go comes from the caches as they are now. So what is shown before it is carried out is
what will be done, whatever the words of the file say, and a name that is no part of the thing it
was listed under stays where it is.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from gradience.storage.change.candidates import Candidate, candidates
from gradience.storage.change.choose import Key, Rule
from gradience.storage.change.records import Action, Kept, Plan, text_of, units
from gradience.storage.inventory.take import Survey

_Words = tuple[str, str, str, str]  # root, kind, name, what: which thing is meant


def rules(planned: Plan, survey: Survey) -> tuple[Rule, ...]:
    """Rules that ask for the very things that a plan lists, and overrule what its maker did."""
    lifted: dict[_Words, tuple[str, ...]] = {}
    for action in planned.actions:
        item = planned.items[action.item]
        lifted[action.root, item.kind, item.name, item.what] = item.lifted
    marked: dict[tuple[str, ...], set[Key]] = defaultdict(set)
    for candidate in candidates(survey, planned.min_age):
        words = _words(candidate, survey)
        if words in lifted:
            marked[lifted[words]].add(candidate.key)
    return tuple(
        Rule(marked=frozenset(keys), mark="in the plan", lifts=lifts)
        for lifts, keys in marked.items()
    )


def _words(candidate: Candidate, survey: Survey) -> _Words:
    root = survey.looks[candidate.cache].tree.path
    return text_of(root), candidate.kind, text_of(candidate.name), candidate.what


def renewed(planned: Plan, now: Plan) -> Plan:
    """Of a plan made now, the acts that the plan from a file has too, if all is as it was then.

    Parameters
    ----------
    planned : Plan
        From the file.
    now : Plan
        Made of the same things a moment ago.
    """
    then = {_act(action): action.fingerprint for action in planned.actions}
    both = [
        now.actions[index]
        for unit in units(now.actions)
        if all(_act(now.actions[index]) in then for index in unit)
        for index in unit
    ]
    number = {item: at for at, item in enumerate(sorted({action.item for action in both}))}
    actions = tuple(
        msgspec.structs.replace(a, item=number[a.item], fingerprint=then[_act(a)]) for a in both
    )
    return msgspec.structs.replace(
        now,
        id=planned.id,
        items=tuple(now.items[item] for item in number),
        actions=actions,
        kept=(*now.kept, *_left(planned, actions, now.kept)),
        frees_bytes=sum(action.frees_bytes for action in actions),
    )


def _act(action: Action) -> tuple[str, str, str, str]:
    """What is done to which name."""
    return action.verb, action.root, action.path, action.target


def _left(planned: Plan, actions: Sequence[Action], known: Sequence[Kept]) -> Iterator[Kept]:
    """Names that stay, by item; those of which a reason is `known` already are not told again."""
    done = {_act(action) for action in actions}
    told = {(kept.kind, kept.name, kept.what) for kept in known}
    stay: dict[int, list[Action]] = defaultdict(list)
    for action in planned.actions:
        item = planned.items[action.item]
        if _act(action) not in done and (item.kind, item.name, item.what) not in told:
            stay[action.item].append(action)
    for acts in stay.values():
        # Named by the act: the words of the file may say anything.
        more = f" and {len(acts) - 1} more of the plan" if len(acts) > 1 else ""
        yield Kept(
            name=f"{acts[0].where}{more}",
            kind="file",
            what="name",
            code="changed",
            why="gone, changed or used by now, or no part of what the plan lists it under",
            bytes=sum(action.frees_bytes for action in acts),
        )
