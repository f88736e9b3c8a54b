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

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gradience.errors import UsageError
from gradience.storage.change.choose import Rule
from gradience.storage.inventory.caches import CACHES
from gradience.units import parse_duration, parse_size

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
    try:
        text = path.read_text(encoding="utf-8")
        found = _parse(path, text)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", remedy="Name a file.") from error
    if found is None:
        raise UsageError(
            f"{path} has no [tool.gradience.cache]",
            remedy="Write the rules there; `gradience cache clean --help` shows an example.",
        )
    try:
        return msgspec.convert(found, Policy)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}", remedy="docs/clean.md lists the keys.") from error


def _parse(path: Path, text: str) -> Any:
    if path.suffix in (".yaml", ".yml"):
        import yaml  # noqa: PLC0415 - huggingface_hub brings it; only for a YAML policy

        try:
            found = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"{path} is not YAML: {error}", remedy="Correct it.") from error
    else:
        try:
            found = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{path} is not TOML: {error}", remedy="Correct it.") from error
    if path.name == "pyproject.toml" or (isinstance(found, Mapping) and "tool" in found):
        for key in ("tool", "gradience", "cache"):
            found = found.get(key) if isinstance(found, Mapping) else None
    return found
