"""The rules of the doctor: facts in, findings out. Pure.

A rule is a function from facts to findings; adding one is a function and a line here.
"""

from collections.abc import Callable, Iterator

from gradience.findings import Finding, by_weight
from gradience.storage.doctor import (
    rules_contents,
    rules_places,
    rules_program,
    rules_rights,
    rules_variables,
)
from gradience.storage.doctor.facts import Facts

Rule = Callable[[Facts], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    rules_places.space,
    rules_places.small_disk,
    rules_places.memory,
    rules_places.temporary_missing,
    rules_contents.leftovers,
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


def examine(facts: Facts) -> tuple[Finding, ...]:
    """Every finding of every rule, the gravest first."""
    return by_weight(finding for rule in RULES for finding in rule(facts))
