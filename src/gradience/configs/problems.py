"""What is wrong with a config: a list, so that a user mends everything in one go."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from gradience.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that cannot be meant.

    Attributes
    ----------
    path : str
        `$.lora.rank`, `$.variants[0].ranks`.
    message : str
        What was found there, with the value, and the remedy.
    """

    path: str
    message: str


def meant(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or the known names.

    Examples
    --------
    >>> meant("alpah", ["rank", "alpha"]), meant("x", ["rank", "alpha"])
    ("did you mean 'alpha'?", "known: 'rank', 'alpha'")
    """
    names = list(known)
    close = get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(map(repr, names))}"


def refuse(
    problems: Sequence[Problem], source: str, lines: Mapping[str, int], *, remedy: str
) -> None:
    """Raise one error that lists every problem; nothing happens where there is none.

    Parameters
    ----------
    problems : sequence of Problem
    source : str
        The file, for the message.
    lines : mapping of str to int
        Line of a path in the file; a path that is not there gets that of the nearest above it.
    remedy : str
        Where it is said what may be written.

    Raises
    ------
    UsageError
    """
    if not problems:
        return
    placed = sorted(((_line(p.path, lines), p) for p in problems), key=lambda one: one[0])
    told = [
        f"{f'line {line}, ' if line else ''}{problem.path}: {problem.message}"
        for line, problem in placed
    ]
    count = "a problem" if len(told) == 1 else f"{len(told)} problems"
    raise UsageError(f"{source} has {count}:", details=told, remedy=remedy)


def _line(path: str, lines: Mapping[str, int]) -> int:
    """The line of a path, or of the nearest part above it; 0 where there is none."""
    while path not in lines and len(path) > 1:
        path = path[: max(path.rfind("."), path.rfind("["))]
    return lines.get(path, 0)
