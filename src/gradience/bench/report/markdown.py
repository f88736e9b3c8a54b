"""A page as Markdown. Pure."""

import re
from collections.abc import Sequence

from gradience.page import Page, Table, Text

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~#])")
_BOLD = {"good", "bad", "warn"}


def markdown(page: Page) -> str:
    """A title, paragraphs and tables, that read as text and render on a forge."""
    return "\n\n".join(map(_part, page)) + "\n"


def _part(part: Text | Table) -> str:
    if isinstance(part, Table):
        return _table(part)
    text = escape(part.text)
    if part.tone == "title":
        return f"# {text}"
    return f"**{text}**" if part.tone in _BOLD else text


def _table(table: Table) -> str:
    rule = ["---" if i in table.left else "---:" for i in range(len(table.head))]
    lines = [table.head, rule, *table.rows]
    drawn = "\n".join(f"| {' | '.join(cells)} |" for cells in map(_cells, lines))
    note = f"\n\n{escape(table.note)}" if table.note else ""
    return f"## {escape(table.title)}\n\n{drawn}{note}"


def _cells(cells: Sequence[str]) -> list[str]:
    return [cell if cell.strip("-:") == "" else escape(cell) for cell in cells]


def escape(text: str) -> str:
    """Text that stays text: no markup, and on one line.

    Examples
    --------
    >>> escape("a|b <script>")
    'a\\\\|b \\\\<script\\\\>'
    """
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
