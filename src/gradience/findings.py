"""A finding: one thing worth telling the user, under a stable code.

Codes are part of the interface: `--fail-on CODE` and people's CI depend on them. The table below
is the only place where a code, its severity and its remedy are written; the reference page and
`--fail-on`'s help are made from it.
"""

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from gradience.errors import UsageError

NEVER = "never"
"""The value of `--fail-on` that asks for nothing, where another is the default."""


class Severity(StrEnum):
    """How much a finding matters; the order of definition is the order of weight."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def weight(self) -> int:
        """0 for info, 1 for warning, 2 for error."""
        return list(Severity).index(self)


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing worth telling the user.

    Attributes
    ----------
    code : str
        Stable name, listed in `docs/findings.md`.
    severity : Severity
    message : str
        What was found, with names and numbers.
    remedy : str
        What to do about it.
    modules : tuple of str
        The modules concerned, when it concerns some and not all.
    """

    code: str
    severity: Severity
    message: str
    remedy: str
    modules: tuple[str, ...] = ()


class FindingKind(msgspec.Struct, frozen=True, kw_only=True):
    """What a code means, how severe it is, and what helps."""

    code: str
    severity: Severity
    meaning: str
    remedy: str

    def found(self, message: str, *, modules: Iterable[str] = (), remedy: str = "") -> Finding:
        """Make a finding of this kind; `remedy` overrides the general one where more is known."""
        return Finding(
            code=self.code,
            severity=self.severity,
            message=message,
            remedy=remedy or self.remedy,
            modules=tuple(modules),
        )


class Catalogue(dict[str, FindingKind]):
    """The kinds of finding of one part of Gradience, by code."""

    def add(self, code: str, severity: Severity, meaning: str, remedy: str) -> FindingKind:
        """Register a kind and return it; a code is registered once."""
        if code in self:
            raise ValueError(f"the code {code!r} is registered already")
        self[code] = FindingKind(code=code, severity=severity, meaning=meaning, remedy=remedy)
        return self[code]


def by_weight(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The gravest first; the order of equals is kept."""
    return tuple(sorted(findings, key=lambda f: -f.severity.weight))


def check_fail_on(asked: Iterable[str], known: Iterable[str], *, page: str) -> None:
    """Refuse a `--fail-on` value that is no severity, no known code and not `never`.

    `page` is the one that lists them.

    Raises
    ------
    UsageError
        Names the value, and the known ones near it, or else all.
    """
    allowed = [*Severity, NEVER, *known]
    for value in asked:
        if value not in allowed:
            from difflib import get_close_matches  # noqa: PLC0415 - only for a message

            close = get_close_matches(value, allowed, n=3)
            listed = f"One of {', '.join(allowed)}; {page} says what each means."
            raise UsageError(
                f"--fail-on {value}: neither a severity nor a finding code",
                remedy=f"Did you mean {' or '.join(close)}?" if close else listed,
            )


def failing(findings: Iterable[Finding], fail_on: Iterable[str]) -> tuple[Finding, ...]:
    """The findings that `--fail-on` asks to fail on: a code, or a severity and all above it."""
    asked = set(fail_on)
    floor = min((Severity(a).weight for a in asked if a in list(Severity)), default=None)
    return tuple(
        f for f in findings if f.code in asked or (floor is not None and f.severity.weight >= floor)
    )
