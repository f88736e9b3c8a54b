"""Rules for cleaning without anybody watching, from a file: an ordered list.

`[tool.gradience.cache]` of a pyproject.toml, a TOML file, or YAML:

    [tool.gradience.cache]
    min-age = "1h"

    [[tool.gradience.cache.rules]]
    names = ["meta-llama/*"]
    keep = true

    [[tool.gradience.cache.rules]]
    kinds = ["hub"]
    idle = "30d"
    min-free = "100GB"
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from gradience.configs.document import Document
from gradience.configs.read import as_record, read_mapping
from gradience.errors import UsageError
from gradience.storage.change.choose import Rule
from gradience.storage.inventory.caches import CACHES
from gradience.units import parse_duration, parse_size

_REMEDY = "`gradience cache clean --help` shows a policy; docs/clean.md lists the keys."

DEFAULT_MIN_AGE = "15m"


class PolicyRule(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"
):
    """One rule as it is written; see `choose.Rule`."""

    names: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    idle: str | None = None
    larger: str | None = None
    keep_last: int | None = None
    max_size: str | None = None
    min_free: str | None = None
    junk: bool = True
    keep: bool = False

    def rule(self) -> Rule:
        """With sizes and durations as numbers.

        Raises
        ------
        UsageError
            If one of them is not one, or a kind of cache is not known.
        """
        for kind in self.kinds:
            CACHES[kind]
        return Rule(
            names=self.names,
            kinds=self.kinds,
            idle=parse_duration(self.idle) if self.idle is not None else None,
            at_least=parse_size(self.larger) if self.larger is not None else 0,
            keep_last=self.keep_last,
            max_size=parse_size(self.max_size) if self.max_size is not None else None,
            min_free=parse_size(self.min_free) if self.min_free is not None else None,
            junk=self.junk,
            keep=self.keep,
        )


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """A policy file."""

    rules: tuple[PolicyRule, ...]
    min_age: str = DEFAULT_MIN_AGE


def read_policy(path: Path) -> Policy:
    """Read a policy.

    Raises
    ------
    UsageError
        If the file cannot be read, is not TOML or YAML, has no policy, or a key that is not known.
    """
    document = read_mapping(path, remedy=_REMEDY)
    if path.name == "pyproject.toml" or "tool" in document.data:
        found = document.data
        for key in ("tool", "gradience", "cache"):
            found = found.get(key) if isinstance(found, Mapping) else None
        if found is None:
            raise UsageError(f"{path} has no [tool.gradience.cache]", remedy=_REMEDY)
        document = Document(found)
    return as_record(document, Policy, source=str(path), remedy=_REMEDY)
