"""A page on the terminal."""

import os
import sys

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text as RichText

from gradience.page import Page, Table

_STYLES = {
    "plain": "",
    "title": "bold",
    "good": "green",
    "warn": "yellow",
    "bad": "red",
    "dim": "dim",
}
_PLAIN_WIDTH = 160  # of a pipe or a file, where no terminal gives one


class _Console(Console):
    """A console that leaves a reader who went away (`| head`) to the entry point."""

    def on_broken_pipe(self) -> None:
        """Raise on, where rich would exit with 1."""
        raise BrokenPipeError


def show(page: Page) -> None:
    """Print a page to standard output."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PLAIN_WIDTH
    console = _Console(highlight=False, width=width)
    for part in page:
        if isinstance(part, Table):
            console.print()
            console.print(_table(part))
            if part.note:
                console.print(RichText(part.note, style="dim"))
            console.print()
        else:
            console.print(RichText(part.text, style=_STYLES[part.tone]))


def _table(table: Table) -> RichTable:
    drawn = RichTable(
        title=table.title, title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    for index, name in enumerate(table.head):
        drawn.add_column(
            name,
            justify="left" if index in table.left else "right",
            no_wrap=index == 0,
            min_width=max(map(len, name.split())),  # a heading breaks between words
            overflow="fold",
            header_style="dim",
        )
    for row in table.rows:
        drawn.add_row(*(RichText(cell) for cell in row))
    return drawn
