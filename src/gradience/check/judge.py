"""All rules over one configuration. Pure."""

from collections.abc import Sequence

import msgspec

from gradience.check.records import SOURCES, Judged, Setup, Verdict
from gradience.check.rules import RULES
from gradience.findings import by_weight


def judge(setup: Setup) -> tuple[Judged, ...]:
    """What is wrong with a configuration, the gravest first; each finding with its source.

    Examples
    --------
    >>> [f.code for f in judge(Setup(training={"save_strategy": "no"}))]
    ['never_saves']
    """
    found = [finding for rule in RULES.values() for finding in rule(setup)]
    return tuple(
        Judged(source=SOURCES[f.code], **msgspec.structs.asdict(f)) for f in by_weight(found)
    )


def verdict(setup: Setup, paths: Sequence[str]) -> Verdict:
    """The findings, with what was judged."""
    parts = (("adapter", setup.adapter is not None), ("training", bool(setup.training)))
    return Verdict(
        paths=tuple(paths),
        judged=tuple(name for name, there in parts if there),
        findings=judge(setup),
        ignored=tuple(setup.ignored),
    )
