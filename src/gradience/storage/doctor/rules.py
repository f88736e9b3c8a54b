"""The rules of the doctor: facts in, findings out. Pure.

A rule is a function from facts to findings; adding one is a function and a line here.
"""

import re
from collections.abc import Callable, Iterator, Sequence

import msgspec

from gradience.findings import Finding, by_weight
from gradience.storage.doctor import finding_kinds as kinds
from gradience.storage.doctor import (
    rules_contents,
    rules_places,
    rules_program,
    rules_rights,
    rules_variables,
)
from gradience.storage.doctor.facts import Facts
from gradience.storage.doctor.questions import ARROW, MODELS, QUESTIONS, TORCH_HUB
from gradience.storage.doctor.values import export, gone, quoted

Rule = Callable[[Facts], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    rules_places.space,
    rules_places.small_disk,
    rules_places.memory,
    rules_places.temporary_missing,
    rules_contents.leftovers,
    rules_contents.unfinished,
    rules_contents.dead_runs,
    rules_contents.idle_locks,
    rules_rights.unwritable,
    rules_rights.foreign,
    rules_rights.group_sharing,
    rules_rights.umask,
    rules_places.no_exec,
    rules_contents.unreadable,
    rules_program.after_import,
    rules_program.places,
    rules_variables.values,
    rules_variables.unread,
    rules_variables.older_names,
    rules_variables.profiles,
    rules_variables.xet_disabled,
    rules_variables.login_lost,
    rules_contents.duplicates,
    rules_contents.left_behind,
    rules_contents.others_left_behind,
    rules_contents.generations,
    rules_places.locks,
    rules_contents.broken_weights,
    rules_contents.broken_checkpoints,
    rules_contents.broken_repos,
    rules_rights.token,
    rules_variables.libraries,
    rules_program.missing,
    rules_program.not_read,
)


_BRINGING = frozenset(kind.code for kind in (kinds.DUPLICATE, kinds.SECOND_CACHE))
"""Their mends bring content into a cache in use."""
_NAMES = "|".join(
    name
    for library, purpose in (("huggingface_hub", MODELS), ("datasets", ARROW), ("torch", TORCH_HUB))
    for name, _ in QUESTIONS[library].variables[purpose]
)
_POINTING = re.compile(rf"\b(?:export|unset) [^;&#]*\b(?:{_NAMES})\b")
"""In a mend that may make another cache the one in use."""
_BRINGS = re.compile(r"\bgradience cache (?:move|merge) ([^;&#]*)")


def examine(facts: Facts) -> tuple[Finding, ...]:
    """Every finding of every rule, the gravest first; their mends can all be carried out."""
    found = [finding for rule in RULES for finding in rule(facts)]
    return by_weight(_one_direction(_after_what_was_begun(found, facts), facts))


def _after_what_was_begun(found: Sequence[Finding], facts: Facts) -> list[Finding]:
    """No cache is brought anywhere while a move or a merge of it is unfinished: it would refuse."""
    ends = [each.command for each in facts.unfinished]
    places = [f" {quoted(place)} " for each in facts.unfinished for place in each.places]
    return [
        _later(finding, "gradience doctor  # again, once what was cut off has ended")
        if finding.remedy not in ends and any(place in _brought(finding) for place in places)
        else finding
        for finding in found
    ]


def _brought(finding: Finding) -> str:
    """What a command of its mend brings elsewhere, or into what; between spaces."""
    command = _BRINGS.search(finding.remedy)
    return f" {command[1]} " if command else ""


def _one_direction(found: Sequence[Finding], facts: Facts) -> Iterator[Finding]:
    """Nothing is brought into a cache that a mend of the page points away from."""
    pointing = [f for f in found if _POINTING.search(f.remedy)]
    for finding in found:
        if pointing and finding.code in _BRINGING and finding not in pointing:
            yield _later(
                finding,
                f"{_old_names(facts)}gradience doctor  # again, once the variables above are set: "
                "they decide which cache is used",
            )
        else:
            yield finding


def _later(finding: Finding, remedy: str) -> Finding:
    return msgspec.structs.replace(finding, remedy=remedy)


def _old_names(facts: Facts) -> str:
    """Old names of the hub cache that are set: without them the next page would not look there."""
    named = {n: facts.environ[n] for n, (_, new) in gone(facts).items() if new == "HF_HUB_CACHE"}
    return export(**named).removeprefix("export ") + " " if named else ""
