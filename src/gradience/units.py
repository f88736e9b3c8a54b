"""Sizes and durations: `10GB` and `7d` to numbers and back."""

import re
from datetime import timedelta

from gradience.errors import UsageError

_DECIMAL = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15}
_BINARY = {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "PIB": 2**50}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_size(text: str) -> int:
    """Bytes named by a text such as `10GB` (decimal), `4GiB` (binary) or `1200`.

    Raises
    ------
    UsageError
        If the text is not a number with one of the known units.

    Examples
    --------
    >>> parse_size("1.5GB"), parse_size("4 GiB"), parse_size("12")
    (1500000000, 4294967296, 12)
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    unit = (match[2].upper() or "B") if match else ""
    unit = unit if unit.endswith("B") else unit + "B"
    factor = (_DECIMAL | _BINARY).get(unit)
    if match is None or factor is None:
        raise UsageError(
            f"{text!r} is not a size", remedy="Write a number and a unit, such as 10GB or 4GiB."
        )
    return round(float(match[1]) * factor)


def format_size(size: int) -> str:
    """A size in decimal units with three significant digits.

    Examples
    --------
    >>> format_size(0), format_size(999), format_size(2962192), format_size(336_000_000)
    ('0 B', '999 B', '2.96 MB', '336 MB')
    """
    value = float(size)
    for unit in _DECIMAL:
        if abs(value) < 999.5 or unit == "PB":
            break
        value /= 1000
    digits = 0 if unit == "B" or abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{digits}f} {unit}"


def parse_duration(text: str) -> timedelta:
    """A duration such as `90s`, `15m`, `12h`, `7d` or `2w`.

    Raises
    ------
    UsageError
        If the text is not a number with one of the units s, m, h, d, w.

    Examples
    --------
    >>> parse_duration("7d")
    datetime.timedelta(days=7)
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([smhdw])\s*", text)
    if match is None:
        raise UsageError(
            f"{text!r} is not a duration",
            remedy="Write a number and one of s, m, h, d, w, such as 7d.",
        )
    return timedelta(seconds=float(match[1]) * _SECONDS[match[2]])


def format_seconds(seconds: float) -> str:
    """A duration for reading.

    Examples
    --------
    >>> format_seconds(0.034), format_seconds(3.21), format_seconds(75), format_seconds(7300)
    ('34 ms', '3.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"


def plural(n: int, word: str, many: str | None = None) -> str:
    """A count and its noun.

    Examples
    --------
    >>> plural(1, "warning"), plural(2, "warning"), plural(2, "process", "processes")
    ('1 warning', '2 warnings', '2 processes')
    """
    return f"{n} {word}" if n == 1 else f"{n} {many or f'{word}s'}"
