"""A page to show: text and tables, without a word on how a terminal draws them."""

from typing import Literal

import msgspec

Tone = Literal["plain", "title", "good", "warn", "bad", "dim"]


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """One line of text."""

    text: str
    tone: Tone = "plain"


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of cells; every column but the first is right-aligned unless it is in `left`.

    `spare` names columns, the most dispensable first, that may be left out where the page is too
    narrow for all; whoever draws the table says which are.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: frozenset[int] = frozenset({0})
    spare: tuple[str, ...] = ()
    note: str = ""


Page = tuple[Text | Table, ...]


def number(value: float | None, digits: int = 3) -> str:
    """A number with few digits; `-` where there is none.

    Examples
    --------
    >>> number(0.012345), number(1234567.0), number(3.0), number(None), number(1e-9)
    ('0.0123', '1.23e+06', '3', '-', '1e-09')
    """
    if value is None:
        return "-"
    if value == 0 or 1e-4 <= abs(value) < 1e5:
        rounded = float(f"{value:.{digits}g}")
        return f"{rounded:.0f}" if rounded == int(rounded) else f"{rounded:.10g}"
    return f"{value:.{digits}g}"


def percent(value: float | None) -> str:
    """A share in percent; `-` where there is none.

    Examples
    --------
    >>> percent(0.0312), percent(0.5), percent(None)
    ('3.1%', '50%', '-')
    """
    if value is None:
        return "-"
    return f"{value * 100:.1f}%" if value < 0.0995 else f"{value:.0%}"


def count(value: int) -> str:
    """A count of parameters.

    Examples
    --------
    >>> count(950), count(165888), count(7_241_732_096)
    ('950', '166 k', '7.24 G')
    """
    scaled = float(value)
    for unit in ("", " k", " M", " G", " T"):
        if scaled < 999.5 or unit == " T":
            break
        scaled /= 1000
    return f"{scaled:.3g}{unit}"
