"""Keys that nobody reads, because another was meant."""

from collections.abc import Iterator

from gradience.check.finding_kinds import KEY_MISTYPED
from gradience.check.records import Setup
from gradience.findings import Finding


def keys(setup: Setup) -> Iterator[Finding]:
    """A finding for each key that is nearly another."""
    for key, meant in setup.ignored.items():
        if meant:
            yield KEY_MISTYPED.found(f"{key} is read by nobody; did you mean {meant}?")
