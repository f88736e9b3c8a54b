"""Which layers of a model the texts of `target_modules` and `modules_to_save` mean. Pure.

PEFT takes names or their ends, or one regular expression for whole names
(`peft.tuners.tuners_utils.check_target_module_exists`, PEFT 0.21).
"""

import re
from collections.abc import Collection, Sequence


def is_named(module: str, end: str) -> bool:
    """Whether a layer has this name, or one that ends so.

    Examples
    --------
    >>> is_named("h.0.q_proj", "q_proj"), is_named("h.0.q_proj", "proj")
    (True, False)
    """
    return module == end or module.endswith(f".{end}")


def unnamed(ends: Sequence[str], modules: Collection[str]) -> tuple[str, ...]:
    """Names that no layer has; PEFT trains the others without a word."""
    return tuple(end for end in ends if not any(is_named(module, end) for module in modules))


def why_no_pattern(targets: Sequence[str] | str) -> str:
    """Why a text is no regular expression; "" where it is one, and for a list of names."""
    if isinstance(targets, str):
        try:
            re.compile(targets)
        except re.error as error:
            return f"{targets!r} is no regular expression: {error}"
    return ""
