"""What a variable's value means, and which variable decides a path. Pure helpers of the rules."""

import posixpath
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from gradience.storage.doctor.facts import Facts, Use

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
TRUE = frozenset({"1", "on", "yes", "true"})
# Name: library, the version from which it is not read, the variable to set instead.
_GONE = {
    "TRANSFORMERS_CACHE": ("transformers", (5,), "HF_HUB_CACHE"),
    "PYTORCH_TRANSFORMERS_CACHE": ("transformers", (5,), "HF_HUB_CACHE"),
    "PYTORCH_PRETRAINED_BERT_CACHE": ("transformers", (5,), "HF_HUB_CACHE"),
    "HF_HUB_ENABLE_HF_TRANSFER": ("huggingface_hub", (1,), "HF_XET_HIGH_PERFORMANCE"),
    "TORCH_HUB": ("torch", (1,), "TORCH_HOME"),
    "TORCH_MODEL_ZOO": ("torch", (1,), "TORCH_HOME"),
    # In circulation, and in no release of the library they seem to belong to.
    "HF_HUB_CACHE_MAX_SIZE": ("huggingface_hub", (0,), ""),
    "HF_HUB_DOWNLOAD_PARALLEL": ("huggingface_hub", (0,), ""),
}


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


def gone(facts: Facts) -> dict[str, tuple[str, str]]:
    """Variables that are set and that nobody installed reads: library and replacement."""
    found = {}
    for name, (library, since, instead) in _GONE.items():
        version = facts.interpreter.installed(library) if facts.interpreter else None
        if name in facts.environ and version is not None and version_of(version) >= since:
            found[name] = (f"{library} {version}", instead)
    return found


def deciding(use: Use, facts: Facts) -> tuple[str, str] | None:
    """The strongest variable that decides a path, with what is appended to it.

    One that nobody reads decides nothing. An empty one decides where the answer shows it: the hub
    takes `HF_HUB_CACHE=` for the working directory, Python passes `TMPDIR=` over.
    """
    ignored = gone(facts)
    return next(
        (
            (name, rest)
            for name, rest in use.variables
            if name in facts.environ
            and name not in ignored
            and (facts.environ[name] or below(use.answer, "") == below("", rest))
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
