"""What a variable's value means, and which variable decides a path. Pure helpers of the rules."""

import posixpath
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from gradience.storage.doctor.facts import Facts, Use

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
TRUE = frozenset({"1", "on", "yes", "true"})


def version_of(text: str | None) -> tuple[int, ...]:
    """The leading numbers of a version; empty for none.

    Examples
    --------
    >>> version_of("2.13.0+cpu"), version_of("1.0.0rc1") >= (1, 0), version_of(None)
    ((2, 13, 0), True, ())
    """
    match = re.match(r"\d+(?:\.\d+)*", text or "")
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def expanded(value: str, environ: Mapping[str, str], home: Path) -> str:
    """The value with a leading `~` and known `$VAR` expanded, as a shell would have done.

    Examples
    --------
    >>> expanded("$SCRATCH/hf", {"SCRATCH": "/scratch/me"}, Path("/home/me"))
    '/scratch/me/hf'
    >>> expanded("~/hf", {}, Path("/home/me")), expanded("$NO/hf", {}, Path("/home/me"))
    ('/home/me/hf', '$NO/hf')
    """
    if value == "~" or value.startswith("~/"):
        value = str(home) + value[1:]
    return _VARIABLE.sub(lambda m: environ.get(m[1] or m[2], m[0]), value)


def meant(value: str, facts: Facts) -> str | None:
    """The absolute path that a user means by a value; None where a `$VAR` of it is not set."""
    text = expanded(value, facts.environ, facts.home)
    return None if _VARIABLE.search(text) else posixpath.normpath(posixpath.join(facts.cwd, text))


def is_literal(value: str) -> bool:
    """The value holds a `~` or `$VAR` that someone has yet to expand."""
    return value == "~" or value.startswith("~/") or _VARIABLE.search(value) is not None


def deciding(use: Use, facts: Facts, ignored: Iterable[str] = ()) -> tuple[str, str] | None:
    """The strongest variable that is set and decides a path, with what is appended to it."""
    skipped = set(ignored)
    return next(
        (
            (name, rest)
            for name, rest in use.variables
            if name in facts.environ and name not in skipped
        ),
        None,
    )


def below(value: str, rest: str) -> str:
    """A path below a value, normalised.

    Examples
    --------
    >>> below("/x", "hub"), below("/x/", "")
    ('/x/hub', '/x')
    """
    return posixpath.normpath(posixpath.join(value, rest) if rest else value)


def export(**values: str) -> str:
    """A command that sets variables.

    Examples
    --------
    >>> export(HF_HOME="/data/my cache")
    "export HF_HOME='/data/my cache'"
    """
    return "export " + " ".join(f"{name}={shlex.quote(v)}" for name, v in values.items())


def quoted(*paths: Path | str) -> str:
    """Paths for a shell, separated by spaces."""
    return " ".join(shlex.quote(str(path)) for path in paths)


def listed(items: Iterable[str], limit: int = 4) -> str:
    """Some of many, in words.

    Examples
    --------
    >>> listed("abcdef"), listed("ab")
    ('a, b, c, d and 2 more', 'a, b')
    """
    all_items = list(dict.fromkeys(items))
    more = len(all_items) - limit
    return ", ".join(all_items[:limit]) + (f" and {more} more" if more > 0 else "")


def inside(path: Path | str, folder: Path | str) -> bool:
    """A path is a folder or lies below it."""
    return Path(path).is_relative_to(folder)
