"""What must stay, whatever a rule chooses, each with its reason.

Some reasons a user may overrule who knows better, by `force` or by naming the very thing: that
nothing needs a revision, that another copy exists. What was overruled is noted, and shown with the
plan. What a process has open and what is being downloaded stays all the same.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gradience.storage.change.candidates import FOREIGN, Candidate, downloading, within, young
from gradience.storage.change.choose import Key, Rule
from gradience.storage.change.hub_pieces import Hub
from gradience.storage.change.needs import Needed
from gradience.storage.change.records import LIFTABLE
from gradience.storage.inventory.take import Survey
from gradience.system.holders import Holders

_RECOGNISED = ("hub", "project")
"""Kinds whose own names are like no other; those of the rest (`logs`) may be anybody's."""
Why = tuple[str, str]  # a key of records.KEPT, and a sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known about this machine beside the caches themselves.

    Attributes
    ----------
    holders : Holders
        Which files are in use now.
    needed : mapping
        (name of a repository, commit) to the file that needs it.
    needed_by : sequence of str
        The directories below which such files were looked for.
    min_age : float
        Seconds; what is younger may be somebody's work.
    force : bool
        Overrule everything that can be overruled.
    not_ours : tuple of str
        Directories in which everything else lies too, such as the home directory: a cache is never
        one of them, nor above one.
    """

    holders: Holders
    needed: Needed
    min_age: float
    force: bool = False
    needed_by: Sequence[str] = ()
    not_ours: tuple[str, ...] = ("/",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """What speaks against candidates, by key.

    Attributes
    ----------
    stays : mapping
        Why a candidate must stay.
    lifted : mapping
        What was overruled of a candidate that may go.
    """

    stays: Mapping[Key, Why]
    lifted: Mapping[Key, Sequence[Why]]


def protection(
    survey: Survey,
    hubs: Mapping[int, Hub],
    found: Sequence[Candidate],
    rules: Sequence[Rule],
    facts: Facts,
) -> Protection:
    """What speaks against each candidate; what the Hub has to say is asked later."""
    why: dict[Key, Why] = {}
    lifted: dict[Key, Sequence[Why]] = {}
    in_use = dict(_in_use(hubs, facts.holders))
    under_way = {
        path: damage
        for cache in survey.inventory.caches
        for path, damage in downloading(cache, facts.min_age).items()
    }
    wide = {
        index: place
        for index, cache in enumerate(survey.inventory.caches)
        if cache.kind not in _RECOGNISED
        for place in facts.not_ours
        if within(place, (cache.root.rstrip("/"),)) or cache.root == "/"
    }
    for candidate in found:
        entry = candidate.entry
        if candidate.cache in wide:
            why[candidate.key] = "too_wide", f"{wide[candidate.cache]} lies in that directory"
        elif entry.what == FOREIGN:
            why[candidate.key] = "foreign", entry.how
        elif candidate.repo and candidate.repo in under_way:
            why[candidate.key] = "in_flight", under_way[candidate.repo].message
        elif entry.path in in_use and not candidate.junk:
            why[candidate.key] = "in_use", in_use[entry.path]
        else:
            reasons = list(_soft(candidate, survey, facts))
            over = lifts(candidate, rules, facts)
            stays = next((reason for reason in reasons if reason[0] not in over), None)
            if stays is not None:
                why[candidate.key] = stays
            elif reasons:
                lifted[candidate.key] = reasons
    return Protection(stays=why, lifted=lifted)


def lifts(candidate: Candidate, rules: Sequence[Rule], facts: Facts) -> Collection[str]:
    """The reasons that a user overrules for a candidate: all by force, some by naming it."""
    if facts.force:
        return LIFTABLE
    over = {code for rule in rules if _marked(candidate, rule) for code in rule.lifts}
    if any(candidate.entry.revision.startswith(r) for rule in rules for r in rule.revisions):
        over.add("pinned")
    # Who asks for checkpoints knows that they are the only copy.
    if candidate.entry.recoverable == "lost" and any(candidate.kind in r.kinds for r in rules):
        over.add("only_copy")
    return over


def _in_use(hubs: Mapping[int, Hub], holders: Holders) -> Iterator[tuple[str, str]]:
    """Path of a revision and a sentence, for each that links to a blob in use.

    A blob that two revisions share counts for both: nobody can tell through which it was opened.
    """
    for hub in hubs.values():
        held = {
            hashed: holder.sentence
            for hashed, (file, device) in hub.store.payloads.items()
            if (holder := holders.of_inode(device, file.ino, hashed))
        }
        for repo in hub.repos.values():
            device = repo.directory.dev
            here = {
                name: holder.sentence
                for name, file in repo.blobs.items()
                if (holder := holders.of_inode(device, file.ino, name))
            }
            here |= {name: held[xet] for name, xet in repo.shared.items() if xet in held}
            for revision in repo.revisions if here else ():
                for name in revision.blobs & here.keys():
                    yield revision.directory.path, here[name]


def _soft(candidate: Candidate, survey: Survey, facts: Facts) -> Iterator[Why]:
    """What may be overruled."""
    entry = candidate.entry
    if candidate.junk:
        return
    if young(candidate, survey.looks[candidate.cache], facts.min_age):
        yield "in_flight", "it was used or written a moment ago"
    if file := facts.needed.get((entry.belongs_to, entry.revision)):
        yield "needed", f"{file} names {entry.belongs_to}"
    if entry.recoverable in ("unknown", "lost"):
        yield "only_copy", entry.how
    if entry.what == "revision" and not entry.refs:
        yield "pinned", "no ref names it: a program may have pinned it by its commit"


def _marked(candidate: Candidate, rule: Rule) -> bool:
    return rule.marked is not None and candidate.key in rule.marked
