"""PEFT's rule for `rank_pattern` and `alpha_pattern`, safe on patterns from strangers.

A key of such a pattern is a regular expression K, and a module takes the value of the first key
for which `re.match(rf"(.*\\.)?({K})$", module)` holds (peft.utils.other.get_pattern_key). Keys come
from a downloaded file, and Python's engine needs exponential time on some. So a key without
metacharacters is compared as text, and any other is run by the set of positions it can reach,
which gives the same answer as backtracking, in polynomial time, for everything but backward
references and lookarounds: those are refused by name.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, TypeVar

from gradience.errors import AdapterConfigError

V = TypeVar("V")

_LONGEST_KEY = 2000
_DEEPEST_REPEAT = 4
_PLAIN = re.compile(r"[\w./-]+")
_UNICODE_ONLY = re.UNICODE.value

# The parser of the standard library: it has no public name since Python 3.11.
_sre: Any = import_module("re._parser")

_CATEGORIES: dict[str, Callable[[str], bool]] = {
    "CATEGORY_DIGIT": str.isdecimal,
    "CATEGORY_SPACE": str.isspace,
    "CATEGORY_WORD": lambda c: c.isalnum() or c == "_",
}


def pattern_value(pattern: Mapping[str, V], module: str, default: V) -> V:
    """The value that PEFT takes for a module.

    Parameters
    ----------
    pattern : mapping
        `rank_pattern` or `alpha_pattern`; the order of its keys decides.
    module : str
        Name of the module in the base model, without `base_model.model.`; for a targeted
        parameter the name of the parameter.
    default : object
        `r` or `lora_alpha`.

    Raises
    ------
    AdapterConfigError
        If a key is no regular expression, or one that is not run here.

    Examples
    --------
    >>> pattern_value({"q_proj": 4}, "layers.0.q_proj", 8)
    4
    >>> pattern_value({"q_proj": 4}, "layers.0.xq_proj", 8)  # not a substring
    8
    >>> pattern_value({r"layers\\.[0-3]\\..*": 4}, "model.layers.2.mlp.up_proj", 8)
    4
    """
    return next(iter(matching_values(pattern, module)), default)


def matching_values(pattern: Mapping[str, V], module: str) -> Iterator[V]:
    """The values of every key that matches a module, in the order of the keys.

    Raises
    ------
    AdapterConfigError
        As `pattern_value`.
    """
    return (value for key, value in pattern.items() if _matches(key, module))


def check_patterns(keys: Iterable[str], source: str) -> None:
    """Refuse a key that `pattern_value` could not run.

    Raises
    ------
    AdapterConfigError
        Names the file, the key and what is wrong with it.
    """
    for key in keys:
        if _compiled_if_plain(key) is not None:
            continue
        try:
            _parsed(key)
        except AdapterConfigError as error:
            raise AdapterConfigError(f"{source}: {error}", remedy=error.remedy) from error


def _matches(key: str, module: str) -> bool:
    plain = _compiled_if_plain(key)
    if plain is not None:
        start = len(module) - len(key)
        starts_a_component = start == 0 or (start > 0 and module[start - 1] == ".")
        return starts_a_component and plain.match(module, start) is not None
    starts = {0} | {i + 1 for i, c in enumerate(module) if c == "."}
    return len(module) in _ends(_parsed(key), module, starts)


@lru_cache(maxsize=4096)
def _compiled_if_plain(key: str) -> re.Pattern[str] | None:
    """A key whose one metacharacter is `.`: it takes as many characters as it has, in one pass."""
    return re.compile(key) if _PLAIN.fullmatch(key) and len(key) <= _LONGEST_KEY else None


@lru_cache(maxsize=4096)
def _parsed(key: str) -> tuple[tuple[Any, Any], ...]:
    """The parse tree of a key, checked to hold nothing that cannot be run by position sets."""
    if len(key) > _LONGEST_KEY:
        raise _refused(key, f"longer than {_LONGEST_KEY} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "possible nested set": the author's affair, not ours
            tree = _sre.parse(key)
        _check(tree, 0, key)
    except (re.error, OverflowError) as error:
        raise _refused(key, str(error)) from error
    except RecursionError as error:
        raise _refused(key, "nested too deeply") from error
    if tree.state.flags != _UNICODE_ONLY:
        raise _refused(key, "inline flags")
    return tuple(tree)


def _refused(key: str, reason: str) -> AdapterConfigError:
    shown = key if len(key) <= 80 else key[:77] + "..."
    return AdapterConfigError(
        f"the key {shown!r} of rank_pattern or alpha_pattern is not a pattern that can be "
        f"matched safely: {reason}",
        remedy="Write the module names out, or use only letters, classes, groups and repeats.",
    )


def _check(tree: Any, depth: int, key: str) -> None:
    for op, argument in tree:
        kind = str(op)
        if kind in ("MAX_REPEAT", "MIN_REPEAT"):
            if depth == _DEEPEST_REPEAT:
                raise _refused(key, f"repeats nested more than {_DEEPEST_REPEAT} deep")
            _check(argument[2], depth + 1, key)
        elif kind == "BRANCH":
            for branch in argument[1]:
                _check(branch, depth, key)
        elif kind == "SUBPATTERN":
            if argument[1] or argument[2]:
                raise _refused(key, "inline flags")
            _check(argument[3], depth, key)
        elif kind == "AT" and str(argument) not in ("AT_BEGINNING", "AT_END"):
            raise _refused(key, str(argument).lower())
        elif kind not in ("LITERAL", "NOT_LITERAL", "ANY", "IN", "AT"):
            raise _refused(key, kind.lower())


def _ends(tree: Any, text: str, starts: set[int]) -> set[int]:
    """Where a match of `tree` can end when it begins at any of `starts`."""
    for op, argument in tree:
        if not starts:
            break
        starts = _step(str(op), argument, text, starts)
    return starts


def _step(kind: str, argument: Any, text: str, starts: set[int]) -> set[int]:
    match kind:
        case "MAX_REPEAT" | "MIN_REPEAT":
            return _repeat(argument, text, starts)
        case "BRANCH":
            return set().union(*(_ends(branch, text, starts) for branch in argument[1]))
        case "SUBPATTERN":
            return _ends(argument[3], text, starts)
        case "AT":
            return starts & {0 if str(argument) == "AT_BEGINNING" else len(text)}
        case _:
            return {i + 1 for i in starts if i < len(text) and _takes(kind, argument, text[i])}


def _repeat(argument: Any, text: str, starts: set[int]) -> set[int]:
    low, high, tree = argument
    # Positions only grow, so a step that changes nothing, or len(text) + 1 steps, is the end.
    for _ in range(min(int(low), len(text) + 1)):
        moved = _ends(tree, text, starts)
        if moved == starts:
            break
        starts = moved
    reached = frontier = starts
    for _ in range(min(int(high) - int(low), len(text) + 1)):
        frontier = _ends(tree, text, frontier) - reached
        if not frontier:
            break
        reached = reached | frontier
    return reached


def _takes(kind: str, argument: Any, char: str) -> bool:
    match kind:
        case "ANY":
            return char != "\n"
        case "LITERAL":
            return bool(ord(char) == argument)
        case "NOT_LITERAL":
            return bool(ord(char) != argument)
        case _:
            negated = str(argument[0][0]) == "NEGATE"
            return negated != any(_in_class(str(op), value, char) for op, value in argument)


def _in_class(kind: str, value: Any, char: str) -> bool:
    match kind:
        case "LITERAL":
            return bool(ord(char) == value)
        case "RANGE":
            return bool(value[0] <= ord(char) <= value[1])
        case "CATEGORY":
            name = str(value)
            belongs = _CATEGORIES[name.replace("_NOT_", "_")](char)
            return belongs != ("_NOT_" in name)
        case _:
            return False
