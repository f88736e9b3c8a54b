"""The few pieces of markup that the report is made of: escaped text, cells, tables. Pure."""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gradience.html.wording import figures

_BREAK = re.compile(r"(?<=\w)([./])(?=\w)")
_TICKS = re.compile(r"`([^`]+)`")


def escape(text: object) -> str:
    """Text that cannot become markup, whatever file it came from.

    A lone surrogate, which a hostile header can hold, becomes `?`: UTF-8 cannot carry it.

    Examples
    --------
    >>> escape("<b> & 'c'")
    '&lt;b&gt; &amp; &#x27;c&#x27;'
    """
    return html.escape(str(text).encode("utf-8", "replace").decode("utf-8"), quote=True)


def code(text: object) -> str:
    """A name, in the type face of names."""
    # A long path breaks behind its dots and slashes while it can.
    broken = _BREAK.sub(r"\1<wbr>", escape(text))
    return f"<code>{broken}</code>"


def prose(text: str) -> str:
    """Text in which `backticks` mark names."""
    return _TICKS.sub(r"<code>\1</code>", escape(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell: its markup and, for a number, the exact value that it rounds.

    Attributes
    ----------
    markup : str
        Escaped by who made it.
    value : float or int or None
        What the column is sorted by; None for text.
    note : str
        Shown when pointed at; plain text.
    """

    markup: str
    value: float | int | None = None
    note: str = ""


def text_cell(text: object) -> Cell:
    """A cell of plain text."""
    return Cell(markup=escape(text))


def name_cell(text: object) -> Cell:
    """A cell that holds a name."""
    return Cell(markup=code(text), note=str(text))


def number_cell(value: float | None, text: str | None = None, *, note: str = "") -> Cell:
    """A number with its exact value, or a dash with the reason in `note`."""
    if value is None:
        return Cell(markup='<span class="absent">-</span>', note=note)
    return Cell(markup=escape(figures(value) if text is None else text), value=value, note=note)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A column: its heading, whether its cells are numbers, whether their text may wrap."""

    title: str
    numeric: bool = True
    note: str = ""
    wrap: bool = False

    @property
    def style(self) -> str:
        """Class attribute of the cells of this column, with a leading space; "" for none."""
        kind = "n" if self.numeric else "w" if self.wrap else ""
        return f' class="{kind}"' if kind else ""


def table(
    head: Sequence[Head],
    rows: Iterable[Sequence[Cell]],
    *,
    label: str,
    sortable: bool = False,
    tall: bool = False,
) -> str:
    """A table in a box of its own that scrolls when the table is wider than the page.

    The box takes keyboard focus, so that it can be scrolled without a pointer.
    """
    kind = ' class="sortable"' if sortable else ""
    box = "scroll tall" if tall else "scroll"
    body = "\n".join(_row(row, head) for row in rows)
    return (
        f'<div class="{box}" tabindex="0" role="region" aria-label="{escape(label)}">'
        f"<table{kind}><thead><tr>{''.join(map(_heading, head))}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _heading(head: Head) -> str:
    note = f' title="{escape(head.note)}"' if head.note else ""
    return f'<th scope="col"{head.style}{note}>{escape(head.title)}</th>'


def _row(cells: Sequence[Cell], head: Sequence[Head]) -> str:
    first, *rest = cells
    marked = "".join(_cell(cell, column) for cell, column in zip(rest, head[1:], strict=True))
    return f'<tr><th scope="row"{_attributes(first, head[0])}>{first.markup}</th>{marked}</tr>'


def _cell(cell: Cell, head: Head) -> str:
    return f"<td{_attributes(cell, head)}>{cell.markup}</td>"


def _attributes(cell: Cell, head: Head) -> str:
    value = "" if cell.value is None else f' data-v="{cell.value!r}"'
    note = f' title="{escape(cell.note)}"' if cell.note else ""
    return f"{head.style}{value}{note}"
