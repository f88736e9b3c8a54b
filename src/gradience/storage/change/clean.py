"""Plan a cleaning: choose, leave out what must stay, choose again where a budget is not met yet."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from gradience.storage.change import build, mounts
from gradience.storage.change.candidates import JUNK, Candidate, candidates, hubs
from gradience.storage.change.choose import Choice, Key, Rule, Space, choose, fitting
from gradience.storage.change.hub_pieces import Hub
from gradience.storage.change.ledger import Ledger
from gradience.storage.change.protect import Facts, Why, lifts, protection
from gradience.storage.change.records import Action, Item, Kept, Plan, path_of, text_of
from gradience.storage.change.remote import WORDS, Fate, Revision
from gradience.storage.inventory.report import counted
from gradience.storage.inventory.selection import settled
from gradience.storage.inventory.take import Survey
from gradience.units import plural

Ask = Callable[[Iterable[Revision]], Mapping[Revision, Fate]]

_ROUNDS = 8


def plan_clean(
    survey: Survey,
    rules: Sequence[Rule],
    facts: Facts,
    *,
    change: str,
    free: Mapping[int, int],
    ask: Ask,
    verb: str = "delete",
    notes: Sequence[str] = (),
) -> Plan:
    """Choose what goes, and say of everything that was asked for why it does or does not.

    Parameters
    ----------
    change : str
        The plan's id.
    free : mapping of int to int
        Bytes that can still be written, by device.
    ask : callable
        Asks the Hub whether it would give revisions back: `remote.fates`.
    verb : str
        "delete" or "trash".
    """
    planner = _Planner(survey, rules, facts, free=free, ask=ask, verb=verb)
    choices, actions = planner.settle()
    return Plan(
        id=change,
        title="clean",
        made=survey.inventory.made,
        items=tuple(planner.item(choice) for choice in choices),
        actions=tuple(actions),
        kept=tuple(planner.kept()),
        notes=(*notes, *planner.notes(actions)),
        frees_bytes=sum(action.frees_bytes for action in actions),
        min_age=facts.min_age,
        needed_by=tuple(map(text_of, facts.needed_by)),
    )


class _Planner:
    def __init__(
        self,
        survey: Survey,
        rules: Sequence[Rule],
        facts: Facts,
        *,
        free: Mapping[int, int],
        ask: Ask,
        verb: str,
    ) -> None:
        self.survey = survey
        self.rules = rules
        self.facts = facts
        self.ask = ask
        self.verb = verb
        caches = survey.inventory.caches
        self.hubs: Mapping[int, Hub] = hubs(survey)
        self.found = candidates(survey, facts.min_age)
        found = protection(survey, self.hubs, self.found, rules, facts)
        self.why: dict[Key, Why] = dict(found.stays)
        self.lifted = found.lifted
        self.fates: dict[Revision, Fate] = {}
        self.by_policy: dict[Key, Candidate] = {}
        self.space = Space(
            now=survey.inventory.made,
            taken={i: cache.physical_bytes for i, cache in enumerate(caches)},
            kind={i: cache.kind for i, cache in enumerate(caches)},
            disk={i: cache.device for i, cache in enumerate(caches)},
            free=free,
        )

    def settle(self) -> tuple[list[Choice], list[Action]]:
        """Choose until nothing that was chosen turns out to have to stay."""
        for _ in range(_ROUNDS):
            choices, held = choose(
                self.found,
                self.rules,
                self.space,
                lambda: Ledger(self.hubs),
                kept=self.why.keys(),
            )
            self.by_policy |= {candidate.key: candidate for candidate in held}
            lost = self._last_copies(choices)
            choices = [c for c in choices if c.candidate.key not in lost]
            actions, refused = build.actions(
                self.survey,
                self.hubs,
                choices,
                verb=self.verb,
                holders=self.facts.holders,
                min_age=self.facts.min_age,
            )
            if not lost and not refused:
                break
            self.why |= lost | refused
        return choices, actions

    def _last_copies(self, choices: Sequence[Choice]) -> dict[Key, Why]:
        """Revisions that the Hub would not give back to everybody, and must stay."""
        asked = [c.candidate for c in choices if _is_remote(c.candidate)]
        new = [r for r in map(_revision, asked) if r not in self.fates]
        self.fates |= self.ask(new)
        return {
            candidate.key: why
            for candidate in asked
            for why in self._last_copy(candidate)
            if "last_copy" not in lifts(candidate, self.rules, self.facts)
        }

    def _last_copy(self, candidate: Candidate) -> Iterator[Why]:
        """What the Hub has to say; what could not be asked is a note."""
        if _is_remote(candidate):
            fate = self.fates[_revision(candidate)]
            if fate not in ("served", "unknown"):
                yield "last_copy", WORDS[fate]

    def item(self, choice: Choice) -> Item:
        """A choice as the plan shows it."""
        candidate = choice.candidate
        entry = candidate.entry
        lifted = [*self.lifted.get(candidate.key, ()), *self._last_copy(candidate)]
        counts = _counted(candidate)
        return Item(
            name=text_of(candidate.name),
            kind=candidate.kind,
            what=candidate.what,
            reasons=counts or choice.reasons,
            how="" if candidate.junk else entry.how,
            last_used=entry.last_used,
            warnings=tuple(text_of(why) for _, why in lifted),
            lifted=tuple(code for code, _ in lifted),
        )

    def kept(self) -> list[Kept]:
        """What the rules asked for and does not go, the largest first."""
        asked = fitting(self.found, self.rules, self.space.now)
        reasons = dict.fromkeys(self.by_policy, ("policy", "a rule keeps it")) | self.why
        found = [
            Kept(
                name=text_of(candidate.name),
                kind=candidate.kind,
                what=candidate.what,
                code=reasons[candidate.key][0],
                why=text_of(reasons[candidate.key][1]),
                bytes=candidate.frees_bytes,
            )
            for candidate in asked
            if candidate.key in reasons
        ]
        found += self._unlisted()
        return sorted(found, key=lambda kept: (-kept.bytes, kept.name))

    def _unlisted(self) -> list[Kept]:
        """Damage that nobody may remove."""
        return [
            Kept(
                name=text_of(entry.name),
                kind=entry.kind,
                what=entry.what,
                code="unlisted" if damage.code == "no_manifest" else "unknown_layout",
                why=text_of(damage.message),
                bytes=damage.physical_bytes,
            )
            for cache in self.survey.inventory.caches
            for entry in cache.entries
            for damage in entry.damage
            if damage.code in ("no_manifest", "unknown_layout")
        ]

    def notes(self, actions: Sequence[Action]) -> list[str]:
        """What could not be found out, and what is too young to tell."""
        found = []
        if young := self._unsettled():
            found.append(
                f"Left alone: {plural(young, 'part')} of downloads and builds that may go on. "
                "--min-age says what is young; where no lock tells, a day is."
            )
        unknown = sum(fate == "unknown" for fate in self.fates.values())
        if unknown:
            which = "one revision" if unknown == 1 else f"{unknown} revisions"
            found.append(
                f"The Hub was not asked about {which}: that it would give them back is not certain."
            )
        roots = {action.root for action in actions}
        unseen = self.facts.holders.unseen
        if unseen and any(mounts.is_open_to_others(path_of(root)) for root in roots):
            found.append(
                f"{plural(unseen, 'process', 'processes')} could not be looked at: what is open "
                "there is not known."
            )
        return found

    def _unsettled(self) -> int:
        """How much of what rules ask for is too young, or held, to be called junk."""
        kinds = {kind for rule in self.rules for kind in rule.kinds}
        return sum(
            damage.code in JUNK and not settled(damage, self.facts.min_age)
            for cache in self.survey.inventory.caches
            if not kinds or cache.kind in kinds
            for entry in cache.entries
            for damage in entry.damage
        )


def _is_remote(candidate: Candidate) -> bool:
    return candidate.entry.what == "revision" and not candidate.junk


def _revision(candidate: Candidate) -> Revision:
    entry = candidate.entry
    return entry.repo_type, entry.belongs_to, entry.revision


def _counted(candidate: Candidate) -> tuple[str, ...]:
    """How much junk of which sort."""
    counts = Counter(damage.code for damage in candidate.junk)
    return tuple(counted(code, number) for code, number in counts.most_common())
