"""What is judged, and what is found."""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gradience.adapter.config import AdapterConfig
from gradience.findings import Catalogue, Finding, FindingKind, Severity

SCHEMA = "gradience.check/v1"

CHECK = Catalogue()
"""Every kind that `gradience check` can report, by code."""

SOURCES: dict[str, str] = {}
"""Where each kind is from: a paper, a manual, a measurement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A configuration, as far as it was given; a rule is silent about what is not there.

    Attributes
    ----------
    adapter : AdapterConfig or None
    training : mapping
        Under the names of transformers' TrainingArguments; only what was written down.
    written : mapping
        The name under which the user wrote each of the training arguments.
    ignored : mapping
        Keys that are of no known configuration, each with the one that was meant, or "".
    """

    adapter: AdapterConfig | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    written: Mapping[str, str] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)

    def number(self, name: str) -> float | None:
        """A finite number among the training arguments; None where there is none."""
        value = self.training.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if abs(value) <= sys.float_info.max else None


Rules = Callable[[Setup], Iterator[Finding]]
"""One family of rules."""


class Judged(Finding, frozen=True, kw_only=True, omit_defaults=True):
    """A finding about a configuration, with where the rule is from."""

    source: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `gradience check` says.

    Attributes
    ----------
    paths : tuple of str
        What was read.
    judged : tuple of str
        The parts that were there: `adapter`, `training`.
    ignored : tuple of str
        Keys that no rule could judge, for nobody is known to read them.
    """

    paths: tuple[str, ...]
    judged: tuple[str, ...]
    findings: tuple[Judged, ...]
    ignored: tuple[str, ...] = ()


def kind(code: str, severity: Severity, meaning: str, remedy: str, *, source: str) -> FindingKind:
    """Register a kind with its source."""
    SOURCES[code] = source
    return CHECK.add(code, severity, meaning, remedy)
