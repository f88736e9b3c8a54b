"""A page on the terminal."""

import os
import sys

from msgspec.structs import replace
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text as RichText

from gradience.cli.visible import visible
from gradience.page import Page, Table

STYLES = {
    "plain": "",
    "title": "bold",
    "good": "green",
    "warn": "yellow",
    "bad": "red",
    "dim": "dim",
}
_LONGEST_NAME = 100  # in a table, beside its numbers; --json has it whole
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
    for number, part in enumerate(page):
        if isinstance(part, Table):
            # A table ends with an empty line, which is the one before the next table too.
            apart = number > 0 and not isinstance(page[number - 1], Table)
            _show_table(console, part, apart=apart)
        else:
            # A command is one line, whatever the width, so that it can be copied.
            command = part.text.lstrip().startswith("$ ")
            console.print(RichText(visible(part.text), style=STYLES[part.tone]), soft_wrap=command)


def _show_table(console: Console, table: Table, *, apart: bool) -> None:
    shown, left_out = fitting(table, console.width)
    if apart:
        console.print()
    with console.capture() as drawn:
        console.print(drawn_table(shown))
    for line in drawn.get().splitlines():
        console.out(line.rstrip(), highlight=False)
    if left_out:
        names = ", ".join(left_out)
        console.print(RichText(f"No room for {names}: see a wider window or --json.", style="dim"))
    if table.note:
        console.print(RichText(visible(table.note), style="dim"))
    console.print()


def fitting(table: Table, width: int) -> tuple[Table, tuple[str, ...]]:
    """The table without the spare columns that do not fit `width`, and their names."""
    left_out: list[str] = []
    for name in table.spare:
        if _width(table) <= width:
            break
        if name in table.head:
            table = _without(table, table.head.index(name))
            left_out.append(name)
    return table, tuple(left_out)


def _width(table: Table) -> int:
    """Characters that the table needs when no cell breaks and headings break between words."""
    columns = zip(*table.rows, strict=True) if table.rows else [()] * len(table.head)
    return sum(
        2 + max([*map(len, name.split()), *(min(len(c), _LONGEST_NAME) for c in cells)])
        for name, cells in zip(table.head, columns, strict=True)
    )


def _without(table: Table, gone: int) -> Table:
    def cut(cells: tuple[str, ...]) -> tuple[str, ...]:
        return (*cells[:gone], *cells[gone + 1 :])

    return replace(
        table,
        head=cut(table.head),
        rows=tuple(map(cut, table.rows)),
        left=frozenset(i - (i > gone) for i in table.left if i != gone),
    )


def drawn_table(table: Table) -> RichTable:
    """A table as rich draws it."""
    title = RichText(visible(table.title))
    drawn = RichTable(
        title=title, title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    for index, name in enumerate(table.head):
        drawn.add_column(
            name,
            justify="left" if index in table.left else "right",
            # A number is never broken; a name and a list of names may be.
            no_wrap=index not in table.left,
            min_width=max(map(len, name.split())),
            overflow="fold",
            header_style="dim",
        )
    for row in table.rows:
        name, *values = row
        drawn.add_row(
            RichText(visible(name, longest=_LONGEST_NAME)), *(RichText(visible(v)) for v in values)
        )
    return drawn
